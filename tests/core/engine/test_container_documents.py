"""A container as `ps` and `inspect` tell of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from wherry.cli.ps import format_ports, row_of
from wherry.container.store import Container
from wherry.engine.documents import inspect, status, summary
from wherry.times import parse_time

if TYPE_CHECKING:
    from pathlib import Path

ID = "0123456789ab" + "0" * 52
STARTED = "2026-01-01T00:00:00Z"
NOW = parse_time("2026-01-01T02:00:00Z")


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Container:
    monkeypatch.setenv("WHERRY_ROOT", str(tmp_path))
    made = Container(
        ID,
        {
            "Id": ID,
            "Name": "web",
            "Created": STARTED,
            "Image": "sha256:abc",
            "ImageName": "nginx",
            "Layers": [f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"],
            "Mounts": [
                {
                    "Type": "volume",
                    "Name": "data",
                    "Driver": "local",
                    "Destination": "/d",
                    "Spec": 1,
                }
            ],
            "Body": {
                "Entrypoint": ["/entry"],
                "Cmd": ["a", 'b "c"'],
                "Labels": {"x": "y"},
                "ExposedPorts": {"80/tcp": {}, "81/tcp": {}},
                "HostConfig": {"Memory": 5, "NetworkMode": "default"},
            },
        },
    )
    made._state = {
        "Status": "running",
        "Pid": 7,
        "ExitCode": 0,
        "StartedAt": STARTED,
        "FinishedAt": "0001-01-01T00:00:00Z",
    }
    return made


def test_inspect_has_what_scripts_ask_for(container: Container) -> None:
    document = inspect(container)

    assert document["Name"] == "/web"
    assert document["State"]["Running"] is True
    assert document["State"]["Pid"] == 7
    assert document["Path"] == "/entry"
    assert document["Args"] == ["a", 'b "c"']
    assert document["Image"] == "sha256:abc"
    assert document["Config"]["Image"] == "nginx"
    assert document["Config"]["Hostname"] == ID[:12]
    assert document["HostConfig"]["Memory"] == 5
    assert document["HostConfig"]["Privileged"] is False
    assert document["NetworkSettings"]["Ports"] == {"80/tcp": None, "81/tcp": None}
    assert list(document["NetworkSettings"]["Networks"]) == ["bridge"]
    assert document["NetworkSettings"]["IPAddress"] == ""
    assert document["GraphDriver"]["Data"]["LowerDir"].count(":") == 1
    assert document["Mounts"] == [
        {"Type": "volume", "Name": "data", "Driver": "local", "Destination": "/d"}
    ]


def test_health_is_in_the_state(container: Container) -> None:
    container.state["Health"] = {"Status": "healthy", "FailingStreak": 0, "Log": []}

    assert inspect(container)["State"]["Health"]["Status"] == "healthy"
    assert summary(container, NOW)["Status"] == "Up 2 hours (healthy)"


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"Status": "running"}, "Up 2 hours"),
        ({"Status": "running", "Health": {"Status": "starting"}}, "Up 2 hours (health: starting)"),
        ({"Status": "running", "Health": {"Status": "unhealthy"}}, "Up 2 hours (unhealthy)"),
        ({"Status": "paused"}, "Up 2 hours (Paused)"),
        ({"Status": "exited", "ExitCode": 137}, "Exited (137) About an hour ago"),
        ({"Status": "restarting", "ExitCode": 1}, "Restarting (1) About an hour ago"),
        ({"Status": "created"}, "Created"),
        ({"Status": "removing"}, "Removal In Progress"),
        ({"Status": "dead"}, "Dead"),
    ],
)
def test_the_status_is_dockers_phrase(state: dict[str, Any], text: str) -> None:
    times = {"StartedAt": STARTED, "FinishedAt": "2026-01-01T01:00:00Z", "ExitCode": 0}

    assert status({**times, **state}, NOW) == text


def test_a_row_has_dockers_fields(container: Container) -> None:
    container.state["Network"] = {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}}

    row = row_of(summary(container, NOW))

    assert row["ID"] == ID[:12]
    assert row["Names"] == "web"
    assert row["Command"] == '"/entry a \'b \\"c\\"\'"'
    assert row["Ports"] == "81/tcp, 0.0.0.0:8080->80/tcp"
    assert row["Mounts"] == "data"
    assert row["LocalVolumes"] == "1"
    assert row["Networks"] == "bridge"
    assert row["Label"]("x") == "y"


def port(inner: int, outer: int = 0, address: str = "", kind: str = "tcp") -> dict[str, Any]:
    found: dict[str, Any] = {"PrivatePort": inner, "Type": kind}
    return {**found, "PublicPort": outer, "IP": address} if outer else found


@pytest.mark.parametrize(
    ("ports", "text"),
    [
        ([], ""),
        ([port(80)], "80/tcp"),
        ([port(80), port(81), port(82), port(90)], "80-82/tcp, 90/tcp"),
        ([port(80, 8080, "0.0.0.0"), port(80, 8080, "::")],
         "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
        ([port(81, 8081, "0.0.0.0"), port(80, 8080, "0.0.0.0")],
         "0.0.0.0:8080->80/tcp, 0.0.0.0:8081->81/tcp"),
        ([port(n, n, "0.0.0.0") for n in (80, 81, 90)] + [port(85, 8500, "0.0.0.0"), port(79)],
         "0.0.0.0:80-81->80-81/tcp, 79/tcp, 0.0.0.0:90->90/tcp, 0.0.0.0:8500->85/tcp"),
        ([port(80, 8080, "0.0.0.0"), port(81, 9000, "0.0.0.0")],
         "0.0.0.0:8080->80/tcp, 0.0.0.0:9000->81/tcp"),
        ([port(53, 53, "0.0.0.0", "udp"), port(53, 53, "0.0.0.0")],
         "0.0.0.0:53->53/tcp, 0.0.0.0:53->53/udp"),
    ],
)  # fmt: skip
def test_neighbouring_ports_are_shown_as_a_range(ports: list[dict[str, Any]], text: str) -> None:
    assert format_ports(ports) == text
