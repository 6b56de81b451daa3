"""Mounts with ids of their own: runtime-spec 1.2, `mounts[].uidMappings`, `idmap` and `ridmap`."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.requirements import need_tool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.oci import Oci

pytestmark = pytest.mark.linux

BASE = 300_000


@pytest.fixture(autouse=True)
def _own_group(oci: Oci) -> None:
    """What else runs containers on this machine may call one `c1` as well."""
    oci.spec["linux"]["cgroupsPath"] = f"/wherry/{os.urandom(6).hex()}"


@pytest.fixture
def shifted(oci: Oci) -> Iterator[Oci]:
    """A runtime whose container's ids begin at BASE, and whose root it can reach."""
    place = Path(tempfile.mkdtemp(prefix="w"))
    place.chmod(0o755)
    oci.bundle = shutil.copytree(oci.bundle, place / "bundle", symlinks=True)
    oci.rootfs = oci.bundle / "rootfs"
    for directory, _, files in os.walk(oci.rootfs):
        for path in (directory, *(os.path.join(directory, name) for name in files)):
            os.lchown(path, BASE, BASE)
    oci.spec["root"]["readonly"] = False
    oci.spec["linux"]["namespaces"].append({"type": "user"})
    maps = [{"containerID": 0, "hostID": BASE, "size": 65536}]
    oci.spec["linux"]["uidMappings"] = oci.spec["linux"]["gidMappings"] = maps
    yield oci
    shutil.rmtree(place)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory that only root can reach, with a file of user 0 and one of user 7."""
    directory = tmp_path / "files"
    directory.mkdir()
    for owner in (0, 7):
        (directory / f"of-{owner}").write_text("x")
        os.chown(directory / f"of-{owner}", owner, owner)
    return directory


def _mount(source: Path, *options: str, **fields: Any) -> dict[str, Any]:
    mount = {"destination": "/mnt", "type": "bind", "source": str(source)}
    return {**mount, "options": [*options], **fields}


def _owners(listing: str) -> dict[str, tuple[str, str]]:
    rows = [line.split() for line in listing.splitlines()]
    return {row[-1]: (row[2], row[3]) for row in rows if len(row) > 8}


def test_idmap_without_mappings_has_those_of_the_container(shifted: Oci, files: Path) -> None:
    shifted.spec["mounts"].append(_mount(files, "rbind", "idmap"))

    result = shifted.run("sh", "-c", "echo new >/mnt/made; ls -ln /mnt")

    assert _owners(result.stdout) == {"of-0": ("0", "0"), "of-7": ("7", "7"), "made": ("0", "0")}
    found = (files / "made").stat()
    assert (found.st_uid, found.st_gid) == (0, 0)


@pytest.mark.parametrize("options", [("bind",), ("bind", "idmap"), ("rbind", "ridmap")])
def test_mappings_of_a_mount_are_from_its_files_to_the_host(
    shifted: Oci, files: Path, options: tuple[str, ...]
) -> None:
    maps = [{"containerID": 7, "hostID": BASE + 1000, "size": 1}]
    shifted.spec["mounts"].append(_mount(files, *options, uidMappings=maps, gidMappings=maps))

    result = shifted.run("ls", "-ln", "/mnt")

    assert _owners(result.stdout) == {"of-0": ("65534", "65534"), "of-7": ("1000", "1000")}


def test_mappings_work_without_a_user_namespace(oci: Oci, files: Path) -> None:
    maps = [{"containerID": 7, "hostID": 0, "size": 1}, {"containerID": 0, "hostID": 7, "size": 1}]
    oci.spec["mounts"].append(_mount(files / "of-7", "bind", uidMappings=maps, gidMappings=maps))

    result = oci.run("ls", "-ln", "/mnt")

    assert _owners(result.stdout) == {"/mnt": ("0", "0")}


@contextmanager
def _mounted(target: Path, fstype: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", fstype, fstype, target], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", target], check=True)


@pytest.mark.parametrize(("option", "owner"), [("idmap", "65534"), ("ridmap", "0")])
def test_ridmap_reaches_what_is_mounted_below(
    shifted: Oci, files: Path, option: str, owner: str
) -> None:
    (files / "below").mkdir()
    with _mounted(files / "below", "tmpfs"):
        (files / "below/file").write_text("x")
        shifted.spec["mounts"].append(_mount(files, "rbind", option))

        result = shifted.run("ls", "-ln", "/mnt/below")

    assert _owners(result.stdout)["file"] == (owner, owner)


def test_mount_stays_read_only_and_nosuid(shifted: Oci, files: Path) -> None:
    shifted.spec["mounts"].append(_mount(files, "bind", "ro", "nosuid", "idmap"))

    result = shifted.run("sh", "-c", "echo >/mnt/x; grep ' /mnt ' /proc/self/mountinfo", check=True)

    assert "ro,nosuid" in result.stdout
    assert "Read-only file system" in result.stderr


MAPPED = [{"containerID": 0, "hostID": 0, "size": 1}]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"options": ["bind", "idmap"]}, "the container has no user namespace, and the mount no"),
        ({"options": ["bind"], "uidMappings": MAPPED}, "it has mappings of user ids only"),
        ({"options": ["bind"], "gidMappings": MAPPED}, "it has mappings of group ids only"),
        ({"type": "tmpfs", "options": ["idmap"]}, "only what is bound from the host can be"),
    ],
)
def test_what_makes_no_sense_is_one_clear_line(
    oci: Oci, files: Path, entry: dict[str, Any], reason: str
) -> None:
    oci.spec["mounts"].append({**_mount(files), **entry})

    result = oci.run("true", check=False)

    assert result.returncode == 1
    assert f"wherry: cannot idmap the mount on /mnt: {reason}" in result.stderr
    assert result.stderr.count("\n") == 1
    assert "c1" not in oci("list", "-q").stdout


def test_file_system_that_cannot_be_idmapped_is_named(shifted: Oci) -> None:
    shifted.spec["mounts"].append(_mount(Path("/sys/kernel"), "bind", "idmap"))

    result = shifted.run("true", check=False)

    assert result.returncode == 1
    assert result.stderr == (
        "wherry: cannot idmap /sys/kernel on /mnt: its file system (sysfs) cannot be idmapped\n"
    )


def test_pipe_can_be_opened_by_name(shifted: Oci) -> None:
    shifted.spec["process"]["args"] = ["sh", "-c", "echo by name >/dev/stderr"]
    shifted.write()
    argv = ["--bundle", str(shifted.bundle), "c1"]
    shifted.spec["mounts"].append(_mount(shifted.rootfs, "bind", "idmap"))
    reader, writer = os.pipe()
    os.fchmod(writer, stat.S_IRUSR | stat.S_IWUSR)
    import sys

    child = subprocess.Popen(
        [sys.executable, "-m", "wherry", "oci", "--root", str(shifted.state), "run", *argv],
        stderr=writer,
        env=shifted.environment,
    )
    os.close(writer)

    with open(reader) as stream:
        assert stream.read() == "by name\n"
    assert child.wait(60) == 0


@pytest.mark.parametrize("options", [("bind",), ("rbind",)])
def test_owners_are_those_that_crun_shows(
    shifted: Oci, files: Path, options: tuple[str, ...]
) -> None:
    maps = [{"containerID": 7, "hostID": BASE, "size": 2}]
    shifted.spec["mounts"].append(_mount(files, *options, uidMappings=maps, gidMappings=maps))
    ours = shifted.run("ls", "-ln", "/mnt")
    shifted.spec["ociVersion"] = "1.0.2"
    shifted.spec["linux"].pop("cgroupsPath")
    shifted.write()
    # On a hybrid host it cannot work beside the version 2 mount.
    unified = "/sys/fs/cgroup/unified"
    leave = f"umount {unified}; " if os.path.ismount(unified) else ""
    argv = [
        *("unshare", "--mount", "sh", "-c", f'{leave}exec "$@"', "sh", need_tool("crun")),
        *("--root", str(shifted.base / "peer"), "--cgroup-manager=disabled"),
        *("run", "--bundle", str(shifted.bundle), shifted.bundle.parent.name),
    ]

    # Its streams become the container's, the host's null device among them.
    theirs = subprocess.run(argv, input="", capture_output=True, text=True, check=False)

    assert theirs.returncode == 0, theirs.stderr
    assert _owners(theirs.stdout) == _owners(ours.stdout) != {}
