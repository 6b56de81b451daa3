"""`diff` and `commit`: what a container has changed, told and made an image of."""

from __future__ import annotations

import json
import signal
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.requirements import need_tool
from support.settings import OFFLINE, as_root, as_rootless, as_single_uid, of_root

if TYPE_CHECKING:
    from support.cli import Cli

CHANGES = """
    mkdir /new && echo hello >/new/file && ln /new/file /new/link && ln -s file /new/symbol
    echo more >>/etc/passwd && rm /etc/group
    rm -r /var && mkdir /home/there && chmod 700 /tmp
    mkfifo /new/pipe
"""


@pytest.fixture
def changed(wherry: Cli, busybox_image: str) -> str:
    wherry("run", "--name", "box", OFFLINE, busybox_image, "sh", "-ec", CHANGES)
    return "box"


def run(wherry: Cli, image: str, script: str) -> list[str]:
    return wherry("run", "--rm", OFFLINE, image, "sh", "-c", f"{script}; true").lines


def test_diff_tells_what_was_changed_added_and_deleted(wherry: Cli, changed: str) -> None:
    assert wherry("diff", changed).lines == [
        "C /etc",
        "D /etc/group",
        "C /etc/passwd",
        "C /home",
        "A /home/there",
        "A /new",
        "A /new/file",
        "A /new/link",
        "A /new/pipe",
        "A /new/symbol",
        "C /tmp",
        "D /var",
    ]


def test_a_container_that_changed_nothing_has_no_diff(wherry: Cli, busybox_image: str) -> None:
    wherry("create", "--name", "fresh", OFFLINE, busybox_image, "true")
    wherry("run", "--name", "ran", OFFLINE, busybox_image, "true")

    assert wherry("diff", "fresh").lines == []
    assert wherry("diff", "ran").lines == []


def test_diff_tells_where_volumes_were_mounted_as_docker_does(
    wherry: Cli, busybox_image: str
) -> None:
    wherry("run", "--name", "box", OFFLINE, "-v", "kept:/data/deep", busybox_image, "true")

    assert wherry("diff", "box").lines == ["A /data", "A /data/deep"]


def test_a_file_that_was_only_opened_is_no_change(wherry: Cli, busybox_image: str) -> None:
    wherry("run", "--name", "box", OFFLINE, busybox_image, "sh", "-c", ": >>/etc/passwd")

    assert wherry("diff", "box").lines == []


def test_a_directory_made_again_hides_what_it_held(wherry: Cli, busybox_image: str) -> None:
    script = "rm -r /etc; mkdir /etc; echo x >/etc/only"
    wherry("run", "--name", "box", OFFLINE, busybox_image, "sh", "-c", script)

    wherry("commit", "box", "again")

    assert "D /etc/passwd" in wherry("diff", "box").lines
    assert run(wherry, "again", "cat /etc/only; ls /etc/passwd /etc/group 2>/dev/null") == ["x"]


def test_commit_makes_an_image_of_the_container(wherry: Cli, changed: str) -> None:
    image_id = wherry(
        "commit", "-a", "Ada <ada@example.org>", "-m", "what was done",
        "-c", "CMD echo $GREETING", "-c", 'ENV GREETING="good morning"', "-c", "LABEL a=b",
        changed, "made:1",
    ).stdout.strip()  # fmt: skip

    document = json.loads(wherry("image", "inspect", "made:1").stdout)[0]
    assert document["Id"] == image_id
    assert (document["Author"], document["Comment"]) == ("Ada <ada@example.org>", "what was done")
    assert document["Config"]["Labels"] == {"a": "b"}
    assert wherry("run", "--rm", OFFLINE, "made:1").lines == ["good morning"]
    assert run(wherry, "made:1", "cat /new/symbol; stat -c %h /new/file; stat -c %a /tmp") == [
        "hello",
        "2",
        "700",
    ]
    assert run(wherry, "made:1", "ls -d /var /etc/group /new/pipe 2>/dev/null") == ["/new/pipe"]
    top = wherry("history", "--format", "{{.Comment}}", "made:1").lines[0]
    assert top == "what was done"


def test_what_is_committed_can_be_changed_and_committed_again(wherry: Cli, changed: str) -> None:
    wherry("commit", changed, "one")
    wherry("run", "--name", "second", OFFLINE, "one", "rm", "-r", "/new")
    wherry("commit", "second", "two")

    assert wherry("diff", "second").lines == ["D /new"]
    assert run(wherry, "two", "ls -d /new /home/there 2>/dev/null") == ["/home/there"]
    assert len(json.loads(wherry("inspect", "two").stdout)[0]["RootFS"]["Layers"]) == 3


def test_a_commit_of_nothing_has_no_layer_of_its_own(wherry: Cli, busybox_image: str) -> None:
    wherry("create", "--name", "box", OFFLINE, busybox_image, "true")
    wherry("commit", "-c", "USER 33", "box", "same")

    same, base = (json.loads(wherry("inspect", name).stdout)[0] for name in ("same", "busybox"))
    assert same["RootFS"] == base["RootFS"]
    assert run(wherry, "same", "id -u") == ["33"]


def test_the_same_changes_make_the_same_layer(wherry: Cli, changed: str) -> None:
    layers = []
    for name in ("one", "two"):
        wherry("commit", changed, name)
        layers.append(json.loads(wherry("inspect", name).stdout)[0]["RootFS"])

    assert layers[0] == layers[1]


def test_a_running_container_is_committed_and_goes_on(wherry: Cli, busybox_image: str) -> None:
    script = "echo x >/file; echo ready; exec sleep 1000"
    wherry("run", "-d", "--name", "box", OFFLINE, busybox_image, "sh", "-c", script)
    logs = wherry.start("logs", "-f", "box")
    assert logs.stdout is not None
    assert logs.stdout.readline() == b"ready\n"
    logs.send_signal(signal.SIGTERM)
    logs.communicate()

    wherry("commit", "box", "live")

    assert wherry("inspect", "-f", "{{.State.Status}}", "box").lines == ["running"]
    assert run(wherry, "live", "cat /file") == ["x"]


def test_a_committed_layer_keeps_owners_and_capabilities(wherry: Cli, busybox_image: str) -> None:
    script = "touch /theirs; chown 33:33 /theirs; chmod 4755 /theirs"
    wherry("run", "--name", "box", OFFLINE, busybox_image, "sh", "-c", script)
    wherry("commit", "box", "made")

    assert run(wherry, "made", "stat -c '%u:%g %a' /theirs") == ["33:33 4755"]


@as_root
def test_docker_and_podman_read_a_committed_image(wherry: Cli, changed: str, host_dir: str) -> None:
    need_tool("skopeo")
    wherry("commit", changed, "made:1")
    archive = Path(host_dir, "made.tar")
    wherry("save", "-o", str(archive), "made:1")

    for source in (f"docker-archive:{archive}", f"oci-archive:{archive}"):
        target = Path(host_dir, source.partition(":")[0])
        command = ["skopeo", "--insecure-policy", "copy", "-q", source, f"dir:{target}"]
        subprocess.run(command, check=True)
        manifest = json.loads((target / "manifest.json").read_text())
        assert len(manifest["layers"]) == 2


@as_root
def test_gnu_tar_reads_the_layer(wherry: Cli, changed: str, host_dir: str) -> None:
    wherry("commit", changed, "made:1")
    archive = Path(host_dir, "made.tar")
    wherry("save", "-o", str(archive), "made:1")
    with tarfile.open(archive) as saved:
        entry = json.load(saved.extractfile("manifest.json"))[0]  # type: ignore[arg-type]
        layer = saved.extractfile(entry["Layers"][1]).read()  # type: ignore[union-attr]

    listed = subprocess.run(["tar", "-t"], input=layer, capture_output=True, check=True).stdout

    assert listed.decode().splitlines() == [
        "etc/",
        "etc/.wh.group",
        "etc/passwd",
        "home/",
        "home/there/",
        "new/",
        "new/file",
        "new/link",
        "new/pipe",
        "new/symbol",
        "tmp/",
        ".wh.var",
    ]


@as_rootless
def test_the_owners_of_a_rootless_commit_are_those_seen_inside(
    wherry: Cli, busybox_image: str, host_dir: str
) -> None:
    wherry("run", "--name", "box", OFFLINE, busybox_image, "sh", "-c", "touch /a; chown 33 /a")
    wherry("commit", "box", "made")
    content = wherry("save", "made").output
    Path(host_dir, "made.tar").write_bytes(content)
    with tarfile.open(Path(host_dir, "made.tar")) as saved:
        entry = json.load(saved.extractfile("manifest.json"))[0]  # type: ignore[arg-type]
        with tarfile.open(fileobj=saved.extractfile(entry["Layers"][1])) as layer:
            assert {member.name: (member.uid, member.gid) for member in layer} == {"a": (33, 0)}


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("commit", "nothing"), "No such container: nothing"),
        (("commit", "box", "UPPER"), "repository name"),
        (("commit", "box", "a@sha256:" + "0" * 64), "digest reference"),
        (("commit", "-c", "RUN true", "box"), "RUN is not a valid change command"),
        (("commit", "-c", "USER", "box"), "USER requires exactly one argument"),
        (("diff", "nothing"), "No such container: nothing"),
    ],
)
@of_root
def test_what_cannot_be_committed_is_said_on_one_line(
    wherry: Cli, changed: str, argv: tuple[str, ...], told: str
) -> None:
    result = wherry(*argv, check=False)

    assert result.returncode == 1
    assert told in result.stderr.splitlines()[0]
    assert wherry("images", "-q").lines == wherry("images", "-q", "busybox").lines


@of_root
def test_a_container_whose_image_is_gone_is_told_to_export(wherry: Cli, changed: str) -> None:
    wherry("rmi", "-f", "busybox")

    result = wherry("commit", changed, check=False)

    assert result.returncode == 1
    assert "is not there any more" in result.stderr
    assert wherry("diff", changed).lines


@as_single_uid
def test_a_user_without_subordinate_ids_commits_too(wherry: Cli, changed: str) -> None:
    wherry("commit", changed, "made")

    assert "A /new/file" in wherry("diff", changed).lines
    assert run(wherry, "made", "cat /new/symbol; stat -c %u /new/file") == ["hello", "0"]


@of_root
def test_a_container_that_is_paused_already_stays_so(wherry: Cli, busybox_image: str) -> None:
    wherry("run", "-d", "--name", "box", OFFLINE, busybox_image, "sleep", "1000")
    wherry("pause", "box")

    wherry("commit", "box", "made")

    assert wherry("inspect", "-f", "{{.State.Status}}", "box").lines == ["paused"]


@of_root
def test_a_container_of_a_directory_has_no_layer_to_compare(
    wherry: Cli, host_dir: str, busybox_image: str
) -> None:
    wherry("create", "--name", "source", OFFLINE, busybox_image, "true")
    root = Path(host_dir, "root")
    root.mkdir()
    files = wherry("export", "source").output
    subprocess.run(["tar", "-C", root, "-x"], input=files, check=True)
    wherry("run", "--name", "box", OFFLINE, "--rootfs", str(root), "true")

    for verb in ("diff", "commit"):
        result = wherry(verb, "box", check=False)
        assert result.returncode == 1
        assert "stands on a directory of its own" in result.stderr


@as_root
def test_capabilities_of_a_file_are_a_change_and_are_committed(
    wherry: Cli, busybox_image: str
) -> None:
    need_tool("setcap")
    wherry("create", "--name", "box", OFFLINE, busybox_image, "true")
    upper = Path(wherry("inspect", "-f", "{{.GraphDriver.Data.UpperDir}}", "box").lines[0])
    (upper / "tool").write_text("x")
    subprocess.run(["setcap", "cap_net_raw+ep", upper / "tool"], check=True)
    wherry("commit", "box", "first")
    wherry("create", "--name", "again", OFFLINE, "first", "true")
    above = Path(wherry("inspect", "-f", "{{.GraphDriver.Data.UpperDir}}", "again").lines[0])
    subprocess.run(["cp", "-a", upper / "tool", above], check=True)
    assert wherry("diff", "again").lines == []

    subprocess.run(["setcap", "-r", above / "tool"], check=True)

    assert wherry("diff", "again").lines == ["C /tool"]
