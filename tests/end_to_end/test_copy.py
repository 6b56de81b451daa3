"""`cp` and `export`: files between the host and a container, running or not."""

from __future__ import annotations

import io
import os
import tarfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.settings import as_root

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.cli import Cli

    Start = Callable[..., str]


@pytest.fixture(params=["running", "stopped", "created"])
def container(request: pytest.FixtureRequest, wherry: Cli, busybox_image: str) -> str:
    """A container with a volume on /data, in each of the states that files can be copied in."""
    made = ("--name", "box", "--network", "none", "-v", "kept:/data", busybox_image)
    wherry("create", *made, "sleep", "1000")
    if request.param != "created":
        wherry("start", "box")
    if request.param == "stopped":
        wherry("stop", "-t", "0", "box")
    return "box"


@pytest.fixture
def running(wherry: Cli, busybox_image: str) -> Start:
    """Start a container that lasts, with more options."""

    def start(*options: str, script: str = "exec sleep 1000") -> str:
        argv = ("--name", "box", "--network", "none", *options, busybox_image)
        wherry("run", "-d", *argv, "sh", "-c", script)
        return "box"

    return start


def _tree(host_dir: str, wherry: Cli) -> Path:
    tree = Path(host_dir, "tree")
    (tree / "sub").mkdir(parents=True)
    (tree / "file").write_text("hello\n")
    (tree / "file").chmod(0o640)
    (tree / "sub" / "link").symlink_to("../file")
    os.link(tree / "file", tree / "again")
    (tree / "sub").chmod(0o555)
    for path in (tree, *tree.rglob("*")):
        os.lchown(path, wherry.account.uid, wherry.account.gid)
    return tree


def test_a_tree_goes_in_and_comes_out_as_it_was(wherry: Cli, container: str, host_dir: str) -> None:
    _tree(host_dir, wherry)

    wherry("cp", "tree", f"{container}:/data")
    wherry("cp", f"{container}:/data/tree", "back")

    back = Path(host_dir, "back")
    assert (back / "file").read_text() == "hello\n"
    assert (back / "file").stat().st_mode & 0o7777 == 0o640
    assert (back / "file").stat().st_ino == (back / "again").stat().st_ino
    assert (back / "sub" / "link").readlink() == Path("../file")
    assert (back / "sub").stat().st_mode & 0o7777 == 0o555
    assert (back / "file").stat().st_uid == wherry.account.uid


def test_what_was_copied_into_a_stopped_container_is_there_when_it_runs(
    wherry: Cli, container: str, host_dir: str
) -> None:
    Path(host_dir, "file").write_text("hello\n")
    wherry("cp", "file", f"{container}:/root-file")
    wherry("cp", "file", f"{container}:/data/volume-file")

    wherry("start", container)

    assert wherry("exec", container, "cat", "/root-file", "/data/volume-file").stdout == (
        "hello\nhello\n"
    )


def test_the_contents_alone_are_copied_with_a_dot(
    wherry: Cli, container: str, host_dir: str
) -> None:
    _tree(host_dir, wherry)

    wherry("cp", "tree/.", f"{container}:/data")
    wherry("cp", f"{container}:/data/.", "new")

    assert sorted(os.listdir(f"{host_dir}/new")) == ["again", "file", "sub"]


def test_files_belong_to_root_inside_and_with_archive_to_whom_they_belong_outside(
    wherry: Cli, running: Start, host_dir: str
) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("owned")
        entry.uid, entry.gid = 33, 34
        tar.addfile(entry)
    Path(host_dir, "mine").touch()
    box = running()

    wherry("cp", "-", f"{box}:/tmp", input=archive.getvalue())
    wherry("cp", "mine", f"{box}:/tmp")

    result = wherry("exec", box, "stat", "-c", "%u:%g", "/tmp/owned", "/tmp/mine")
    assert result.lines == ["33:34", "0:0"]


def test_a_tar_stream_comes_out_whole(wherry: Cli, container: str, host_dir: str) -> None:
    _tree(host_dir, wherry)
    wherry("cp", "tree", f"{container}:/data")

    result = wherry("cp", f"{container}:/data/tree", "-")

    with tarfile.open(fileobj=io.BytesIO(result.output)) as tar:
        assert sorted(tar.getnames()) == [
            "tree",
            "tree/again",
            "tree/file",
            "tree/sub",
            "tree/sub/link",
        ]


def test_a_link_is_copied_as_a_link_or_followed(wherry: Cli, container: str, host_dir: str) -> None:
    tree = Path(host_dir, "tree")
    tree.mkdir()
    (tree / "link").symlink_to("/data/tree/real")
    (tree / "real").write_text("real\n")
    wherry("cp", "tree", f"{container}:/data")

    wherry("cp", f"{container}:/data/tree/link", "as-link")
    wherry("cp", "-L", f"{container}:/data/tree/link", "as-file")

    assert Path(host_dir, "as-link").readlink() == Path("/data/tree/real")
    assert Path(host_dir, "as-file").read_text() == "real\n"


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("box:/missing", ".", "Could not find the file /missing in container box"),
        ("missing", "box:/tmp", "missing: no such file or directory"),
        ("file", "box:/missing/dir/file", "Could not find the file /missing/dir in container box"),
        ("file", "box:/missing/", "no such directory"),
        ("dir", "box:/etc/passwd", "cannot copy directory"),
        ("box:/etc/passwd", "missing/dir/file", "invalid output path"),
        ("box:/etc", "file", "cannot copy directory"),
        ("file", "other", "must specify at least one container source"),
        ("box:/a", "box:/b", "copying between containers is not supported"),
        ("file", "nobody:/tmp", "No such container: nobody"),
    ],
)
def test_what_cannot_be_copied_is_said_in_dockers_words(
    wherry: Cli, running: Start, host_dir: str, source: str, target: str, reason: str
) -> None:
    running()
    Path(host_dir, "file").touch()
    Path(host_dir, "dir").mkdir()

    result = wherry("cp", source, target, check=False)

    assert result.returncode == 1
    assert reason in result.stderr
    assert len(result.stderr.splitlines()) <= 2


def test_a_directory_is_not_replaced_by_a_file(wherry: Cli, running: Start, host_dir: str) -> None:
    box = running()
    Path(host_dir, "sub").touch()
    wherry("exec", box, "mkdir", "-p", "/tmp/sub/kept")

    result = wherry("cp", "sub", f"{box}:/tmp", check=False)

    assert "cannot overwrite directory" in result.stderr
    assert wherry("exec", box, "ls", "/tmp/sub").stdout == "kept\n"


@pytest.mark.parametrize(
    ("options", "target", "reason"),
    [
        (("--read-only",), "/root-file", "container rootfs is marked read-only"),
        (("-v", "vol:/data:ro"), "/data/file", "mounted volume is marked read-only"),
    ],
)
def test_what_is_read_only_is_not_written(
    wherry: Cli, running: Start, host_dir: str, options: tuple[str, ...], target: str, reason: str
) -> None:
    box = running(*options)
    Path(host_dir, "file").touch()

    result = wherry("cp", "file", f"{box}:{target}", check=False)

    assert result.returncode == 1
    assert reason in result.stderr


def test_links_of_a_container_lead_to_its_own_files(
    wherry: Cli, container: str, host_dir: str
) -> None:
    secret = Path(host_dir, "secret")
    secret.mkdir()
    (secret / "key").write_text("of the host\n")
    tree = Path(host_dir, "tree")
    tree.mkdir()
    (tree / "out").symlink_to(secret)
    (tree / "up").symlink_to("../../../../../../../../.." + str(secret))
    wherry("cp", "tree", f"{container}:/data")
    Path(host_dir, "file").write_text("from the host\n")

    for link in ("out", "up"):
        read = wherry("cp", f"{container}:/data/tree/{link}/key", "-", check=False)
        written = wherry("cp", "file", f"{container}:/data/tree/{link}/planted", check=False)

        assert "Could not find the file" in read.stderr
        assert "Could not find the file" in written.stderr
    assert os.listdir(secret) == ["key"]


def test_a_container_that_swaps_links_while_files_are_copied_reaches_nothing_of_the_host(
    wherry: Cli, running: Start, host_dir: str
) -> None:
    secret = Path(host_dir, "secret")
    secret.mkdir()
    (secret / "key").write_text("of the host\n")
    Path(host_dir, "planted").write_text("x")
    swap = (
        f"mkdir -p /tmp/a /tmp/real; echo inside >/tmp/real/key; cd /tmp;"
        f"while :; do rm -rf a; ln -s {secret} a; rm a; mv real a; cp -r a real; done"
    )
    box = running(script=swap)

    outputs = []
    for _ in range(15):
        outputs.append(wherry("cp", f"{box}:/tmp/a/key", "-", check=False).output)
        outputs.append(wherry("cp", f"{box}:/tmp/a", "-", check=False).output)
        wherry("cp", "planted", f"{box}:/tmp/a/planted", check=False)

    assert not any(b"of the host" in output for output in outputs)
    assert os.listdir(secret) == ["key"]


def test_a_hostile_tar_stream_stays_in_the_container(
    wherry: Cli, running: Start, host_dir: str
) -> None:
    outside = Path(host_dir, "outside")
    outside.mkdir()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("link/planted"))
    climbing = io.BytesIO()
    with tarfile.open(fileobj=climbing, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../../climbed"))
    box = running()

    wherry("cp", "-", f"{box}:/tmp", input=archive.getvalue(), check=False)
    refused = wherry("cp", "-", f"{box}:/tmp", input=climbing.getvalue(), check=False)

    assert list(outside.iterdir()) == []
    assert "leads out of it" in refused.stderr


def test_a_reader_that_leaves_early_hears_no_complaint(wherry: Cli, running: Start) -> None:
    box = running()
    reader, writer = os.pipe()
    os.close(reader)

    process = wherry.start("export", box, stdout=writer)
    os.close(writer)
    _, errors = process.communicate(timeout=60)

    assert errors == b""


def test_export_has_the_containers_files_and_not_its_mounts(
    wherry: Cli, running: Start, host_dir: str
) -> None:
    box = running("-v", "kept:/data")
    wherry("exec", box, "sh", "-c", "echo mine >/mine; echo kept >/data/kept")

    wherry("export", "-o", "out.tar", box)

    with tarfile.open(f"{host_dir}/out.tar") as tar:
        names = {os.path.normpath(name) for name in tar.getnames()}
    assert {"mine", "bin/busybox", "data"} <= names
    assert not {"data/kept", "proc/self"} & names


def test_copies_in_both_directions_go_on_at_the_same_time(
    wherry: Cli, running: Start, host_dir: str
) -> None:
    box = running()
    Path(host_dir, "big").write_bytes(os.urandom(4 << 20))
    failures: list[str] = []

    def there_and_back(number: int) -> None:
        wherry("cp", "big", f"{box}:/tmp/big{number}")
        wherry("cp", f"{box}:/tmp/big{number}", f"back{number}")
        if Path(host_dir, f"back{number}").read_bytes() != Path(host_dir, "big").read_bytes():
            failures.append(str(number))

    threads = [threading.Thread(target=there_and_back, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert len(list(Path(host_dir).glob("back*"))) == 4


def test_a_program_that_was_somebody_elses_runs_as_whoever_copied_it(
    wherry: Cli, running: Start, host_dir: str
) -> None:
    box = running()
    script = "mkdir /d /d/s; touch /d/f; chown -R 33:34 /d; chmod 6755 /d/f; chmod 2755 /d/s"
    wherry("exec", box, "sh", "-c", script)

    wherry("cp", f"{box}:/d", "plain")
    wherry("cp", "--archive", f"{box}:/d", "archived")

    def kept(place: str) -> list[tuple[int, int]]:
        found = [os.stat(f"{host_dir}/{place}/{name}") for name in ("f", "s")]
        return [(each.st_uid, each.st_mode & 0o7777) for each in found]

    is_root = wherry.account.uid == 0
    plain = [(wherry.account.uid, 0o755)] * 2
    assert kept("plain") == plain
    assert kept("archived") == ([(33, 0o6755), (33, 0o2755)] if is_root else plain)


def test_what_goes_in_keeps_its_mode(wherry: Cli, running: Start, host_dir: str) -> None:
    Path(host_dir, "program").touch()
    os.chown(f"{host_dir}/program", wherry.account.uid, wherry.account.gid)
    Path(host_dir, "program").chmod(0o4755)
    box = running()

    wherry("cp", "program", f"{box}:/tmp/")

    assert wherry("exec", box, "stat", "-c", "%u %a", "/tmp/program").stdout == "0 4755\n"


@as_root
def test_capabilities_of_a_program_stay_where_its_owner_does(
    wherry: Cli, running: Start, host_dir: str
) -> None:
    # VFS_CAP_REVISION_2: cap_net_raw, effective and permitted.
    capable = bytes.fromhex("0100000200200000000000000000000000000000")
    Path(host_dir, "program").touch()
    os.setxattr(f"{host_dir}/program", "security.capability", capable)
    box = running("--userns", "host")
    wherry("cp", "program", f"{box}:/program")

    wherry("cp", f"{box}:/program", "plain")
    wherry("cp", "--archive", f"{box}:/program", "archived")

    assert os.listxattr(f"{host_dir}/plain") == []
    assert os.getxattr(f"{host_dir}/archived", "security.capability") == capable


def test_names_holes_and_links_survive_both_ways(
    wherry: Cli, container: str, host_dir: str
) -> None:
    tree = Path(host_dir, "tree")
    tree.mkdir()
    names = ["a\nb", " ", "-rf", "*", "x" * 255, "\\", "ü", os.fsdecode(b"\xff\xfe"), "a:b", "..."]
    for name in names:
        (tree / name).write_text(name[:1], errors="surrogateescape")
    with (tree / "holes").open("wb") as file:
        file.write(b"begin")
        file.seek(10 << 20)
        file.write(b"end")
        file.truncate(20 << 20)
    for number in range(100):
        os.link(tree / "holes", tree / f"link{number}")

    wherry("cp", "tree", f"{container}:/data")
    wherry("cp", f"{container}:/data/tree", "back")

    back = Path(host_dir, "back")
    assert sorted(os.listdir(back)) == sorted(os.listdir(tree))
    assert (back / names[-3]).read_bytes() == b"\xff"
    found = (back / "holes").stat()
    assert (found.st_size, found.st_nlink) == (20 << 20, 101)
    assert found.st_blocks * 512 < 5 << 20
    with (back / "holes").open("rb") as copy:
        assert copy.read(5) == b"begin"
        copy.seek(10 << 20)
        assert copy.read(3) == b"end"
