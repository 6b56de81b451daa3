"""Pseudo-terminals: pty(7), tty_ioctl(4)."""

from __future__ import annotations

import fcntl
import os
import stat
import struct

from wherry.errors import WherryError
from wherry.forked import start
from wherry.lean import sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TIOCSCTTY = 0x540E
TIOCSWINSZ = 0x5414
TIOCGPTPEER = 0x5441
TIOCGPTN = 0x80045430
TIOCSPTLCK = 0x40045431


def open_pair(ptmx: int) -> int:
    """Unlock the terminal whose master side is `ptmx`; the number of its slave in /dev/pts."""
    fcntl.ioctl(ptmx, TIOCSPTLCK, struct.pack("i", 0))
    number: int = struct.unpack("I", fcntl.ioctl(ptmx, TIOCGPTN, b"\0" * 4))[0]
    return number


def check_multiplexer(ptmx: int) -> None:
    """Raise WherryError if a descriptor is not of what makes pseudo-terminals."""
    found = os.fstat(ptmx)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != os.makedev(5, 2):
        raise WherryError(
            "the container cannot have a terminal: its /dev/ptmx is not the device",
            hint="it needs a devpts mounted on /dev/pts",
        )


def open_slave(master: int) -> int:
    """The other side of `master`, which no path can lead away from (tty_ioctl(4))."""
    return fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def set_size(terminal: int, rows: int, columns: int) -> None:
    """Tell the programs on a terminal how large it is."""
    if rows > 0 and columns > 0:
        fcntl.ioctl(terminal, TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def take(terminal: int) -> None:
    """Make `terminal` the controlling one of this session leader, and its standard streams."""
    fcntl.ioctl(terminal, TIOCSCTTY, 0)
    for descriptor in range(3):
        os.dup2(terminal, descriptor)


def hand_over(master: int, name: str, socket: Any) -> None:
    """Send a terminal's master side to a console socket: runc's protocol."""
    rights = [(sockets.SOL_SOCKET, sockets.SCM_RIGHTS, master.to_bytes(4, "little"))]
    socket.sendmsg([name.encode()], rights)
    socket.close()


def hold(master: int) -> None:
    """Keep a terminal open for the program on it, whose user has left: a process that reads.

    Without it the program would be hung up on, or wait for ever for its output to be read.
    """
    holder = start(lambda: _hold(master))
    # Before we end, which hangs up on all that are in our group.
    os.setpgid(holder, holder)


def _hold(master: int) -> None:
    try:
        os.chdir("/")
        null = os.open("/dev/null", os.O_RDWR)
        for descriptor in range(3):
            os.dup2(null, descriptor)
        os.closerange(3, master)
        os.closerange(master + 1, 1 << 16)
        while os.read(master, 1 << 16):
            pass
    except OSError:
        pass  # EIO: nobody has the terminal open any more
