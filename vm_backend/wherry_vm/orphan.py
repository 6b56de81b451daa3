"""A QEMU whose supervisor was killed: it powers off by itself, and is seen to be gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from wherry.errors import CorruptState
from wherry.files import read_json, remove_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry_vm.machines import Machine

_PATIENCE = 10
"""Seconds for the guest to end its containers and power off, as it does without a supervisor."""


def end_orphan(machine: Machine) -> None:
    """Return when no QEMU of an earlier supervisor has the machine's disk open."""
    path = os.path.join(machine.run_directory, "qemu.json")
    try:
        pid = int(read_json(path)["pid"])
    except (FileNotFoundError, CorruptState, KeyError, ValueError, TypeError):
        return
    deadline = time.monotonic() + _PATIENCE
    while _is_ours(pid, machine):
        if time.monotonic() > deadline:
            # SIGTERM where there is no SIGKILL: Windows ends a process at once for any signal.
            os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
            deadline = time.monotonic() + _PATIENCE
        time.sleep(0.05)
    remove_file(path)


def _is_ours(pid: int, machine: Machine) -> bool:
    """Whether process `pid` is the machine's QEMU, and not another that has its number now."""
    return f"wherry-{machine.name}" in _command_line(pid).split()


def _command_line(pid: int) -> str:
    """The words of a process, with spaces between; "" where there is none of that number."""
    try:
        if sys.platform == "linux":
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                return file.read().replace(b"\0", b" ").decode(errors="replace")
        if sys.platform == "win32":
            query = f"(Get-CimInstance Win32_Process -Filter 'ProcessId={pid}').CommandLine"
            words = ["powershell", "-NoProfile", "-Command", query]
        else:
            words = ["/bin/ps", "-p", str(pid), "-o", "command="]
        result = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout
