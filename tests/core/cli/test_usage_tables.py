"""`stats`, `system df` and `events`: numbers of the engine as docker's tables show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wherry.cli.stats import cpu_share, row_of
from wherry.cli.system import format_event
from wherry.cli.usage import print_details, print_summary, summary_rows

if TYPE_CHECKING:
    import pytest

SAMPLE: dict[str, Any] = {
    "id": "a" * 64,
    "name": "/web",
    "read_nano": 2_000_000_000,
    "cpu_stats": {"cpu_usage": {"total_usage": 1_500_000_000}},
    "memory_stats": {"usage": 3 << 20, "limit": 1 << 30, "stats": {"inactive_file": 1 << 20}},
    "networks": {
        "eth0": {"rx_bytes": 1000, "tx_bytes": 2000},
        "eth1": {"rx_bytes": 500, "tx_bytes": 0},
    },
    "blkio_stats": {
        "io_service_bytes_recursive": [
            {"op": "read", "value": 4096},
            {"op": "Write", "value": 8192},
            {"op": "read", "value": 1},
        ]
    },
    "pids_stats": {"current": 3},
}
EARLIER: dict[str, Any] = {
    "read_nano": 1_000_000_000,
    "cpu_stats": {"cpu_usage": {"total_usage": 1_000_000_000}},
}


def test_a_row_of_stats_is_dockers() -> None:
    row = row_of(SAMPLE, EARLIER)

    assert row == {
        "Container": "a" * 12,
        "ID": "a" * 12,
        "Name": "web",
        "CPUPerc": "50.00%",
        "MemUsage": "2MiB / 1GiB",
        "MemPerc": "0.20%",
        "NetIO": "1.5kB / 2kB",
        "BlockIO": "4.1kB / 8.19kB",
        "PIDs": "3",
    }


def test_a_container_that_does_not_run_has_dashes() -> None:
    row = row_of({"id": "a" * 64, "name": "/web", "read_nano": 1}, None)

    assert (row["CPUPerc"], row["MemUsage"], row["PIDs"]) == ("--", "-- / --", "--")


def test_a_first_sample_and_a_counter_that_went_back_are_no_share() -> None:
    assert cpu_share(SAMPLE, None) == 0
    assert cpu_share(EARLIER, SAMPLE) == 0


IMAGE: dict[str, Any] = {
    "Id": "sha256:" + "b" * 64,
    "RepoTags": ["one:1", "two/x:2"],
    "Created": 0,
    "Size": 300,
    "SharedSize": 100,
    "Containers": 1,
}
USAGE: dict[str, Any] = {
    "LayersSize": 500,
    "Images": [IMAGE, {**IMAGE, "RepoTags": [], "Containers": 0}],
    "Containers": [],
    "Volumes": [
        {
            "Name": "v",
            "Driver": "local",
            "Mountpoint": "/v",
            "CreatedAt": "2024-01-01T00:00:00Z",
            "Labels": None,
            "UsageData": {"Size": 1000, "RefCount": 0},
        }
    ],
    "BuildCache": [
        {
            "ID": digit * 64,
            "Type": "regular",
            "Description": "RUN true",
            "InUse": is_used,
            "Shared": is_used,
            "Size": 70,
            "CreatedAt": "2024-01-01T00:00:00Z",
            "LastUsedAt": "2024-01-01T00:00:00Z",
        }
        for digit, is_used in (("c", True), ("d", False))
    ],
}


def test_disk_usage_tells_what_removal_would_give_back() -> None:
    images, containers, volumes, caches = summary_rows(USAGE)

    assert (images["TotalCount"], images["Active"], images["Size"]) == ("2", "1", "500B")
    assert images["Reclaimable"] == "200B (40%)"
    assert containers["Reclaimable"] == "0B"
    assert (volumes["TotalCount"], volumes["Active"]) == ("1", "0")
    assert volumes["Reclaimable"] == "1kB (100%)"
    assert (caches["TotalCount"], caches["Active"]) == ("2", "1")
    assert caches["Size"] == caches["Reclaimable"] == "70B"


def test_disk_usage_is_printed_short_and_long(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(USAGE)
    short = capsys.readouterr().out
    print_details(USAGE)
    long = capsys.readouterr().out

    assert short.splitlines()[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert "Images space usage:" in long
    assert "two/x" in long
    assert "<none>" in long
    assert "Build cache usage: 70B" in long
    assert f"{'d' * 12}   regular" in long


def test_an_event_is_a_line() -> None:
    line = format_event(
        {
            "Type": "container",
            "Action": "die",
            "Actor": {"ID": "abc", "Attributes": {"name": "web", "exitCode": "1"}},
            "timeNano": 1_700_000_000_123_456_789,
        }
    )

    moment, rest = line.split(" ", 1)
    assert ".123456789" in moment
    assert rest == "container die abc (exitCode=1, name=web)"
