"""Processes as `ps -ef` shows them (ps(1), proc(5)): not every host has a ps that can."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

TITLES = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]

# Major numbers of terminals (admin-guide/devices.txt).
_PSEUDO = range(136, 144)
_CONSOLES = 4


def rows(pids: Iterable[int]) -> list[list[str]]:
    """A row for each process that is still there."""
    booted = _boot_time()
    now = time.time()
    found = (_row(pid, booted, now) for pid in sorted(pids))
    return [row for row in found if row is not None]


def _row(pid: int, booted: float, now: float) -> list[str] | None:
    try:
        with open(f"/proc/{pid}/stat") as file:
            name, _, rest = file.read().partition(" (")[2].rpartition(") ")
        uid = os.stat(f"/proc/{pid}").st_uid
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return None
    fields = rest.split()
    hertz = os.sysconf("SC_CLK_TCK")
    used = (int(fields[11]) + int(fields[12])) / hertz
    started = booted + int(fields[19]) / hertz
    lasted = max(now - started, 1)
    return [
        _user(uid),
        str(pid),
        fields[1],
        str(min(int(100 * used / lasted), 99)),
        start_time(started, now),
        terminal(int(fields[4])),
        f"{int(used) // 3600:02d}:{int(used) // 60 % 60:02d}:{int(used) % 60:02d}",
        words or (f"[{name}] <defunct>" if fields[0] == "Z" else f"[{name}]"),
    ]


def _boot_time() -> float:
    with open("/proc/stat") as lines:
        for line in lines:
            if line.startswith("btime "):
                return float(line.split()[1])
    return 0.0


def _user(uid: int) -> str:
    import pwd

    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
    return name if len(name) <= 8 else f"{name[:7]}+"


def start_time(started: float, now: float) -> str:
    """STIME as ps has it: the hour on the same day, the day in the same year, or the year."""
    then, today = time.localtime(started), time.localtime(now)
    if then.tm_year != today.tm_year:
        return time.strftime("%Y", then)
    return time.strftime("%H:%M" if then.tm_yday == today.tm_yday else "%b%d", then)


def terminal(number: int) -> str:
    """The name of a terminal by the device number in /proc/PID/stat."""
    major, minor = os.major(number), os.minor(number)
    if major in _PSEUDO:
        return f"pts/{(major - _PSEUDO.start) * 256 + minor}"
    if major == _CONSOLES:
        return f"tty{minor}" if minor < 64 else f"ttyS{minor - 64}"
    return "?"
