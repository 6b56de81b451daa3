"""Where a build takes files from: stages, images, other contexts, texts, archives."""

from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from support.building import build, context, run
from support.settings import on_linux

if TYPE_CHECKING:
    from pathlib import Path

    from support.building import Build
    from support.cli import Cli

__all__ = ["build", "context"]


def test_a_stage_takes_files_from_another_and_from_an_image(wherry: Cli, build: Build) -> None:
    shown = build(
        """
        FROM busybox AS Builder
        RUN mkdir /out && echo made > /out/file && chown 33:33 /out/file
        FROM busybox AS unused
        RUN exit 1
        FROM busybox
        COPY --from=builder /out/ /from/name/
        COPY --from=0 /out/file /from/number
        COPY --from=busybox /etc/passwd /from/image
        """,
        *("-t", "made"),
    ).stderr

    assert "exit 1" not in shown
    listed = run(wherry, "made", "sh", "-c", "cat /from/name/file /from/number; ls -n /from/number")
    assert listed.startswith("made\nmade\n")
    assert listed.split()[4:6] == ["33", "33"]
    assert "root:x:0:0" in run(wherry, "made", "cat", "/from/image")


def test_the_target_is_built_and_nothing_after_it(wherry: Cli, build: Build) -> None:
    text = """
        FROM busybox AS one
        RUN echo one > /which
        FROM one AS two
        RUN exit 1
        """
    build(text, "--target", "ONE", "-t", "made")

    assert run(wherry, "made", "cat", "/which") == "one\n"
    missing = build(text, "--target", "three", check=False)
    assert missing.returncode == 1
    assert 'target stage "three" could not be found' in missing.stderr


def test_a_context_of_another_name_takes_the_place_of_a_stage(
    wherry: Cli, build: Build, host_dir: str
) -> None:
    other = f"{host_dir}/other"
    os.mkdir(other)
    with open(f"{other}/file", "w") as file:
        file.write("other\n")

    build(
        "FROM busybox\nCOPY --from=more file /\n",
        *("--build-context", f"more={other}", "-t", "made"),
    )

    assert run(wherry, "made", "cat", "/file") == "other\n"


@pytest.mark.parametrize("wanted", ["", ":one", "@"])
def test_an_image_of_a_layout_takes_the_place_of_a_name(
    wherry: Cli, build: Build, host_dir: str, wanted: str
) -> None:
    build("FROM busybox\nRUN echo layout > /made\nENV SAID=so\n", "-t", "odd:one")
    digest = wherry("image", "inspect", "-f", "{{.Descriptor.digest}}", "odd:one").stdout.strip()
    with tarfile.open(fileobj=io.BytesIO(wherry("save", "odd:one").output)) as archive:
        archive.extractall(f"{host_dir}/layout")
    wherry("rmi", "odd:one")
    wherry("builder", "prune", "--all", "--force")
    place = f"{host_dir}/layout{wanted}{digest if wanted == '@' else ''}"

    build(
        "FROM docker.io/library/base\nRUN cp /made /$SAID\n"
        "FROM busybox\nCOPY --from=0 /so /\nCOPY --from=Base made /\n",
        *("--build-context", f"base:latest=oci-layout://{place}", "-t", "made"),
    )

    assert run(wherry, "made", "cat", "/so", "/made") == "layout\nlayout\n"


def test_a_context_that_cannot_be_had_is_told_of_in_a_line(build: Build, host_dir: str) -> None:
    text = "FROM busybox\nFROM more\n"
    for source, reason in (
        (f"oci-layout://{host_dir}", f"{host_dir} is no OCI image layout"),
        ("ftp://somewhere", "ftp://somewhere is no source of a context"),
        (host_dir, "context 'more' is a directory, and no image that a stage could begin with"),
    ):
        failed = build(text, "--build-context", f"more={source}", check=False)
        assert failed.returncode == 1
        assert reason in failed.stderr


def test_heredocs_are_files_scripts_and_input(wherry: Cli, build: Build) -> None:
    build(
        """\
FROM busybox
ENV NAME=value
COPY <<one <<"two" /texts/
replaced $NAME
one
kept $NAME
two
RUN <<END
echo first > /script
echo "second $NAME" >> /script
END
RUN <<-END cat > /input
\tfrom input
\tEND
RUN <<END
#!/bin/busybox sh
echo "$0" > /own
END
""",
        *("-t", "made"),
    )

    assert run(wherry, "made", "cat", "/texts/one", "/texts/two") == "replaced value\nkept $NAME\n"
    assert run(wherry, "made", "cat", "/script") == "first\nsecond value\n"
    assert run(wherry, "made", "cat", "/input") == "from input\n"
    assert run(wherry, "made", "cat", "/own") == "/dev/pipes/END\n"


def test_triggers_of_a_base_have_their_heredocs(wherry: Cli, build: Build) -> None:
    text = "FROM busybox\nONBUILD COPY <<one /\n1\none\nONBUILD RUN <<END\ncp one two\nEND\n"
    build(text, "-t", "base")

    build("FROM base\nRUN cat one two > three\n", "-t", "made")

    assert run(wherry, "made", "cat", "/three") == "1\n1\n"


def test_copies_have_the_owner_and_the_mode_that_are_asked_for(wherry: Cli, build: Build) -> None:
    build(
        """
        FROM busybox
        COPY --chown=www-data:users --chmod=640 hello /a
        COPY --chown=7 --chmod=u=rwx,go+r sub /b/
        COPY hello /c
        """,
        *("-t", "made"),
    )

    found = run(wherry, "made", "stat", "-c", "%n %a %u:%g", "/a", "/b/one", "/b/deep", "/c")
    assert found.splitlines() == [
        "/a 640 33:100",
        "/b/one 744 7:7",
        "/b/deep 755 7:7",
        "/c 644 0:0",
    ]


def test_directories_come_along_and_names_are_left_out(wherry: Cli, build: Build) -> None:
    build(
        """
        FROM busybox
        COPY --parents ./sub/deep/* hello /all/
        COPY --parents sub/./deep/two /pivot/
        COPY --exclude=deep --exclude=h* * /some/
        """,
        *("-t", "made"),
    )

    found = run(wherry, "made", "sh", "-c", "cd / && find all pivot some -type f | sort")
    assert found.split() == ["all/hello", "all/sub/deep/two", "pivot/deep/two", "some/Dockerfile",
                             "some/one"]  # fmt: skip


@on_linux
def test_extended_attributes_and_other_names_of_a_file_are_copied(
    wherry: Cli, build: Build, context: Path, host_dir: str
) -> None:
    """The attributes decide what a file is, as its mode does."""
    (context / "other").hardlink_to(context / "hello")
    for text in (b"one", b"two"):
        os.setxattr(context / "hello", "user.note", text)
        build("FROM busybox\nCOPY hello other /\n", "-t", "made",
              "-o", f"type=tar,dest={host_dir}/files.tar", "-o", "type=image")  # fmt: skip
        with tarfile.open(f"{host_dir}/files.tar") as archive:
            headers = archive.getmember("./hello").pax_headers
        assert headers["SCHILY.xattr.user.note"] == text.decode()
    assert run(wherry, "made", "stat", "-c", "%h", "/hello", "/other") == "2\n2\n"


def test_what_the_ignore_file_names_is_not_there(wherry: Cli, build: Build, context: Path) -> None:
    (context / ".dockerignore").write_text("# all\nsub\n!sub/deep/two\nhell?\n")

    build("FROM busybox\nCOPY . /all/\n", "-t", "made")
    failed = build("FROM busybox\nCOPY hello /\n", check=False)

    found = run(wherry, "made", "sh", "-c", "cd /all && find . -type f | sort")
    assert found.split() == ["./.dockerignore", "./Dockerfile", "./sub/deep/two"]
    assert '"/hello": not found' in failed.stderr


def test_add_unpacks_archives_that_copy_does_not(wherry: Cli, build: Build, context: Path) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        directory = tarfile.TarInfo("inner")
        directory.type, directory.uid, directory.mode = tarfile.DIRTYPE, 33, 0o755
        archive.addfile(directory)
        member = tarfile.TarInfo("inner/file")
        member.uid, member.size = 33, 3
        archive.addfile(member, io.BytesIO(b"tar"))
    (context / "some.tgz").write_bytes(content.getvalue())

    build(
        "FROM busybox\nADD some.tgz /added\nCOPY some.tgz /copied\nADD hello /plain\n", "-t", "made"
    )

    assert run(wherry, "made", "cat", "/added/inner/file") == "tar"
    assert run(wherry, "made", "stat", "-c", "%u", "/added/inner/file") == "33\n"
    assert run(wherry, "made", "tar", "tzf", "/copied") == "inner/\ninner/file\n"
    assert run(wherry, "made", "cat", "/plain") == "hello\n"


def test_copies_go_through_links_of_the_image_and_stay_in_it(
    wherry: Cli, build: Build, context: Path
) -> None:
    (context / "tree" / "link").mkdir(parents=True)
    (context / "tree" / "link" / "new").write_text("new\n")

    build(
        """
        FROM busybox
        RUN mkdir -p /real/usr && chmod 700 /real
        RUN ln -s real/usr /link && ln -s /../../../tmp /out
        COPY tree /
        COPY hello /out/there
        """,
        *("-t", "made"),
    )

    assert run(wherry, "made", "cat", "/real/usr/new", "/tmp/there") == "new\nhello\n"
    assert run(wherry, "made", "readlink", "/link") == "real/usr\n"
    assert run(wherry, "made", "stat", "-c", "%a", "/real", "/tmp") == "700\n1777\n"


def test_an_image_can_begin_with_nothing(wherry: Cli, build: Build) -> None:
    build('FROM scratch\nCOPY --from=busybox /bin/ /bin/\nRUN ["/bin/busybox", "mkdir", "/x"]\n',
          "-t", "made")  # fmt: skip

    assert run(wherry, "made", "/bin/busybox", "ls", "-d", "/x") == "/x\n"
