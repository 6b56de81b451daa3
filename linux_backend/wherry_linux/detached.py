"""How a monitor becomes a process of nobody's, and makes what it holds of its container.

Only who starts a container loads this: a monitor that goes on in a fresh interpreter has it all.
"""

from __future__ import annotations

import fcntl
import os

from wherry.container.wire import SOCKET
from wherry.files import make_dir, remove_file
from wherry.lean import sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Three = tuple[int, int, int]


def keep_streams(above: int) -> list[int]:
    """Copies of the command's three streams, of numbers `above`, for `--log-driver passthrough`."""
    return [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, above + 1) for each in range(3)]


def detach(kept: set[int]) -> None:
    """Leave the command's session, directory and descriptors but those to be kept."""
    os.setsid()
    if "WHERRY_ROOT" in os.environ:
        os.environ["WHERRY_ROOT"] = os.path.abspath(os.environ["WHERRY_ROOT"])
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    # Among them are the locks and pipes of whoever called the command.
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor not in kept:
            _close_if_open(descriptor)


def _close_if_open(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:
        pass  # the one that the list was read from


def listen_in(directory: str) -> Any:
    """The socket in a container's run directory that commands connect to."""
    make_dir(directory)
    place = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    os.fchdir(place)  # a socket's path may have no more than 107 bytes
    remove_file(SOCKET)
    listener = sockets.socket(
        sockets.AF_UNIX, sockets.SOCK_STREAM | sockets.SOCK_CLOEXEC | sockets.SOCK_NONBLOCK
    )
    listener.bind(SOCKET)
    listener.listen(64)
    os.chdir("/")
    os.close(place)
    return listener


def make_pipes(has_stdin: bool) -> tuple[Three, Three]:
    """Our ends and the container's ends of its three streams."""
    if has_stdin:
        stdin_read, stdin_write = os.pipe2(os.O_CLOEXEC)
    else:
        stdin_read, stdin_write = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1
    out_read, out_write = os.pipe2(os.O_CLOEXEC)
    err_read, err_write = os.pipe2(os.O_CLOEXEC)
    return (stdin_write, out_read, err_read), (stdin_read, out_write, err_write)
