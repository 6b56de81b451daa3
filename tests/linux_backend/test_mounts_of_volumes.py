"""Volumes, binds and images as they are mounted: read-only, in part, as overlays."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from wherry.container.mount import parse_mount
from wherry.errors import WherryError

if TYPE_CHECKING:
    from support.machine import Machine


def _mounts(*texts: str) -> dict[str, Any]:
    return {"HostConfig": {"Mounts": [parse_mount(text) for text in texts]}}


def _host_file(machine: Machine, path: str, content: str = "") -> str:
    """A file in the directory of the host that the user has."""
    full = f"{machine.world.directory}/{path}"

    def make() -> None:
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w") as file:
            file.write(content)

    machine.call(make)
    return full


def _write(path: str, content: str = "") -> str:
    """What came of an attempt to write."""
    try:
        with open(path, "w") as file:
            file.write(content)
    except OSError as error:
        return os.strerror(error.errno or 0)
    return "written"


def _read(path: str) -> str:
    return Path(path).read_text()


def test_a_part_of_a_volume_is_mounted(machine: Machine) -> None:
    machine.create({"HostConfig": {"Binds": ["vol:/vol"]}})
    machine.inside(lambda: os.makedirs(f"{machine.data('vol')}/a/b/inner"))

    points = machine.create(_mounts("type=volume,source=vol,target=/x,volume-subpath=a/b"))

    assert machine.mounted(points, lambda root: os.listdir(f"{root}/x")) == ["inner"]


@pytest.mark.parametrize("link", ["/etc", "../../../..", "a/../../.."])
def test_a_link_in_a_volume_leads_a_subpath_nowhere_else(machine: Machine, link: str) -> None:
    machine.create({"HostConfig": {"Binds": ["vol:/vol"]}})

    def hostile() -> None:
        os.mkdir(f"{machine.data('vol')}/a")
        os.symlink(link, f"{machine.data('vol')}/out")

    machine.inside(hostile)
    points = machine.create(_mounts("type=volume,source=vol,target=/x,volume-subpath=out"))

    with pytest.raises(WherryError, match="it leads out of what is mounted"):
        machine.mounted(points, lambda root: os.listdir(f"{root}/x"))


def test_a_link_that_is_swapped_while_a_subpath_is_mounted_leads_nowhere_else(
    machine: Machine,
) -> None:
    machine.create({"HostConfig": {"Binds": ["vol:/vol"]}})
    data = machine.data("vol")
    machine.inside(lambda: os.makedirs(f"{data}/real/inside"))
    points = machine.create(_mounts("type=volume,source=vol,target=/x,volume-subpath=part"))
    stopped = threading.Event()

    def swap() -> None:
        while not stopped.is_set():
            os.symlink("/", f"{data}/next")
            os.rename(f"{data}/next", f"{data}/part")
            os.symlink("real", f"{data}/next")
            os.rename(f"{data}/next", f"{data}/part")

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    try:
        for _ in range(20):
            try:
                seen.update(machine.mounted(points, lambda root: os.listdir(f"{root}/x")))
            except WherryError as error:
                assert "part" in error.message
    finally:
        stopped.set()
        swapper.join()

    assert seen <= {"inside"}


def test_a_missing_subpath_is_said(machine: Machine) -> None:
    points = machine.create(_mounts("type=volume,source=vol,target=/x,volume-subpath=none"))

    with pytest.raises(WherryError, match=r"cannot access path .*/none: No such file"):
        machine.mounted(points, lambda root: None)


def test_a_file_is_bound_on_a_file(machine: Machine) -> None:
    path = _host_file(machine, "config", "of the host")

    points = machine.create({"HostConfig": {"Binds": [f"{path}:/etc/config:ro"]}})

    assert machine.mounted(points, lambda root: _read(f"{root}/etc/config")) == "of the host"


def test_read_only_holds_for_what_is_mounted_below_too(machine: Machine) -> None:
    outer = os.path.dirname(_host_file(machine, "outer/file"))
    points = machine.create({"HostConfig": {"Binds": [f"{outer}:/outer:ro"]}})

    def attempt(root: str) -> list[str]:
        return [_write(f"{root}/outer/new"), _write(f"{root}/outer/shm/new")]

    from wherry_linux.backend import LinuxRuntime

    def with_submount() -> Any:
        def within() -> Any:
            directory = os.open(outer, os.O_PATH)
            LinuxRuntime().mount_into(
                directory, {"destination": "shm", "type": "tmpfs", "source": "t", "options": []}
            )
            # In this mount namespace the host's directory has a file system below it.
            return _mounted_here(machine, points, attempt)

        return LinuxRuntime().unshared(within, mounts=True)

    assert machine.call(with_submount) == ["Read-only file system"] * 2


def _mounted_here(machine: Machine, points: list[Any], function: Any) -> Any:
    from wherry.engine.runtime_mounts import oci_mounts
    from wherry.volume.store import VolumeStore
    from wherry_linux.mounts import mount_into

    path = f"{machine.directory()}/tree"
    os.makedirs(path, exist_ok=True)
    root = os.open(path, os.O_PATH)
    entries = oci_mounts(
        points,
        directory=machine.directory(),
        volumes=VolumeStore(machine.volumes_root),
        layer_path=str,
    )
    for entry in entries:
        mount_into(root, entry)
    return function(path)


def test_o_keeps_changes_from_the_host(machine: Machine) -> None:
    path = os.path.dirname(_host_file(machine, "src/file", "of the host"))
    points = machine.create({"HostConfig": {"Binds": [f"{path}:/src:O"]}})

    def change(root: str) -> list[str]:
        return [_write(f"{root}/src/file", "changed"), _read(f"{root}/src/file")]

    assert machine.mounted(points, change) == ["written", "changed"]
    assert _read(f"{path}/file") == "of the host"
    # The container sees its changes when it runs again.
    assert machine.mounted(points, lambda root: _read(f"{root}/src/file")) == "changed"


@pytest.mark.parametrize("name", ["with,comma", "with:colon", "with\\backslash", "with space"])
def test_o_takes_any_path(machine: Machine, name: str) -> None:
    path = os.path.dirname(_host_file(machine, f"{name}/file", "here"))
    mount = {"Type": "bind", "Source": path, "Target": "/src", "Wherry": {"Overlay": True}}

    points = machine.create({"HostConfig": {"Mounts": [mount]}})

    assert machine.mounted(points, lambda root: _read(f"{root}/src/file")) == "here"


def test_an_image_is_mounted_and_keeps_its_files(machine: Machine) -> None:
    def low(layer: str) -> None:
        os.makedirs(f"{layer}/usr/bin")
        open(f"{layer}/usr/bin/tool", "w").close()

    machine.layer(low)
    machine.layer(lambda layer: open(f"{layer}/top", "w").close())
    points = machine.create(_mounts("type=image,source=tools,target=/tools"))

    def look(root: str) -> list[Any]:
        return [sorted(os.listdir(f"{root}/tools")), _write(f"{root}/tools/new")]

    assert machine.mounted(points, look) == [["top", "usr"], "written"]
    assert machine.inside(lambda: os.listdir(machine.lower[0])) == ["top"]


@pytest.mark.parametrize("subpath", ["usr/bin", "usr/bin/tool"])
def test_a_part_of_an_image_is_mounted(machine: Machine, subpath: str) -> None:
    def low(layer: str) -> None:
        os.makedirs(f"{layer}/usr/bin")
        with open(f"{layer}/usr/bin/tool", "w") as file:
            file.write("tool")

    machine.layer(low)
    machine.layer(lambda layer: None)
    points = machine.create(
        _mounts(f"type=image,source=tools,target=/x,image-subpath={subpath},readonly")
    )

    def look(root: str) -> list[str]:
        tool = f"{root}/x" if os.path.isfile(f"{root}/x") else f"{root}/x/tool"
        return [_read(tool), _write(tool)]

    assert machine.mounted(points, look) == ["tool", "Read-only file system"]


def test_a_volume_in_memory_is_mounted_in_the_container_alone(machine: Machine) -> None:
    driver = {"Options": {"type": "tmpfs", "device": "tmpfs", "o": "size=64k"}}
    mount = {
        "Type": "volume",
        "Source": "memory",
        "Target": "/m",
        "VolumeOptions": {"DriverConfig": driver},
    }
    points = machine.create({"HostConfig": {"Mounts": [mount]}})

    def fill(root: str) -> list[str]:
        return [_write(f"{root}/m/small", "x"), _write(f"{root}/m/large", "x" * 100_000)]

    assert machine.mounted(points, fill) == ["written", "No space left on device"]
    assert os.listdir(machine.data("memory")) == []


def test_u_on_a_bind_gives_the_hosts_files_to_the_user(machine: Machine) -> None:
    path = _host_file(machine, "src/file")
    machine.layer(lambda layer: None)
    points = machine.create(
        {"User": "1000:1001", "HostConfig": {"Binds": [f"{os.path.dirname(path)}:/src:U"]}}
    )

    def owner(root: str) -> list[int]:
        found = os.stat(f"{root}/src/file")
        return [found.st_uid, found.st_gid]

    assert machine.mounted(points, owner) == [1000, 1001]
