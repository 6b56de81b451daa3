"""The guest's sshd, at a port of 127.0.0.1 that anybody on this host can connect to."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.requirements import need_tool
from wherry.errors import MachineError
from wherry_vm.keys import ensure_keys
from wherry_vm.machines import Machine, Settings

if TYPE_CHECKING:
    from support.cli import Cli

pytestmark = [pytest.mark.vm, pytest.mark.network]


def described(machine: Cli) -> tuple[int, Path]:
    """The port of the guest's sshd, and the directory of the machine."""
    document = json.loads(machine("machine", "inspect").stdout)[0]
    return document["SSH"]["Port"], Path(document["Directory"])


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with keys of its own, which another one does not know."""
    monkeypatch.setenv("WHERRY_ROOT", str(tmp_path))
    machine = Machine(name="stranger", settings=Settings())
    Path(machine.directory).mkdir(parents=True)
    ensure_keys(machine)
    return machine


def log_in(port: int, host_key: Path, tmp_path: Path, *options: str) -> tuple[int, str]:
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{port} {host_key.read_text()}")
    result = subprocess.run(
        [need_tool("ssh"), "-F", "none", "-p", str(port), "-o", "BatchMode=yes",
         "-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes",
         "-o", "IdentitiesOnly=yes", *options, "root@127.0.0.1", "true"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    return result.returncode, result.stderr


def test_no_key_but_the_machines_gets_in(machine: Cli, stranger: Machine, tmp_path: Path) -> None:
    port, directory = described(machine)
    key = directory / "host_key.pub"

    ours = log_in(port, key, tmp_path, "-i", f"{directory}/key")
    theirs = log_in(port, key, tmp_path, "-i", stranger.file("key"))
    words = "PreferredAuthentications=none,password,keyboard-interactive,hostbased"
    without = log_in(port, key, tmp_path, "-o", words)
    elsewhere = log_in(port, Path(stranger.file("host_key.pub")), tmp_path)

    assert ours[0] == 0
    assert theirs[0] == without[0] == 255
    assert "Permission denied (publickey)." in theirs[1]
    assert "Permission denied (publickey)." in without[1]
    assert "Host key verification failed" in elsewhere[1]


def test_another_guest_in_the_place_of_ours_is_known(machine: Cli, stranger: Machine) -> None:
    from wherry_vm.ssh import connect

    port, directory = described(machine)
    for name in ("key", "key.pub"):
        shutil.copy(directory / name, stranger.file(name))

    with pytest.raises(MachineError, match="is not the guest: its key is another"):
        connect(stranger, port)
