"""Other users of the host: what they cannot enter, and what of theirs is not taken for ours."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from support.settings import OFFLINE, as_root, on_linux
from wherry import paths
from wherry.errors import AccessDenied
from wherry.files import claim_directory, write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    from support.cli import Cli

_OTHER = 12345


def _mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


@on_linux
def test_nobody_else_can_enter_what_containers_write(
    wherry: Cli, wherry_root: str, busybox_image: str
) -> None:
    os.chmod(f"{wherry_root}/data", 0o755)

    wherry("run", OFFLINE, busybox_image, "chmod", "4755", "/bin/busybox")

    assert _mode(f"{wherry_root}/data") == 0o700
    assert _mode(f"{wherry_root}/run") == 0o700


def test_umask_of_the_caller_does_not_reach_the_container(wherry: Cli, busybox_image: str) -> None:
    argv = [*wherry.account.command, "run", OFFLINE, "--rm", "--user", "33", busybox_image]
    shell = ["sh", "-c", 'umask 077; exec "$@"', "sh", *argv, "cat", "/etc/hostname", "/etc/passwd"]

    process = wherry.spawn(shell)
    output, errors = process.communicate()

    assert process.returncode == 0, errors
    assert b"root" in output


@as_root
def test_data_of_another_user_is_refused(wherry: Cli, wherry_root: str, busybox_image: str) -> None:
    os.chown(f"{wherry_root}/data", _OTHER, _OTHER)
    try:
        result = wherry("ps", check=False)
    finally:
        os.chown(f"{wherry_root}/data", 0, 0)

    assert result.returncode == 1
    assert f"belongs to user {_OTHER}" in result.stderr


def test_directory_is_made_private(tmp_path: Path) -> None:
    os.mkdir(tmp_path / "open", 0o777)

    for name in ("open", "new"):
        claim_directory(str(tmp_path / name))

    assert _mode(str(tmp_path / "open")) == 0o700
    assert _mode(str(tmp_path / "new")) == 0o700


def test_link_of_our_own_to_another_disk_is_followed(tmp_path: Path) -> None:
    os.mkdir(tmp_path / "disk")
    os.symlink("disk", tmp_path / "link")

    claim_directory(str(tmp_path / "link"))

    assert _mode(str(tmp_path / "disk")) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
def test_link_of_another_user_is_refused(tmp_path: Path) -> None:
    os.mkdir(tmp_path / "ours", 0o755)
    os.symlink("ours", tmp_path / "link")
    os.lchown(tmp_path / "link", _OTHER, _OTHER)

    with pytest.raises(AccessDenied):
        claim_directory(str(tmp_path / "link"))

    assert _mode(str(tmp_path / "ours")) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
@pytest.mark.parametrize("kind", ["directory", "link"])
def test_place_that_another_user_has_made_for_us_is_refused(tmp_path: Path, kind: str) -> None:
    tmp_path.chmod(0o1777)  # as /tmp
    os.mkdir(tmp_path / "ours", 0o755)
    place = tmp_path / "theirs"
    os.mkdir(place) if kind == "directory" else os.symlink("ours", place)
    os.lchown(place, _OTHER, _OTHER)

    with pytest.raises(AccessDenied, match=f"theirs belongs to user {_OTHER}"):
        claim_directory(f"{place}/data")


def test_place_in_a_directory_that_everybody_may_change_is_refused(tmp_path: Path) -> None:
    os.mkdir(tmp_path / "open")
    os.chmod(tmp_path / "open", 0o777)

    with pytest.raises(AccessDenied, match="everybody may write to"):
        claim_directory(f"{tmp_path}/open/root/data")


def test_temporary_file_is_never_one_that_was_there(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("as it was")
    os.symlink(victim, f"{tmp_path}/file.{os.getpid()}.tmp")

    write_atomic(f"{tmp_path}/file", b"new")

    assert victim.read_text() == "as it was"
    assert (tmp_path / "file").read_text() == "new"
    assert not (tmp_path / "file").is_symlink()


@pytest.mark.skipif(os.geteuid() == 0, reason="root has /run/wherry")
def test_runtime_directory_that_others_can_write_to_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.delenv("WHERRY_ROOT", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    assert not paths.run().startswith(str(tmp_path))
