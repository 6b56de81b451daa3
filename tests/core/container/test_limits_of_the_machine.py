"""Limits that ask for more than the machine has, or that contradict those a container has."""

from __future__ import annotations

from typing import Any

import pytest

from wherry.container.check import check_processors, check_update
from wherry.errors import Conflict, UsageError


@pytest.mark.parametrize(
    "host",
    [
        {},
        {"NanoCpus": 10_000_000},
        {"NanoCpus": 4_000_000_000},
        {"CpusetCpus": "0-2,5", "CpusetMems": "0"},
    ],
)
def test_what_the_machine_has_can_be_asked_for(host: Any) -> None:
    check_processors(host, 4, "0-3,5", "0")


@pytest.mark.parametrize(
    ("host", "told"),
    [
        (
            {"NanoCpus": 4_000_000_001},
            "range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available",
        ),
        (
            {"NanoCpus": 1},
            "range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available",
        ),
        (
            {"CpusetCpus": "3-5"},
            "Requested CPUs are not available - requested 3-5, available: 0-3,5",
        ),
        (
            {"CpusetCpus": "0,99999999999"},
            "Requested CPUs are not available - requested 0,99999999999, available: 0-3,5",
        ),
        (
            {"CpusetMems": "1"},
            "Requested memory nodes are not available - requested 1, available: 0",
        ),
    ],
)
def test_more_than_the_machine_has_is_refused(host: Any, told: str) -> None:
    with pytest.raises(UsageError) as raised:
        check_processors(host, 4, "0-3,5", "0")

    assert raised.value.message == told


@pytest.mark.parametrize(
    ("host", "changes"),
    [
        ({"Memory": 10, "MemorySwap": 20}, {"Memory": 20}),
        ({"Memory": 10, "MemorySwap": 20}, {"Memory": 30, "MemorySwap": 30}),
        ({"Memory": 10, "MemorySwap": -1}, {"Memory": 30}),
        ({}, {"Memory": 30}),
        ({"NanoCpus": 5}, {"NanoCpus": 6, "CpuShares": 3}),
        ({"AutoRemove": True}, {"RestartPolicy": {"Name": "no"}}),
    ],
)
def test_limits_can_be_changed(host: Any, changes: Any) -> None:
    check_update(host, changes)


@pytest.mark.parametrize(
    ("host", "changes", "told"),
    [
        ({"MemorySwap": 20}, {"Memory": 30}, "smaller than already set memoryswap limit"),
        ({"NanoCpus": 5}, {"CpuPeriod": 6}, "CPU Period cannot be updated as NanoCPUs"),
        ({"NanoCpus": 5}, {"CpuQuota": 6}, "CPU Quota cannot be updated as NanoCPUs"),
        ({"CpuQuota": 5}, {"NanoCpus": 6}, "Nano CPUs cannot be updated as CPU Quota"),
        ({"AutoRemove": True}, {"RestartPolicy": {"Name": "always"}}, "AutoRemove is enabled"),
    ],
)
def test_change_that_contradicts_what_there_is_is_refused(
    host: Any, changes: Any, told: str
) -> None:
    with pytest.raises(Conflict, match=told):
        check_update(host, changes)
