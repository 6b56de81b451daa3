"""Commands that podman has and docker has not: exists, unshare, reset, volumes as archives."""

from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from support.settings import OFFLINE, as_root, as_rootless

if TYPE_CHECKING:
    from support.cli import Cli
    from support.outside import Outside


def test_exit_code_tells_what_exists(wherry: Cli, busybox_image: str) -> None:
    wherry("create", OFFLINE, "--name", "box", busybox_image, "true")
    wherry("volume", "create", "store")

    def code(*argv: str) -> int:
        result = wherry(*argv, check=False)
        assert (result.stdout, result.stderr) == ("", "")
        return result.returncode

    assert code("container", "exists", "box") == 0
    assert code("image", "exists", busybox_image) == 0
    assert code("volume", "exists", "store") == 0
    for kind in ("container", "image", "volume"):
        assert code(kind, "exists", "nosuch") == 1
        assert code(kind, "exists", "No:Such:Thing") == 1


def test_volume_goes_out_and_comes_back_with_owners(
    wherry: Cli, busybox_image: str, host_dir: str
) -> None:
    script = "mkdir /v/sub; echo hello > /v/sub/file; chown 7:8 /v/sub/file; chmod 640 /v/sub/file"
    volume = ("-v", "one:/v", busybox_image, "sh", "-c")
    wherry("run", OFFLINE, "--rm", *volume, script)
    wherry("volume", "create", "two")

    archive = wherry("volume", "export", "one").output
    wherry("volume", "import", "two", input=archive)
    wherry("volume", "export", "--output", f"{host_dir}/two.tar", "two")

    with tarfile.open(f"{host_dir}/two.tar") as found:
        member = found.getmember("./sub/file")
        assert (member.uid, member.gid, member.mode & 0o777) == (7, 8, 0o640)
    show = ("stat -c '%u:%g %a' /v/sub/file; cat /v/sub/file",)
    shown = wherry("run", OFFLINE, "--rm", "-v", "two:/v", busybox_image, "sh", "-c", *show)
    assert shown.stdout == "7:8 640\nhello\n"


def test_archive_that_leads_out_of_a_volume_is_refused(wherry: Cli, host_dir: str) -> None:
    wherry("volume", "create", "store")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../../../escaped"))
    with open(f"{host_dir}/evil.tar", "wb") as file:
        file.write(buffer.getvalue())

    result = wherry("volume", "import", "store", f"{host_dir}/evil.tar", check=False)

    assert result.returncode == 1
    assert "leads out of it" in result.stderr


def test_volume_that_is_missing_is_told(wherry: Cli) -> None:
    for argv in (("export", "nosuch"), ("import", "nosuch")):
        result = wherry("volume", *argv, check=False)
        assert result.returncode == 1
        assert "No such volume: nosuch" in result.stderr


def test_health_is_checked_on_demand(wherry: Cli, busybox_image: str) -> None:
    wherry(
        "run", OFFLINE, "-d", "--name", "box", "--health-cmd", "test -e /well",
        "--health-interval", "1h", "--health-retries", "1", busybox_image, "sleep", "1000",
    )  # fmt: skip

    ill = wherry("healthcheck", "run", "box", check=False)
    wherry("exec", "box", "touch", "/well")
    well = wherry("healthcheck", "run", "box")

    assert (ill.returncode, ill.stdout) == (1, "unhealthy\n")
    assert (well.returncode, well.stdout) == (0, "")
    template = "{{.State.Health.Status}} {{range .State.Health.Log}}{{.ExitCode}} {{end}}"
    assert wherry("inspect", "-f", template, "box").stdout == "healthy 1 0 \n"


def test_health_of_a_container_without_a_check_is_125(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "-d", "--name", "box", busybox_image, "sleep", "1000")

    result = wherry("healthcheck", "run", "box", check=False)

    assert result.returncode == 125
    assert "container box has no defined healthcheck" in result.stderr


def test_layers_of_an_image_are_a_tree(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "--name", "box", busybox_image, "touch", "/new")
    wherry("commit", "box", "own:1")

    lines = wherry("image", "tree", "own:1").lines

    assert lines[1] == "Tags:     [own:1]"
    assert lines[-2].startswith("├── ID: ")
    assert lines[-2].endswith("Top Layer of: [busybox:latest]")
    assert lines[-1].startswith("└── ID: ")
    assert lines[-1].endswith("Top Layer of: [own:1]")


@as_rootless
def test_files_of_a_containers_users_can_be_reached(
    wherry: Cli, busybox_image: str, host_dir: str
) -> None:
    mount = ("-v", f"{host_dir}:/mnt", busybox_image)
    script = "echo secret > /mnt/file && chown 7:7 /mnt/file && chmod 600 /mnt/file"
    wherry("run", OFFLINE, "--rm", *mount, "sh", "-c", script)

    result = wherry("unshare", "sh", "-c", "cat file; rm file; exit 3", check=False)

    assert (result.returncode, result.stdout) == (3, "secret\n")
    assert os.listdir(host_dir) == []
    assert wherry("unshare", "no-such-command", check=False).returncode == 127


@as_root
def test_root_has_nothing_to_unshare(wherry: Cli) -> None:
    result = wherry("unshare", "true", check=False)

    assert result.returncode == 125
    assert "unshare is for users other than root" in result.stderr


def test_reset_leaves_nothing(wherry: Cli, outside: Outside, busybox_image: str) -> None:
    wherry("run", OFFLINE, "-d", "--name", "box", "-v", "data:/data", busybox_image, "sleep", "99")
    wherry("secret", "create", "key", "-", input="x")

    refused = wherry("system", "reset", input="n\n", check=False)
    assert refused.returncode == 1
    assert wherry("ps", "-q").stdout != ""
    wherry("system", "reset", "--force")

    for kind in ("ps -aq", "images -q", "volume ls -q", "secret ls -q"):
        assert wherry(*kind.split()).stdout == ""
    assert set(outside("ls", outside.data).split()) <= {"containers", "names", "images"}


def test_there_is_one_context(wherry: Cli) -> None:
    assert wherry("context", "show").stdout == "default\n"
    assert wherry("context", "use", "default").stdout == "default\n"
    assert wherry("context", "ls", "--format", "{{.Name}} {{.Current}}").stdout == "default true\n"
    assert wherry("context", "ls", "-q").stdout == "default\n"
    assert wherry("context", "inspect", "-f", "{{.Name}}").stdout == "default\n"


@pytest.mark.parametrize("command", ["use", "inspect"])
def test_other_contexts_are_not_there(wherry: Cli, command: str) -> None:
    result = wherry("context", command, "other", check=False)

    assert result.returncode == 1
    assert 'context "other": context not found' in result.stderr
