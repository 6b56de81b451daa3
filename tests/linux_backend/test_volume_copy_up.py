"""An empty volume takes the files that the image has where it is mounted."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from support.machine import Machine


def _write(path: str, content: str = "", *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(content)
    os.chown(path, uid, gid)
    os.chmod(path, mode)


def _database(layer: str) -> None:
    _write(f"{layer}/var/lib/db/data", "rows", mode=0o4640, uid=33, gid=34)
    os.link(f"{layer}/var/lib/db/data", f"{layer}/var/lib/db/again")
    os.symlink("/etc/passwd", f"{layer}/var/lib/db/link")
    os.mkdir(f"{layer}/var/lib/db/sub", 0o700)
    os.mkfifo(f"{layer}/var/lib/db/fifo")
    os.setxattr(f"{layer}/var/lib/db/data", "user.note", b"kept")
    with open(f"{layer}/var/lib/db/sparse", "wb") as file:
        file.truncate(10 << 20)
        file.seek(5 << 20)
        file.write(b"middle")
    os.utime(f"{layer}/var/lib/db/data", (1_000_000_000, 1_000_000_000))
    os.chown(f"{layer}/var/lib/db", 33, 34)
    os.chmod(f"{layer}/var/lib/db", 0o1750)


def _write_two(layer: str) -> None:
    for name in ("a", "b"):
        _write(f"{layer}/data/{name}", name)


def test_a_named_volume_gets_the_files_with_owners_modes_attributes_and_links(
    machine: Machine,
) -> None:
    machine.layer(_database)

    machine.create({"HostConfig": {"Binds": ["db:/var/lib/db"]}})

    def look() -> dict[str, Any]:
        data = machine.data("db")
        file, again = os.stat(f"{data}/data"), os.stat(f"{data}/again")
        top = os.stat(data)
        return {
            "file": [stat.S_IMODE(file.st_mode), file.st_uid, file.st_gid, file.st_mtime],
            "top": [stat.S_IMODE(top.st_mode), top.st_uid, top.st_gid],
            "linked": file.st_ino == again.st_ino,
            "link": os.readlink(f"{data}/link"),
            "sub": stat.S_IMODE(os.stat(f"{data}/sub").st_mode),
            "fifo": stat.S_ISFIFO(os.stat(f"{data}/fifo").st_mode),
            "note": os.getxattr(f"{data}/data", "user.note").decode(),
            "sparse": [
                os.stat(f"{data}/sparse").st_size,
                os.stat(f"{data}/sparse").st_blocks < 2048,
            ],
        }

    assert machine.inside(look) == {
        "file": [0o4640, 33, 34, 1_000_000_000],
        "top": [0o1750, 33, 34],
        "linked": True,
        "link": "/etc/passwd",
        "sub": 0o700,
        "fifo": True,
        "note": "kept",
        "sparse": [10 << 20, True],
    }


def test_layers_are_seen_as_one_and_what_a_layer_removed_is_not_copied(machine: Machine) -> None:
    machine.layer(_write_two)

    def upper(layer: str) -> None:
        _write(f"{layer}/data/c")
        os.mknod(f"{layer}/data/a", stat.S_IFCHR, os.makedev(0, 0))

    machine.layer(upper)

    machine.create({"HostConfig": {"Binds": ["vol:/data"]}})

    assert machine.inside(lambda: sorted(os.listdir(machine.data("vol")))) == ["b", "c"]


def test_a_volume_with_files_is_left_as_it_is(machine: Machine) -> None:
    machine.layer(lambda layer: _write(f"{layer}/data/image"))
    machine.create({"HostConfig": {"Binds": ["vol:/elsewhere"]}}, "c1")
    machine.inside(lambda: _write(f"{machine.data('vol')}/mine"))

    machine.create({"HostConfig": {"Binds": ["vol:/data"]}}, "c2")

    assert machine.inside(lambda: os.listdir(machine.data("vol"))) == ["mine"]


@pytest.mark.parametrize("bind", ["vol:/data:nocopy", "vol:/data:ro,nocopy"])
def test_nocopy_leaves_the_volume_empty(machine: Machine, bind: str) -> None:
    machine.layer(lambda layer: _write(f"{layer}/data/image"))

    machine.create({"HostConfig": {"Binds": [bind]}})

    assert machine.inside(lambda: os.listdir(machine.data("vol"))) == []


def test_an_anonymous_volume_of_the_image_is_filled(machine: Machine) -> None:
    machine.layer(lambda layer: _write(f"{layer}/data/image"))

    [point] = machine.create({"Volumes": {"/data": {}}})

    assert point["Anonymous"] is True
    assert machine.inside(lambda: os.listdir(machine.data(point["Name"]))) == ["image"]


def test_a_link_in_the_image_leads_nowhere_but_into_the_image(machine: Machine) -> None:
    def hostile(layer: str) -> None:
        os.makedirs(f"{layer}/var")
        # An absolute link and one that climbs: both mean the image's own /etc.
        os.symlink("/etc", f"{layer}/data")
        os.symlink("../../../../../../etc", f"{layer}/var/data")
        _write(f"{layer}/etc/image-only")

    machine.layer(hostile)

    machine.create({"HostConfig": {"Binds": ["vol:/data", "other:/var/data"]}})

    assert machine.inside(lambda: os.listdir(machine.data("vol"))) == ["image-only"]
    assert machine.inside(lambda: os.listdir(machine.data("other"))) == ["image-only"]


def test_a_copy_that_was_killed_halfway_is_finished_by_the_next_container(
    machine: Machine,
) -> None:
    machine.layer(_write_two)
    machine.create({"HostConfig": {"Binds": ["vol:/elsewhere"]}}, "c1")
    volume = f"{machine.volumes_root}/vol"

    def killed_while_copying() -> None:
        _write(f"{volume}/staged.tmp/a", "ha")

    machine.inside(killed_while_copying)
    machine.create({"HostConfig": {"Binds": ["vol:/data"]}}, "c2")

    def contents() -> dict[str, str]:
        return {
            name: open(f"{volume}/_data/{name}").read() for name in os.listdir(f"{volume}/_data")
        }

    assert machine.inside(contents) == {"a": "a", "b": "b"}
    assert machine.inside(lambda: sorted(os.listdir(volume))) == ["_data", "volume.json"]


def test_a_copy_that_was_killed_while_it_was_moved_in_takes_nothing_away(machine: Machine) -> None:
    machine.layer(_write_two)
    machine.create({"HostConfig": {"Binds": ["vol:/elsewhere"]}}, "c1")
    volume = f"{machine.volumes_root}/vol"

    def killed_while_moving() -> None:
        _write(f"{volume}/_data/a", "changed by a container")
        _write(f"{volume}/staged/b", "b")

    machine.inside(killed_while_moving)
    machine.create({"HostConfig": {"Binds": ["vol:/data"]}}, "c2")

    def contents() -> dict[str, str]:
        return {
            name: open(f"{volume}/_data/{name}").read() for name in os.listdir(f"{volume}/_data")
        }

    assert machine.inside(contents) == {"a": "changed by a container", "b": "b"}


def test_u_gives_the_files_to_the_user_of_the_image(machine: Machine) -> None:
    def users(layer: str) -> None:
        _write(f"{layer}/etc/passwd", "app:x:1001:1002::/:/bin/sh\n")
        _write(f"{layer}/data/file")

    machine.layer(users)

    machine.create({"User": "app", "HostConfig": {"Binds": ["vol:/data:U"]}})

    def owners() -> list[list[int]]:
        found = [os.stat(machine.data("vol")), os.stat(f"{machine.data('vol')}/file")]
        return [[one.st_uid, one.st_gid] for one in found]

    assert machine.inside(owners) == [[1001, 1002], [1001, 1002]]


def test_the_record_is_json(machine: Machine) -> None:
    machine.layer(lambda layer: None)

    points = machine.create({"HostConfig": {"Binds": ["vol:/data:ro"]}})

    assert json.loads(json.dumps(points))[0]["Mode"] == "ro"
