"""The warm runner: carries out the host's commands, each in a fork that has imported wherry.

A Python start in an emulated guest takes 400 ms, a fork of this process a few. What a
command does is what `wherry` in the guest would: it gets its words, its environment,
streams and terminals of its own, and signals.

Each command is served by a fork of its own (`Runner`), which forks the command. It reaches
us by one of the ports for commands, or by a connection to a UNIX socket.
"""

from __future__ import annotations

import os
import sys

from wherry.lean import sockets
from wherry_vm.guest.agent import find_port, serve_events
from wherry_vm.guest.command import set_oom_score
from wherry_vm.guest.mounts import port_devices
from wherry_vm.guest.pausing import is_to_pause
from wherry_vm.guest.warm import WARM
from wherry_vm.protocol import COMMAND_PORT, RUNNER_SOCKET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NEEDED = -900


def main(path: str = RUNNER_SOCKET) -> None:
    """Listen at `path` for ever."""
    # Without us, the agent and what mounts the shares, forks all, the machine would be of no use.
    set_oom_score(_NEEDED)
    # Where one has been before us nobody knows what a port was in the middle of.
    ports = {} if os.path.exists(path) else open_command_ports()
    listener = listen(path)
    port = find_port()
    # A start pauses when all is imported: the agent need not import of it what it needs itself.
    pauses = port is not None and is_to_pause()
    if pauses:
        warm_up()
    losses = -1
    if port is not None:
        problems, errors = os.pipe()
        lost, losses = os.pipe()
        if os.fork() == 0:
            # What comes now waits in the listener's queue: the guest is ready.
            listener.close()
            for each in (errors, losses, *ports.values()):
                os.close(each)
            serve_events(port, problems, list(ports), lost, pauses=pauses)
            os._exit(0)
        # What goes wrong here, or in a server, the host hears of by the agent.
        os.dup2(errors, 2)
        for each in (errors, problems, lost):
            os.close(each)
    if not pauses:
        warm_up()
    from wherry_vm.guest.runner import Runner

    Runner(listener, ports, losses).run()


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


def open_command_ports() -> dict[int, int]:
    """A descriptor of each port for commands that there is, by its number."""
    return {
        int(name.removeprefix(COMMAND_PORT)): os.open(device, os.O_RDWR | os.O_CLOEXEC)
        for name, device in port_devices().items()
        if name.startswith(COMMAND_PORT)
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
