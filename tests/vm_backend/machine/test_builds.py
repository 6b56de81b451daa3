"""Images that are built in a machine, of a context that the host has."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.building import repository
from support.busybox import busybox_archive
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.cli import Cli, Result

    Build = Callable[..., Result]

pytestmark = pytest.mark.vm

TRANSFER = re.compile(r"transferring context: (\S+)")


@pytest.fixture
def context() -> Iterator[Path]:
    """A directory with a few files, in no share of the machine."""
    directory = Path("/var/tmp") / f"wherry-context-{os.getpid()}"
    (directory / "sub").mkdir(parents=True)
    (directory / "small").write_text("small\n")
    (directory / "sub" / "other").write_text("other\n")
    (directory / "large").write_bytes(os.urandom(3 << 20))
    (directory / "program").write_text("#!/bin/sh\necho it runs\n")
    (directory / "program").chmod(0o755)
    (directory / "link").symlink_to("sub")
    yield directory
    subprocess.run(["rm", "-rf", directory], check=True)


@pytest.fixture
def build(machine: Cli, context: Path) -> Build:
    def run(text: str, *options: str, check: bool = True) -> Result:
        (context / "Dockerfile").write_text(text)
        words = ("build", "--network=none", "--progress=plain", "-t", "made", *options)
        return machine(*words, str(context), check=check, timeout=120)

    return run


def transferred(result: Result) -> list[str]:
    """How much each step has had sent."""
    return TRANSFER.findall(result.stderr)


def test_only_what_a_build_copies_is_sent_and_nothing_twice(
    machine: Cli, build: Build, context: Path
) -> None:
    text = """
        FROM busybox
        ARG NAME=small
        COPY $NAME program /app/
        COPY link/ /linked/
        RUN /app/program > /app/said
        """

    first = build(text)
    again = build(text)
    (context / "small").write_text("changed\n")
    changed = build(text)

    assert transferred(first) == ["29B", "6B"]
    assert transferred(again) == []
    assert transferred(changed) == ["8B"]
    shown = machine("run", "--rm", "made", "cat", "/app/small", "/app/said", "/linked/other")
    assert shown.stdout == "changed\nit runs\nother\n"


def test_a_context_with_a_name_is_sent_like_any_other(build: Build, context: Path) -> None:
    more = Path(f"{context}.more")
    more.mkdir()
    try:
        (more / "wanted").write_text("wanted\n")
        (more / "unwanted").write_bytes(os.urandom(1 << 20))
        text = "FROM busybox\nCOPY small /\nCOPY --from=more wanted /\n"
        named = ("--build-context", f"more={more}")

        assert sorted(transferred(build(text, *named))) == ["6B", "7B"]
        assert transferred(build(text, *named)) == []
        (more / "wanted").write_text("another\n")
        assert transferred(build(text, *named)) == ["8B"]
    finally:
        subprocess.run(["rm", "-rf", more], check=True)


def test_of_a_repository_only_what_a_commit_has_changed_is_sent(
    machine: Cli, tmp_path: Path
) -> None:
    text = "FROM busybox\nCOPY one two /\n"
    files = {"Dockerfile": text, "one": "one\n", "two": "two\n", "three": "three\n"}

    def sent(url: str) -> list[str]:
        words = ("build", "--network=none", "--progress=plain", "-t", "made")
        return transferred(machine(*words, url, timeout=120))

    with repository(str(tmp_path), files) as url:
        assert sent(url) == ["8B"]
        assert sent(url) == []
        tree = tmp_path / "repository"
        (tree / "two").write_text("another\n")
        git = ["git", "-C", str(tree), "-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run([*git, "commit", "-q", "-a", "-m", "two"], check=True)
        assert sent(url) == ["8B"]
    assert machine("run", "--rm", "made", "cat", "/one", "/two").stdout == "one\nanother\n"


def test_what_is_gone_or_has_become_something_else_is_so_in_the_image(
    machine: Cli, build: Build, context: Path
) -> None:
    build("FROM busybox\nCOPY . /all\n")
    (context / "small").unlink()
    (context / "small").mkdir()
    (context / "small" / "within").write_text("within\n")
    (context / "sub" / "other").unlink()
    (context / "link").unlink()
    (context / "link").write_text("a file now\n")

    build("FROM busybox\nCOPY . /all\n")

    shown = machine("run", "--rm", "made", "sh", "-c", "cd /all; find . -type f | sort; cat link")
    expected = ["./Dockerfile", "./large", "./link", "./program", "./small/within"]
    assert shown.lines == [*expected, "a file now"]


def test_what_was_fetched_again_for_a_build_is_not_sent_again(
    machine: Cli, build: Build, context: Path
) -> None:
    """All of its times are new then."""
    (context / "Dockerfile").write_text("FROM busybox\nCOPY . /all\n")

    def sent() -> list[str]:
        tar = subprocess.run(["tar", "-c", "."], cwd=context, capture_output=True, check=True)
        words = ("build", "--network=none", "--progress=plain", "-t", "made", "-")
        return transferred(machine(*words, input=tar.stdout, timeout=120))

    assert len(sent()) == 1
    for path in context.rglob("*"):
        os.utime(path, (0, 0), follow_symlinks=False)
    (context / "program").chmod(0o700)
    assert sent() == []
    (context / "small").write_text("other\n")
    assert sent() == ["6B"]
    found = machine("run", "--rm", "made", "stat", "-c", "%a %s %Y", "/all/program", "/all/small")
    assert found.lines[0] == "700 23 0"
    assert found.lines[1].startswith("644 6 ")


def test_names_of_one_file_stay_names_of_one(machine: Cli, build: Build, context: Path) -> None:
    def same() -> list[str]:
        build("FROM busybox\nCOPY sub /sub\nCOPY z /\n")
        shown = machine("run", "--rm", "made", "sh", "-c", "cat /sub/a; stat -c %h /sub/a /z")
        return shown.lines

    for name in ("sub/a", "z"):
        (context / name).hardlink_to(context / "sub" / "other")
    assert same() == ["other", "2", "1"]
    (context / "sub" / "other").write_text("changed\n")
    assert same() == ["changed", "2", "1"]
    (context / "sub" / "a").unlink()
    (context / "sub" / "a").write_text("alone\n")
    assert same() == ["alone", "1", "1"]


def test_extended_attributes_come_along_and_count(build: Build, context: Path) -> None:
    def kept(path: Path) -> list[tuple[str, str]]:
        out = context.parent / f"{context.name}.tar"
        build("FROM scratch\nCOPY small sub /\n", "-o", f"type=tar,dest={out}")
        with tarfile.open(out) as archive:
            headers = archive.getmember(f"./{path.name}").pax_headers
        out.unlink()
        return [(name, text) for name, text in headers.items() if "xattr" in name]

    os.setxattr(context / "small", "user.note", b"one")
    assert kept(context / "small") == [("SCHILY.xattr.user.note", "one")]
    os.setxattr(context / "small", "user.note", b"two")
    assert kept(context / "small") == [("SCHILY.xattr.user.note", "two")]


def test_what_is_ignored_is_not_sent(machine: Cli, build: Build, context: Path) -> None:
    (context / ".dockerignore").write_text("*\n!sub\n")

    result = build("FROM busybox\nCOPY . /all\n")

    assert transferred(result) == ["6B"]
    shown = machine("run", "--rm", "made", "sh", "-c", "cd /all; find . -type f")
    assert shown.stdout == "./sub/other\n"


def test_a_missing_file_is_told_as_natively(build: Build) -> None:
    result = build("FROM busybox\nCOPY missing /\n", check=False)

    assert result.returncode == 1
    assert "failed to calculate checksum" in result.stderr
    assert '"/missing": not found' in result.stderr


def test_the_dockerfile_and_the_files_it_writes_are_the_host_s(
    machine: Cli, context: Path, tmp_path: Path
) -> None:
    words = ("build", "-q", "--network=none", "--iidfile", f"{tmp_path}/id", "--build-arg", "WHO")
    machine.environment["WHO"] = "somebody"
    try:
        result = machine(
            *(*words, "-t", "made", "-f", "-", str(context)),
            input=b"FROM busybox\nARG WHO\nENV WHO=$WHO\n",
        )
    finally:
        del machine.environment["WHO"]

    assert (tmp_path / "id").read_text() == result.stdout.strip()
    assert machine("run", "--rm", "made", "sh", "-c", "echo $WHO").stdout == "somebody\n"


def test_two_builds_of_a_context_run_at_the_same_time(machine: Cli, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nARG N\nCOPY small /\nRUN echo $N >/n\n")
    words = ("build", "--network=none", "--progress=plain", "--build-arg")
    first = machine.start(*words, "N=1", "-t", "made1", str(context))
    second = machine.start(*words, "N=2", "-t", "made2", str(context))
    shown = [one.communicate(timeout=120)[1].decode() for one in (first, second)]

    assert (first.returncode, second.returncode) == (0, 0)
    assert [TRANSFER.findall(text) for text in shown].count(["6B"]) >= 1
    assert sum(len(TRANSFER.findall(text)) for text in shown) <= 2
    assert TRANSFER.findall(machine(*words, "N=3", str(context)).stderr) == []
    assert machine("run", "--rm", "made1", "cat", "/n").stdout == "1\n"
    assert machine("run", "--rm", "made2", "cat", "/n").stdout == "2\n"


def test_a_file_that_cannot_be_read_any_more_is_named_and_the_rest_is_kept(
    machine: Cli, build: Build, context: Path
) -> None:
    """Its place is taken by a link after the context has been told, but before it is sent."""
    text = "FROM busybox\nRUN echo now; sleep 5\nCOPY program small sub /all/\n"
    (context / "Dockerfile").write_text(text)
    process = machine.start("build", "--network=none", "--progress=plain", str(context))
    assert process.stderr is not None
    while not process.stderr.readline().endswith(b" now\n"):
        assert process.poll() is None
    (context / "small").unlink()
    (context / "small").symlink_to("/etc/passwd")
    failed = process.communicate(timeout=60)[1].decode()
    (context / "small").unlink()

    result = build("FROM busybox\nCOPY program sub /all/\n")

    assert process.returncode == 1
    assert "can't read small" in failed
    assert transferred(result) == []


def test_a_build_that_is_interrupted_leaves_the_copy_good(
    machine: Cli, build: Build, context: Path
) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nCOPY small /\nRUN sleep 100\n")
    process = machine.start("build", "--network=none", "--progress=plain", str(context))
    assert process.stderr is not None
    while b"RUN sleep" not in process.stderr.readline():
        assert process.poll() is None
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143

    result = build("FROM busybox\nCOPY small sub /\n")

    assert transferred(result) == ["6B"]
    assert "a context of another host" in machine("builder", "du", "--verbose").stdout
    assert machine("run", "--rm", "made", "cat", "/small", "/other").stdout == "small\nother\n"


@pytest.mark.linux
def test_a_cache_in_a_directory_serves_both_backends(
    machine: Cli, build: Build, context: Path
) -> None:
    """The directory is in no share, and what the guest has of it is not sent again."""
    place = f"{context}.cache"
    # A world of its own: what is left in the machine's would be looked for in the machine.
    root = tempfile.mkdtemp(prefix="w", dir="/tmp")
    native = {"WHERRY_BACKEND": "linux", "WHERRY_ROOT": root}
    machine("load", input=busybox_archive(), env=native)
    text = "FROM busybox\nCOPY small /\nRUN --network=none echo {0} > /{0}\n"

    def build_there(word: str, *options: str, env: dict[str, str] | None = None) -> str:
        (context / "Dockerfile").write_text(text.format(word))
        words = ("build", "--network=none", "--progress=plain", *options)
        return machine(*words, str(context), env=env, timeout=120).stderr

    try:
        for word, there, here in (("one", None, native), ("two", native, None)):
            build_there(word, "--cache-to", f"type=local,dest={place},tag={word}", env=there)
            shown = build_there(
                word, "--cache-from", f"type=local,src={place},tag={word}", env=here
            )
            assert "CACHED" in shown.split(f"echo {word}")[1]
        again = build_there("two", "--cache-from", f"type=local,src={place},tag=two")
        assert "2 steps" in again
        assert TRANSFER.findall(again) == []
    finally:
        subprocess.run(["rm", "-rf", place, root], check=True)


def test_a_cache_that_is_cut_off_on_its_way_leaves_the_one_that_was_there(
    machine: Cli, build: Build, context: Path
) -> None:
    place = Path(f"{context}.cache")
    text = "FROM busybox\nRUN dd if=/dev/urandom of=/random bs=1M count={0}\n"
    to = ("--cache-to", f"type=local,dest={place}")
    try:
        build(text.format(1), *to)
        before = (place / "index.json").read_bytes()
        (context / "Dockerfile").write_text(text.format(50))
        process = machine.start("build", "--network=none", *to, str(context))
        drafts = place / "blobs" / "sha256"
        wait_until(lambda: any(drafts.glob("*.tmp")), Deadline(100, "a blob to be on its way"))
        process.terminate()
        process.communicate(timeout=60)

        assert process.returncode == 143
        assert (place / "index.json").read_bytes() == before
        assert not list(drafts.glob("*.tmp"))
        for blob in drafts.iterdir():
            assert sha256(blob.read_bytes()).hexdigest() == blob.name
    finally:
        subprocess.run(["rm", "-rf", place], check=True)
