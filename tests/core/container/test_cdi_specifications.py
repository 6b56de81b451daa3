"""What a CDI specification says, and what of it becomes runtime-spec."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from wherry.container.cdi import (
    apply_edits,
    check_document,
    devices_of,
    edits_for,
    requested_names,
)
from wherry.engine.cdi import find_devices
from wherry.errors import NotFound, UsageError

if TYPE_CHECKING:
    from pathlib import Path


def document(**changes: Any) -> dict[str, Any]:
    return {
        "cdiVersion": "0.6.0",
        "kind": "vendor.com/device",
        "devices": [{"name": "one", "containerEdits": {"env": ["ONE=1"]}}],
        **changes,
    }


def spec() -> Any:
    return {
        "process": {"env": ["PATH=/bin", "A=old"], "user": {"uid": 0, "additionalGids": [5]}},
        "mounts": [{"destination": "/proc"}],
        "linux": {},
    }


# ---- documents ----


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cdiVersion": "v1.0.0"},
        {"kind": "a.b-c_d.com/x.y-z_1", "annotations": {"a": "b"}},
        {"devices": [{"name": "0", "containerEdits": {}}, {"name": "GPU-1:2.x"}]},
        {"containerEdits": {"deviceNodes": [{"path": "/dev/x", "permissions": "r", "type": "c"}]}},
    ],
)
def test_specification_is_accepted(changes: dict[str, Any]) -> None:
    check_document(document(**changes))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cdiVersion": "9.0.0"}, "cdiVersion '9.0.0' is not known"),
        ({"cdiVersion": None}, "cdiVersion"),
        ({"kind": "device"}, "not of the form vendor.com/class"),
        ({"kind": "vendor.com/a/b"}, "not of the form"),
        ({"kind": "1vendor.com/a"}, "not of the form"),
        ({"devices": []}, "no devices"),
        ({"devices": ["one"]}, "no proper name"),
        ({"devices": [{"name": "a b"}]}, "no proper name"),
        ({"devices": [{"name": "-a"}]}, "no proper name"),
        ({"devices": [{"name": "a"}, {"name": "a"}]}, "there twice"),
        ({"containerEdits": []}, "not an object"),
        ({"containerEdits": {"env": "A=1"}}, "env is not a list"),
        ({"containerEdits": {"env": ["=1"]}}, "not NAME=value"),
        ({"containerEdits": {"deviceNodes": [{}]}}, "needs a path"),
        ({"containerEdits": {"deviceNodes": [{"path": "/d", "type": "x"}]}}, "unknown type"),
        ({"containerEdits": {"deviceNodes": [{"path": "/d", "permissions": "z"}]}}, "permissions"),
        ({"containerEdits": {"mounts": [{"hostPath": "/a"}]}}, "hostPath and containerPath"),
        ({"containerEdits": {"hooks": [{"path": "/a"}]}}, "hookName and path"),
        ({"containerEdits": {"hooks": [{"path": "/a", "hookName": "x"}]}}, "no hook 'x'"),
        ({"containerEdits": {"netDevices": [{"name": "eth1"}]}}, "hostInterfaceName and name"),
        ({"containerEdits": {"additionalGids": ["video"]}}, "no group"),
    ],
)
def test_specification_that_is_wrong_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        check_document(document(**changes))


# ---- edits ----


def test_what_devices_share_is_done_once() -> None:
    devices = devices_of(
        document(
            containerEdits={"env": ["ALL=1"]},
            devices=[
                {"name": "a", "containerEdits": {"env": ["A=1"]}},
                {"name": "b", "containerEdits": {"env": ["B=1"]}},
            ],
        )
    )

    edits = edits_for(["vendor.com/device=b", "vendor.com/device=a"], devices)

    assert [one["env"] for one in edits] == [["ALL=1"], ["B=1"], ["A=1"]]


def test_all_unknown_devices_are_named() -> None:
    with pytest.raises(NotFound, match=r"unresolvable CDI devices v\.com/d=x, v\.com/d=y$"):
        edits_for(["v.com/d=x", "vendor.com/device=one", "v.com/d=y"], devices_of(document()))


def test_edits_become_runtime_spec() -> None:
    changed = spec()

    apply_edits(
        changed,
        [
            {
                "env": ["A=new", "B=2"],
                "mounts": [
                    {"hostPath": "/lib/x.so", "containerPath": "/usr/lib/x.so", "options": ["ro"]},
                    {"hostPath": "t", "containerPath": "/t", "type": "tmpfs"},
                ],
                "hooks": [
                    {"hookName": "createContainer", "path": "/bin/h", "args": ["h", "x"]},
                    {"hookName": "poststop", "path": "/bin/e", "env": ["E=1"], "timeout": 3},
                ],
                "additionalGids": [0, 5, 44],
                "netDevices": [{"hostInterfaceName": "eth7", "name": "eth1"}],
                "intelRdt": {"closID": "fast", "enableCMT": True, "l3CacheSchema": ""},
            }
        ],
    )

    assert changed["process"]["env"] == ["PATH=/bin", "A=new", "B=2"]
    assert changed["mounts"][1:] == [
        {"destination": "/usr/lib/x.so", "source": "/lib/x.so", "type": "bind",
         "options": ["rbind", "ro"]},
        {"destination": "/t", "source": "t", "type": "tmpfs", "options": []},
    ]  # fmt: skip
    assert changed["hooks"] == {
        "createContainer": [{"path": "/bin/h", "args": ["h", "x"]}],
        "poststop": [{"path": "/bin/e", "env": ["E=1"], "timeout": 3}],
    }
    assert changed["process"]["user"]["additionalGids"] == [5, 44]
    assert changed["linux"]["netDevices"] == {"eth7": {"name": "eth1"}}
    assert changed["linux"]["intelRdt"] == {"closID": "fast", "enableMonitoring": True}


# ---- --gpus ----

GPUS: Any = {
    f"nvidia.com/gpu={name}": [{}]
    for name in ("0", "1", "2", "10", "GPU-aa", "GPU-bb", "GPU-cc", "GPU-dd", "all")
}


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        ({"Count": -1}, ["all"]),
        ({"Count": 3}, ["0", "1", "2"]),
        ({"Count": 4, "Driver": "nvidia"}, ["0", "1", "2", "10"]),
        ({"DeviceIDs": ["1", "GPU-aa"]}, ["1", "GPU-aa"]),
    ],
)
def test_gpus_are_devices_of_their_vendor(request_: Any, names: list[str]) -> None:
    found = requested_names({"Capabilities": [["gpu"]], **request_}, GPUS)

    assert found == [f"nvidia.com/gpu={name}" for name in names]


def test_gpus_of_a_vendor_that_names_no_whole() -> None:
    amd: Any = {"amd.com/gpu=1": [], "amd.com/gpu=0": []}

    assert requested_names({"Count": -1, "Capabilities": [["gpu"]]}, amd) == [
        "amd.com/gpu=0",
        "amd.com/gpu=1",
    ]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"Count": 5}, "5 GPUs were requested, but there are 4"),
        ({"Count": 1, "Driver": "amd"}, 'driver "amd" with capabilities: .*gpu'),
        ({"Count": 1, "Capabilities": [["tpu"]]}, 'driver "" with capabilities: .*tpu'),
    ],
)
def test_gpus_that_are_not_there(request_: Any, reason: str) -> None:
    with pytest.raises(NotFound, match=reason):
        requested_names({"Capabilities": [["gpu"]], **request_}, GPUS)


# ---- directories ----


def write(path: Path, **changes: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document(**changes)))


def test_later_directory_is_stronger(tmp_path: Path) -> None:
    etc, run = tmp_path / "etc", tmp_path / "run"
    write(etc / "a.json")
    write(run / "b.json", devices=[{"name": "one", "containerEdits": {"env": ["NEW=1"]}}])

    found = find_devices((str(etc), str(tmp_path / "none"), str(run)))

    assert found.devices == {"vendor.com/device=one": [{"env": ["NEW=1"]}]}
    assert found.problems == []


def test_device_in_two_specifications_of_a_directory_is_in_none(tmp_path: Path) -> None:
    write(tmp_path / "a.json")
    write(tmp_path / "b.json")
    write(tmp_path / "c.json", devices=[{"name": "two"}])

    found = find_devices((str(tmp_path),))

    assert found.devices == {"vendor.com/device=two": []}
    assert found.problems == [
        f"vendor.com/device=one is in {tmp_path}/a.json and in {tmp_path}/b.json"
    ]


def test_specification_that_cannot_be_read_is_left_out_and_told_of(tmp_path: Path) -> None:
    write(tmp_path / "a.json")
    (tmp_path / "b.json").write_text("{")
    (tmp_path / "c.json").write_text("[]")
    (tmp_path / "d.txt").write_text("not ours")

    found = find_devices((str(tmp_path),))

    assert list(found.devices) == ["vendor.com/device=one"]
    assert [problem.partition(" cannot")[0] for problem in found.problems] == [
        f"{tmp_path}/b.json",
        f"{tmp_path}/c.json",
    ]


def test_yaml_needs_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "a.yaml").write_text("cdiVersion: 0.6.0\n")

    found = find_devices((str(tmp_path),))

    assert found.devices == {}
    assert "YAML takes PyYAML (pip install wherry[cdi])" in found.problems[0]


def test_yaml_is_read_where_its_library_is(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "cdiVersion: 0.6.0\nkind: vendor.com/device\ndevices:\n- name: one\n"
    )

    assert find_devices((str(tmp_path),)).devices == {"vendor.com/device=one": []}
