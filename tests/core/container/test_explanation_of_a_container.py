"""`--explain` tells what the runtime-spec document says."""

from __future__ import annotations

import json
from typing import Any

from wherry.container.bundle import ContainerFacts, runtime_spec
from wherry.container.explain import explain, explain_text

KINDS = ("user", "cgroup", "ipc", "uts", "network", "mount", "pid", "time")
HOST = {kind: 4026531800 + place for place, kind in enumerate(KINDS)}
INSIDE = {kind: 4026532100 + place for place, kind in enumerate(KINDS)}
MAP = [
    {"containerID": 0, "hostID": 1000, "size": 1},
    {"containerID": 1, "hostID": 100000, "size": 65536},
]


def explanation(host: Any = None, own: Any = None, facts: Any = None, **given: Any) -> Any:
    spec = runtime_spec(
        {"Cmd": ["sleep", "1"], "HostConfig": host or {}, "Wherry": own or {}},
        None,
        ContainerFacts(
            **{
                "id": "a" * 64,
                "rootfs": "/fs",
                "uid_maps": MAP,
                "gid_maps": MAP,
                "seccomp": lambda *_: {
                    "defaultAction": "SCMP_ACT_ERRNO",
                    "syscalls": [{"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"}],
                },
                **(facts or {}),
            }
        ),
    )
    return explain(spec, host=HOST, **given)


def section(text: str, title: str) -> list[str]:
    """The lines under `title`."""
    lines = text.splitlines()
    start = lines.index(f"{title}:") + 1
    end = next((n for n in range(start, len(lines)) if lines[n][0] != " "), len(lines))
    return [line.strip() for line in lines[start:end]]


def test_namespaces_stand_beside_the_hosts() -> None:
    text = explain_text(explanation(container=INSIDE))

    rows = [line.split() for line in section(text, "namespaces")]
    assert rows[0] == ["TYPE", "HOST", "CONTAINER"]
    assert [row[:3] for row in rows[1:]] == [
        [kind, str(HOST[kind]), str(INSIDE[kind])] for kind in KINDS
    ]


def test_a_namespace_that_is_not_made_yet_has_no_number() -> None:
    text = explain_text(explanation())

    assert all("(to be made)" in line for line in section(text, "namespaces")[1:])


def test_a_shared_namespace_has_the_hosts_number() -> None:
    result = explanation(host={"NetworkMode": "host", "PidMode": "host"}, container=INSIDE)

    shared = {n["type"]: n for n in result["namespaces"] if n["how"] == "shared"}
    assert set(shared) == {"network", "pid"}
    assert shared["pid"]["container"] == HOST["pid"]
    assert "the host's" in explain_text(result)


def test_a_joined_namespace_is_called_so() -> None:
    result = explanation(facts={"namespace_paths": {"network": "/proc/7/ns/net"}})

    assert [n["type"] for n in result["namespaces"] if n["how"] == "joined"] == ["network"]


def test_clock_offsets_are_told_with_the_time_namespace() -> None:
    result = explanation(own={"ClockOffsets": {"boottime": -1.5, "monotonic": 3600}})

    assert result["clockOffsets"] == {"boottime": -1.5, "monotonic": 3600}
    assert "monotonic +3600 s, boottime -1.5 s" in explain_text(result)


def test_id_maps_are_ranges() -> None:
    assert [line.split() for line in section(explain_text(explanation()), "ids")] == [
        ["uid", "0", "->", "1000"],
        ["uid", "1-65536", "->", "100000-165535"],
        ["gid", "0", "->", "1000"],
        ["gid", "1-65536", "->", "100000-165535"],
    ]
    text = explain_text(explanation(facts={"uid_maps": None, "gid_maps": None}))
    assert section(text, "ids") == ["as on the host: there is no user namespace"]


def test_mounts_come_in_their_order() -> None:
    result = explanation(host={"Tmpfs": {"/b": "size=1m"}})

    lines = section(explain_text(result), "mounts, in order")
    assert [line.split()[0] for line in lines] == [
        *("/", "/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue"),
        *("/dev/shm", "/b"),
    ]
    assert "size=1m" in lines[-1]


def test_capabilities_are_told_once_for_equal_sets() -> None:
    text = explain_text(explanation(host={"CapDrop": ["ALL"], "CapAdd": ["KILL", "CHOWN"]}))

    assert section(text, "capabilities") == ["bounding, effective, permitted:", "CHOWN KILL"]
    assert section(explain_text(explanation(host={"CapDrop": ["ALL"]})), "capabilities") == ["none"]
    assert "all" in section(explain_text(explanation(host={"Privileged": True})), "capabilities")


def test_the_filter_is_counted() -> None:
    text = explain_text(explanation(instructions=619))

    assert section(text, "system calls") == [
        "1 rule over 2 calls, errno for all others; 619 BPF instructions"
    ]
    unfiltered = explain_text(explanation(host={"SecurityOpt": ["seccomp=unconfined"]}))
    assert section(unfiltered, "system calls") == ["not filtered"]


def test_limits_network_and_notes_are_told() -> None:
    host = {
        "Memory": 1024,
        "PidsLimit": 5,
        "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": -1}],
        "SecurityOpt": ["no-new-privileges"],
    }
    result = explanation(host=host, network="bridge", notes=["no user namespace: --userns host"])

    text = explain_text(result)
    assert [line.split(maxsplit=1) for line in section(text, "limits")] == [
        ["memory.limit", "1024"],
        ["memory.swap", "2048"],
        ["pids.limit", "5"],
        ["nofile", "10 (at most unlimited)"],
    ]
    assert section(text, "network") == ["bridge"]
    assert section(text, "notes") == ["no user namespace: --userns host"]
    assert "no new privileges" in section(text, "capabilities")[-1]
    assert section(explain_text(explanation()), "limits") == ["none"]


def test_the_explanation_is_json() -> None:
    result = explanation(container=INSIDE)

    assert json.loads(json.dumps(result)) == result
    assert result["process"]["args"] == ["sleep", "1"]
    assert result["process"]["user"] == "0:0"
