"""The warm runner: carries out the host's commands, each in a fork that has imported wherry.

A Python start in an emulated guest takes 400 ms, a fork of this process a few. What a
command does is what `wherry` in the guest would: it gets its words, its environment,
streams and terminals of its own, and signals.

Each connection is served by a fork of its own (`Server`), which forks the command.
"""

from __future__ import annotations

import os
import sys

from wherry.lean import signals, sockets
from wherry_vm.guest.agent import find_port, serve_events
from wherry_vm.guest.pausing import is_to_pause
from wherry_vm.guest.warm import WARM
from wherry_vm.protocol import RUNNER_SOCKET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(path: str = RUNNER_SOCKET) -> None:
    """Listen at `path` for ever."""
    listener = listen(path)
    port = find_port()
    # A start pauses when all is imported: the agent need not import of it what it needs itself.
    pauses = port is not None and is_to_pause()
    if pauses:
        warm_up()
    if port is not None:
        problems, errors = os.pipe()
        if os.fork() == 0:
            # What comes now waits in the listener's queue: the guest is ready.
            listener.close()
            os.close(errors)
            serve_events(port, problems, pauses=pauses)
            os._exit(0)
        # What goes wrong here, or in a server, the host hears of by the agent.
        os.dup2(errors, 2)
        os.close(errors)
        os.close(problems)
    if not pauses:
        warm_up()
    run(listener)


def listen(path: str) -> Any:
    """A listening socket at `path` that nobody but its owner can connect to."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    listener = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
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
    import gc

    # Meanwhile next to nothing becomes garbage.
    gc.disable()
    for name in WARM:
        __import__(name)
    gc.collect()
    gc.freeze()
    gc.enable()


def run(listener: Any) -> None:
    """Serve every connection in a fork."""
    from wherry_vm.guest.serve import serve

    # Ended servers are nobody's business; a server undoes this for itself.
    signals.signal(signals.SIGCHLD, signals.SIG_IGN)
    while True:
        connection = sockets.socket(fileno=listener._accept()[0])
        if os.fork() == 0:
            listener.close()
            signals.signal(signals.SIGCHLD, signals.SIG_DFL)
            try:
                serve(connection)
            except Exception:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(0)
        connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
