"""What `linux.resources` of a spec asks of a control group of version 2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from wherry.errors import Conflict, Unsupported, UsageError
from wherry_linux.cgroups import Cgroup
from wherry_linux.limits import controllers_of, merge, weight_of_shares, writes

if TYPE_CHECKING:
    from pathlib import Path

G = 1 << 30


@pytest.mark.parametrize(
    ("resources", "files"),
    [
        ({}, []),
        ({"memory": {"limit": G}}, [("memory.max", str(G))]),
        ({"memory": {"limit": -1}}, [("memory.max", "max")]),
        ({"memory": {"limit": 0, "reservation": 0, "swap": 0}}, []),
        ({"memory": {"reservation": 5, "useHierarchy": True}}, [("memory.low", "5")]),
        (
            {"memory": {"limit": G, "swap": 3 * G}},
            [("memory.max", str(G)), ("memory.swap.max", str(2 * G))],
        ),
        (
            {"memory": {"limit": G, "swap": G}},
            [("memory.max", str(G)), ("memory.swap.max", "0")],
        ),
        ({"memory": {"swap": -1}}, [("memory.swap.max", "max")]),
        ({"memory": {"disableOOMKiller": False, "kernel": -1, "kernelTCP": 0}}, []),
        ({"cpu": {"shares": 1024}}, [("cpu.weight", "100")]),
        ({"cpu": {"shares": 0, "quota": 0, "period": 0}}, []),
        ({"cpu": {"quota": 50000}}, [("cpu.max", "50000 100000")]),
        ({"cpu": {"quota": -1, "period": 50000}}, [("cpu.max", "max 50000")]),
        (
            {"cpu": {"quota": 20000, "period": 10000, "burst": 5000}},
            [("cpu.max", "20000 10000"), ("cpu.max.burst", "5000")],
        ),
        ({"cpu": {"idle": 1, "shares": 2}}, [("cpu.weight", "1"), ("cpu.idle", "1")]),
        ({"cpu": {"idle": 0, "shares": 2}}, [("cpu.idle", "0"), ("cpu.weight", "1")]),
        (
            {"cpu": {"cpus": "0-3", "mems": "0"}},
            [("cpuset.cpus", "0-3"), ("cpuset.mems", "0")],
        ),
        ({"pids": {"limit": 10}}, [("pids.max", "10")]),
        ({"pids": {"limit": -1}}, [("pids.max", "max")]),
        ({"pids": {"limit": 0}}, [("pids.max", "1")]),
        ({"pids": {}}, []),
        ({"blockIO": {"weight": 10}}, [("io.weight", "1")]),
        ({"blockIO": {"weight": 1000}}, [("io.weight", "10000")]),
        (
            {"blockIO": {"weightDevice": [{"major": 8, "minor": 16, "weight": 1000}]}},
            [("io.weight", "8:16 10000")],
        ),
        (
            {
                "blockIO": {
                    "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
                    "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 700}],
                    "throttleReadIOPSDevice": [{"major": 8, "minor": 1, "rate": 8}],
                    "throttleWriteIOPSDevice": [{"major": 8, "minor": 1, "rate": 0}],
                }
            },
            [
                ("io.max", "8:0 rbps=600"),
                ("io.max", "8:0 wbps=700"),
                ("io.max", "8:1 riops=8"),
                ("io.max", "8:1 wiops=max"),
            ],
        ),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 4}]}, [("hugetlb.2MB.max", "4")]),
        (
            {"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 0}, "rxe3": {"hcaObjects": 9}}},
            [("rdma.max", "mlx5_1 hca_handle=3 hca_object=0"), ("rdma.max", "rxe3 hca_object=9")],
        ),
        (
            {"unified": {"memory.high": "5", "cgroup.max.depth": "1"}},
            [("memory.high", "5"), ("cgroup.max.depth", "1")],
        ),
        (
            {"unified": {"io.max": "259:0 rbps=20 wiops=12\n253:0 rbps=2"}},
            [("io.max", "259:0 rbps=20 wiops=12"), ("io.max", "253:0 rbps=2")],
        ),
        (
            {"memory": {"limit": 7}, "unified": {"memory.max": "8"}},
            [("memory.max", "7"), ("memory.max", "8")],
        ),
    ],
)
def test_limit_becomes_a_line_of_a_file(resources: Any, files: list[tuple[str, str]]) -> None:
    assert writes(resources) == files


def test_file_is_the_one_that_the_kernel_has() -> None:
    def has_all(_: str) -> bool:
        return True

    assert writes({"hugepageLimits": [{"pageSize": "1GB", "limit": 4}]}, has_all) == [
        ("hugetlb.1GB.rsvd.max", "4")
    ]
    assert writes({"blockIO": {"weight": 300}}, has_all) == [("io.bfq.weight", "300")]


@pytest.mark.parametrize(
    ("resources", "error", "reason"),
    [
        ({"memory": {"swap": 5}}, UsageError, "needs resources.memory.limit"),
        ({"memory": {"swap": 5, "limit": 6}}, UsageError, "is less than memory.limit"),
        ({"memory": {"swappiness": 0}}, Unsupported, "memory.swappiness"),
        ({"memory": {"kernel": 5}}, Unsupported, "memory.kernel"),
        ({"memory": {"kernelTCP": 5}}, Unsupported, "memory.kernelTCP"),
        ({"memory": {"disableOOMKiller": True}}, Unsupported, "memory.disableOOMKiller"),
        ({"memory": {"useHierarchy": False}}, Unsupported, "memory.useHierarchy"),
        ({"cpu": {"realtimeRuntime": 5}}, Unsupported, "cpu.realtimeRuntime"),
        ({"cpu": {"quota": 5, "burst": 6}}, UsageError, "burst"),
        ({"blockIO": {"leafWeight": 5}}, Unsupported, "blockIO.leafWeight"),
        ({"hugepageLimits": [{"pageSize": "../2", "limit": 4}]}, UsageError, "invalid pageSize"),
        ({"rdma": {"x": {}}}, UsageError, "neither hcaHandles nor hcaObjects"),
        ({"network": {"classID": 1}}, Unsupported, "network.classID"),
        ({"network": {"priorities": [{"name": "a", "priority": 1}]}}, Unsupported, "priorities"),
        ({"unified": {"../memory.max": "1"}}, UsageError, "not the name of a file"),
        ({"unified": {"memory": "1"}}, UsageError, "not the name of a file"),
    ],
)
def test_limit_that_has_no_place_is_refused(
    resources: Any, error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        writes(resources)


def test_shares_keep_their_order_ends_and_default() -> None:
    assert [weight_of_shares(n) for n in (0, 2, 1024, 262144, 1 << 30)] == [1, 1, 100, 10000, 10000]
    weights = [weight_of_shares(n) for n in range(2, 262145, 97)]
    assert weights == sorted(weights)


def test_controllers_are_those_of_the_files() -> None:
    resources: Any = {
        "cpu": {"cpus": "0"},
        "blockIO": {"weight": 10},
        "unified": {"misc.max": "a 1", "cgroup.max.depth": "1"},
    }
    assert controllers_of(resources) == {"cpuset", "io", "misc"}


def test_update_changes_what_it_names() -> None:
    before: Any = {"memory": {"limit": G, "swap": G}, "hugepageLimits": [{"pageSize": "2MB"}]}
    update: Any = {"memory": {"limit": 2 * G}, "hugepageLimits": [], "devices": [{"allow": True}]}

    assert merge(before, update) == {"memory": {"limit": 2 * G, "swap": G}, "hugepageLimits": []}
    assert before["memory"]["limit"] == G


def test_limit_below_what_is_used_is_refused_where_the_spec_asks_to_look(tmp_path: Path) -> None:
    group = Cgroup("/group")
    group.directory = str(tmp_path)
    (tmp_path / "memory.current").write_text("4096\n")

    group._check_usage({"limit": 4096, "checkBeforeUpdate": True})
    group._check_usage({"limit": 1})
    with pytest.raises(Conflict, match="4096 are in use"):
        group._check_usage({"limit": 4095, "checkBeforeUpdate": True})
