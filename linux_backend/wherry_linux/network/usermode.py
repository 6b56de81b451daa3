"""A network in user mode: a helper process that speaks for the container on the host's sockets.

pasta(1) where it is installed, slirp4netns(1) otherwise. The helper enters the
container's network namespace, makes an interface there, and ends with it.
"""

from __future__ import annotations

import os
import select

from wherry.errors import Unsupported, WherryError
from wherry.lean import signals
from wherry_linux.idmap import find_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.container.store import Container


def connect(container: Container, pid: int) -> None:
    """Connect the network namespace of `pid`; returns once the interface is up."""
    if program := find_program("pasta"):
        _pasta(program, container, pid)
    elif program := find_program("slirp4netns"):
        _slirp(program, container, pid)
    else:
        raise Unsupported(
            "cannot connect the container to a network: neither pasta nor slirp4netns is installed",
            hint="install the package passt, or use --network host or --network none",
        )


def _pasta(program: str, container: Container, pid: int) -> None:
    arguments = [
        program,
        "--config-net",
        "--quiet",
        "--no-map-gw",
        *(["--runas", "0:0"] if os.geteuid() == 0 else []),
        *_published(container),
        str(pid),
    ]
    # pasta goes into the background once everything is set up; its end is our signal.
    _run(arguments, container, "pasta")


def _published(container: Container) -> list[str]:
    options = []
    bindings = container.body["HostConfig"].get("PortBindings") or {}
    for port, hosts in bindings.items():
        number, _, protocol = port.partition("/")
        for host in hosts or ():
            address = f"{host['HostIp']}/" if host.get("HostIp") else ""
            option = "-u" if protocol == "udp" else "-t"
            options += [option, f"{address}{host.get('HostPort') or number}:{number}"]
    for option in ("-t", "-u"):
        if option not in options:
            options += [option, "none"]
    # Nothing on the host's loopback is the container's to reach.
    return [*options, "-T", "none", "-U", "none"]


def _slirp(program: str, container: Container, pid: int) -> None:
    if container.body["HostConfig"].get("PortBindings"):
        raise Unsupported(
            "cannot publish ports with slirp4netns", hint="install the package passt"
        )
    ready_read, ready_write = os.pipe2(0)
    os.set_inheritable(ready_read, False)
    arguments = [
        program,
        "--configure",
        "--mtu=65520",
        "--disable-host-loopback",
        f"--ready-fd={ready_write}",
        str(pid),
        "tap0",
    ]
    log = os.open(container.path("network.log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    helper = _spawn(arguments, log)
    os.close(ready_write)
    poll = select.poll()
    poll.register(ready_read, select.POLLIN | select.POLLHUP)
    is_ready = bool(poll.poll(10_000)) and os.read(ready_read, 1)
    os.close(ready_read)
    if not is_ready:
        os.kill(helper, 9)
        os.waitpid(helper, 0)
        raise WherryError(f"slirp4netns failed: {_last_words(container)}")


def _run(arguments: list[str], container: Container, name: str) -> None:
    log = os.open(container.path("network.log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    helper = _spawn(arguments, log)
    if os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1]) != 0:
        raise WherryError(
            f"cannot connect the container to a network: {name}: {_last_words(container)}",
            hint="--network host and --network none need no helper",
        )


def _spawn(arguments: list[str], log: int) -> int:
    """Start a helper that writes to `log`, which this closes; its pid."""
    # pasta takes it for an error that somebody has ignored a signal before it.
    caught = (signals.SIGPIPE, signals.SIGHUP, signals.SIGINT, signals.SIGQUIT, signals.SIGTERM)
    try:
        return os.posix_spawn(
            arguments[0],
            arguments,
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)],
            setsigdef=caught,
        )
    finally:
        os.close(log)


def _last_words(container: Container) -> str:
    with open(container.path("network.log"), errors="replace") as file:
        lines = [line.strip() for line in file if line.strip()]
    return lines[-1] if lines else "no message"
