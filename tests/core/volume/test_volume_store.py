"""Volumes by name: made once, found again, and never removed under a container."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from wherry.engine.volumes import Volumes
from wherry.errors import Conflict, CorruptState, NotFound, Unsupported, UsageError, WherryError
from wherry.volume.store import VolumeStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any


@pytest.fixture
def store(tmp_path: Path) -> VolumeStore:
    return VolumeStore(str(tmp_path / "volumes"))


@pytest.fixture
def volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Volumes:
    monkeypatch.setenv("WHERRY_ROOT", str(tmp_path))

    def unshared(function: Callable[[], Any]) -> Any:
        return function()

    return Volumes(unshared, lambda: {"used": ["c1", "c2"]})


def test_a_volume_is_made_with_a_place_for_its_files(store: VolumeStore) -> None:
    volume = store.create("data", labels={"a": "b"})

    assert os.listdir(volume.mountpoint) == []
    assert store.find("data") == volume
    assert volume.inspect() == {
        "CreatedAt": volume.created,
        "Driver": "local",
        "Labels": {"a": "b"},
        "Mountpoint": f"{store.root}/data/_data",
        "Name": "data",
        "Options": None,
        "Scope": "local",
    }


def test_making_a_volume_twice_is_making_it_once(store: VolumeStore) -> None:
    first = store.create("data", labels={"a": "b"})

    assert store.create("data") == first


def test_a_volume_with_other_options_is_a_conflict(store: VolumeStore) -> None:
    store.create("data")

    with pytest.raises(Conflict, match="volume name is in use: data"):
        store.create("data", options={"type": "tmpfs", "device": "tmpfs"})


def test_a_volume_without_a_name_gets_one(store: VolumeStore) -> None:
    volume = store.create()

    assert len(volume.name) == 64
    assert volume.is_anonymous


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "-a", "a b", "a:b", "ü1"])
def test_a_bad_name_is_refused(store: VolumeStore, name: str) -> None:
    with pytest.raises(UsageError, match="invalid characters for a local volume name"):
        store.create(name)


@pytest.mark.parametrize(
    ("options", "kind", "reason"),
    [
        ({"color": "red"}, UsageError, 'invalid option: "color"'),
        ({"type": "tmpfs"}, UsageError, 'missing required option: "device"'),
        ({"device": "/x"}, UsageError, 'missing required option: "type"'),
        ({"type": "none", "o": "bind", "device": "x"}, UsageError, "absolute path"),
        ({"size": "1g"}, Unsupported, "no quota support"),
    ],
)
def test_bad_options_are_refused(
    store: VolumeStore, options: dict[str, str], kind: type[WherryError], reason: str
) -> None:
    with pytest.raises(kind, match=reason):
        store.create("data", options=options)
    assert store.volumes() == []


def test_another_driver_is_not_found(store: VolumeStore) -> None:
    with pytest.raises(NotFound, match='plugin "nope" not found'):
        store.create("data", driver="nope")


@pytest.mark.parametrize(
    ("options", "mount"),
    [
        (
            {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=5"},
            {"type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "uid=5"]},
        ),
        (
            {"type": "none", "device": "/srv", "o": "bind,ro"},
            {"type": "bind", "source": "/srv", "options": ["bind", "rprivate", "ro"]},
        ),
        (
            {"type": "none", "device": "/srv", "o": "rbind"},
            {"type": "bind", "source": "/srv", "options": ["rbind", "rprivate"]},
        ),
    ],
)
def test_options_say_how_a_volume_is_mounted(
    store: VolumeStore, options: dict[str, str], mount: dict[str, Any]
) -> None:
    volume = store.create("data", options=options)

    assert volume.to_oci("/x") == {"destination": "/x", **mount}


def test_a_missing_volume_is_not_found(store: VolumeStore) -> None:
    with pytest.raises(NotFound, match="No such volume: data"):
        store.find("data")


def test_a_volume_in_use_stays(store: VolumeStore) -> None:
    store.create("data")

    with pytest.raises(Conflict, match=r"remove data: volume is in use - \[c1, c2\]"):
        store.remove("data", lambda: {"data": ["c1", "c2"]})
    assert store.find("data").name == "data"


def test_a_volume_is_removed_with_its_files(store: VolumeStore) -> None:
    volume = store.create("data")
    os.makedirs(f"{volume.mountpoint}/a/b")

    assert store.remove("data", dict)
    assert os.listdir(store.root) == []


def test_removing_a_missing_volume_is_an_error_unless_forced(store: VolumeStore) -> None:
    with pytest.raises(NotFound, match="No such volume: data"):
        store.remove("data", dict)
    assert store.remove("data", dict, force=True) is False


def test_a_damaged_record_is_said_and_can_be_removed(store: VolumeStore) -> None:
    volume = store.create("data")
    with open(f"{volume.directory}/volume.json", "w") as file:
        file.write("{")

    with pytest.raises(CorruptState, match=r"volume\.json"):
        store.find("data")
    assert store.remove("data", dict)


def test_what_a_killed_process_left_is_swept_away(store: VolumeStore) -> None:
    store.create("data")
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    os.makedirs(f"{store.root}/.half.{process.pid}/_data/x")
    os.makedirs(f"{store.root}/.alive.{os.getpid()}")

    store.sweep()

    assert sorted(os.listdir(store.root)) == [f".alive.{os.getpid()}", "data"]


_CREATE_MANY = """
import sys
from wherry.volume.store import VolumeStore

store = VolumeStore(sys.argv[1])
for number in range(30):
    store.create(f"vol{number}")
"""


def test_many_processes_make_the_same_volumes(store: VolumeStore) -> None:
    argv = [sys.executable, "-c", _CREATE_MANY, store.root]
    processes = [subprocess.Popen(argv) for _ in range(4)]

    assert [process.wait() for process in processes] == [0] * 4
    assert len(os.listdir(store.root)) == 30
    assert all(json.dumps(volume.inspect()) for volume in store.volumes())


# ---- the verbs ----


def test_listing_is_filtered(volumes: Volumes) -> None:
    volumes.create("used", labels={"env": "prod"})
    volumes.create("other", labels={"env": "test"})

    def names(**filters: list[str]) -> list[str]:
        return [each["Name"] for each in volumes.list(filters)]

    assert names() == ["other", "used"]
    assert names(name=["se"]) == ["used"]
    assert names(label=["env"]) == ["other", "used"]
    assert names(label=["env=prod"]) == ["used"]
    assert names(**{"label!": ["env=prod"]}) == ["other"]
    assert names(dangling=["true"]) == ["other"]
    assert names(dangling=["false"]) == ["used"]
    assert names(driver=["nope"]) == []


@pytest.mark.parametrize("filters", [{"color": ["x"]}, {"dangling": ["maybe"]}])
def test_a_bad_filter_is_refused(volumes: Volumes, filters: dict[str, list[str]]) -> None:
    volumes.create("some")

    with pytest.raises(UsageError, match="invalid filter"):
        volumes.list(filters)


def test_prune_takes_anonymous_volumes_and_all_on_request(volumes: Volumes) -> None:
    volumes.create("used")
    volumes.create("named")
    anonymous = volumes.create()
    with open(f"{anonymous['Mountpoint']}/file", "w") as file:
        file.write("12345")

    assert volumes.prune() == {"VolumesDeleted": [anonymous["Name"]], "SpaceReclaimed": 5}
    assert volumes.prune(all=True)["VolumesDeleted"] == ["named"]
    assert [each["Name"] for each in volumes.list()] == ["used"]
