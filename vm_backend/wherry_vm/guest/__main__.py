"""The warm runner: carries out the host's commands, each in a fork that has imported wherry.

A Python start in an emulated guest takes 400 ms, a fork of this process a few. What a
command does is what `wherry` in the guest would: it gets its words, its environment,
streams and terminals of its own, and signals.

Each connection is served by a fork of its own (`Server`), which forks the command.
"""

from __future__ import annotations

import gc
import os
import socket
import sys

from wherry_vm.guest.agent import find_port, serve_events
from wherry_vm.guest.serve import serve
from wherry_vm.protocol import RUNNER_SOCKET

# What most commands load: a fork has them.
_WARM = (
    "wherry.cli.main", "wherry.cli.run", "wherry.cli.exec", "wherry.cli.ps", "wherry.cli.lifecycle",
    "wherry.cli.container", "wherry.cli.image", "wherry.cli.inspect", "wherry.cli.tables",
    "wherry.engine", "wherry.engine.containers", "wherry.engine.creation", "wherry.engine.launch",
    "wherry.engine.mounts", "wherry.engine.query", "wherry.engine.session", "wherry.engine.settle",
    "wherry.engine.images", "wherry.container.bundle", "wherry.container.logs",
    "wherry_linux.backend", "wherry_linux.runtime", "wherry_linux.init", "wherry_linux.mounts",
    "wherry_linux.rootfs", "wherry_linux.process", "wherry_linux.monitor", "wherry_linux.joining",
    "wherry_linux.seccomp", "wherry_linux.network.usermode", "wherry_linux.cgroups",
)  # fmt: skip


def main(path: str = RUNNER_SOCKET) -> None:
    """Listen at `path` for ever."""
    listener = listen(path)
    port = find_port()
    if port is not None and os.fork() == 0:
        # What comes now waits in the listener's queue: the guest is ready.
        listener.close()
        serve_events(port)
        os._exit(0)
    warm_up()
    run(listener)


def listen(path: str) -> socket.socket:
    """A listening socket at `path` that nobody but its owner can connect to."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if os.path.exists(path):
        os.unlink(path)
    before = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(before)
    listener.listen(128)
    return listener


def warm_up() -> None:
    """Import what commands need, and keep the collector from touching its pages in forks."""
    for name in _WARM:
        __import__(name)
    gc.collect()
    gc.freeze()


def run(listener: socket.socket) -> None:
    """Serve every connection in a fork."""
    import signal

    # Ended servers are nobody's business; a server undoes this for itself.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                serve(connection)
            finally:
                os._exit(0)
        connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
