"""Processes and who they are: a pid alone is reused, a pid with its start time is not."""

from __future__ import annotations

import os
import select

from wherry.errors import KernelError
from wherry.lean import signals


def start_time(pid: int) -> int | None:
    """When `pid` started, in clock ticks since boot (proc(5), field 22); None if it is gone.

    A zombie is gone: it runs nothing any more.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read(1024).rpartition(b") ")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def is_alive(pid: int, started: int) -> bool:
    """Whether the process that had `pid` and start time `started` still runs."""
    return pid > 0 and start_time(pid) == started


def boot_id() -> str:
    """Another one after each boot: what ran under another cannot run now."""
    with open("/proc/sys/kernel/random/boot_id", "rb", buffering=0) as file:
        return file.read().decode().strip()


def signal(pid: int, started: int, number: int) -> bool:
    """Send a signal to that very process; False if it is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    except OSError as error:
        raise _failure("open", pid, error) from error
    try:
        if not is_alive(pid, started):
            return False
        signals.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    except OSError as error:
        raise _failure("signal", pid, error) from error
    finally:
        os.close(descriptor)
    return True


def kill_child(pid: int, parent: int) -> None:
    """Kill `pid` if it is a child of `parent`: by now the number may be somebody else's."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read(1024).rpartition(b") ")[2].split()
        if int(fields[1]) == parent:
            signals.pidfd_send_signal(descriptor, signals.SIGKILL)
    except OSError:
        pass  # it has ended
    finally:
        os.close(descriptor)


def _failure(action: str, pid: int, error: OSError) -> KernelError:
    return KernelError(f"cannot {action} process {pid}: {error.strerror}", error.errno or 0)


def wait_gone(pid: int, started: int, seconds: float) -> bool:
    """Wait until that process is gone; False if it still runs after `seconds`."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        if not is_alive(pid, started):
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(max(0, int(seconds * 1000))))
    finally:
        os.close(descriptor)


def in_same_pid_namespace(pid: int) -> list[int]:
    """Every process, on the host, in the pid namespace of `pid`."""
    try:
        wanted = os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return []
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.readlink(f"/proc/{name}/ns/pid") == wanted:
                    found.append(int(name))
            except OSError:
                pass
    return found


def catches(pid: int, number: int) -> bool:
    """Whether process `pid` has a handler for a signal, or waits for it (proc(5), SigCgt)."""
    try:
        with open(f"/proc/{pid}/status") as lines:
            masks = dict(line.split(":", 1) for line in lines)
    except OSError:
        return True
    caught = int(masks["SigCgt"], 16) | int(masks["SigBlk"], 16)
    return bool(caught >> (number - 1) & 1)
