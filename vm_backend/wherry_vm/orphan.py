"""Processes of a machine that nobody answers for any more: they are seen to be gone.

A QEMU whose supervisor was killed powers off by itself, since its guest finds the event
channel closed. A supervisor is killed only where somebody insists: see verbs.stop.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from wherry.errors import AccessDenied, CorruptState, MachineError
from wherry.files import read_file, read_json, remove_file
from wherry_vm.qemu.command import PID_FILE, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wherry_vm.machines import Machine

SUPERVISOR_FILE = "supervisor.json"

ORPHAN_PATIENCE = 20
"""Seconds for the guest to end its containers and power off, as it does without a supervisor."""

_DYING = 10
"""Seconds for a process that was killed to be gone."""


def end_orphan(machine: Machine, patience: float = ORPHAN_PATIENCE) -> None:
    """Return when no QEMU of an earlier supervisor has the machine's disk open.

    It is killed when `patience`, in seconds, is over.

    Raises MachineError where one cannot be ended.
    """
    path = os.path.join(machine.run_directory, PID_FILE)
    try:
        pid = int(read_file(path))
    except (FileNotFoundError, CorruptState, ValueError):
        return
    _end("QEMU", pid, lambda: _is_qemu(pid, machine), patience)
    remove_file(path)


def end_supervisor(machine: Machine) -> None:
    """Kill a supervisor that does not answer. Raises MachineError where it cannot be."""
    pid = supervisor_of(machine)
    _end("its supervisor", pid, lambda: _is_supervisor(pid, machine), 0)


def supervisor_of(machine: Machine) -> int:
    """The pid of the supervisor that was here last; 0 where there is none."""
    try:
        record = read_json(os.path.join(machine.run_directory, SUPERVISOR_FILE), {"pid!": int})
    except (FileNotFoundError, CorruptState):
        return 0
    return int(record["pid"])


def _end(what: str, pid: int, is_ours: Callable[[], bool], patience: float) -> None:
    """Wait until a process is gone, and kill it when `patience` is over."""
    deadline = time.monotonic() + patience
    is_killed = False
    while is_ours():
        if time.monotonic() > deadline:
            if is_killed:
                raise MachineError(f"{what} (process {pid}) does not end, though it was killed")
            _kill(what, pid)
            is_killed, deadline = True, time.monotonic() + _DYING
        time.sleep(0.05)


def _kill(what: str, pid: int) -> None:
    try:
        # SIGTERM where there is no SIGKILL: Windows ends a process at once for any signal.
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    except ProcessLookupError:
        pass
    except PermissionError as error:
        raise AccessDenied(f"cannot end {what} (process {pid}): it is another user's") from error


def _is_qemu(pid: int, machine: Machine) -> bool:
    """Whether process `pid` is the machine's QEMU, and not another that has its number now."""
    line = _command_line(pid)
    # By the disk: machines of other users and places have the same names.
    return f" wherry-{machine.name} " in line and quoted(machine.file("data.img")) in line


def _is_supervisor(pid: int, machine: Machine) -> bool:
    line = _command_line(pid) if pid else ""
    return "wherry_vm.supervisor" in line and repr(machine.name) in line


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
            words = ["/bin/ps", "-ww", "-p", str(pid), "-o", "command="]
        result = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout
