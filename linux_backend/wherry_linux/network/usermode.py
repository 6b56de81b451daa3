"""A network in user mode: a helper process that speaks for the container on the host's sockets.

pasta(1) where it is installed, slirp4netns(1) otherwise. The helper makes an interface in
the container's network namespace, which lives as long as the helper holds it: so whoever
clears up after the container ends the helper, by what is written in its run directory.
"""

from __future__ import annotations

import os
import select

from wherry.container.ports import wanted_ports
from wherry.engine.published import inner_address
from wherry.errors import Conflict, NotFound, Unsupported, WherryError
from wherry.files import make_dir, read_json, remove_file, write_json
from wherry.lean import signals, sockets
from wherry_linux.idmap import find_program
from wherry_linux.processes import signal, start_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.container.spec import PortBinding
    from wherry.container.store import Container

    Ports = dict[str, list[PortBinding]]

_RECORD = "network.json"


def connect(container: Container, pid: int) -> Ports:
    """Connect the network namespace of `pid`; returns once the interface is up.

    The result is what of the host is published, each with its address and port.
    """
    ports = _choose_ports(container)
    make_dir(container.run_directory)
    tie = -1
    if program := find_program("pasta"):
        helper = _pasta(program, container, pid, ports)
    elif program := find_program("slirp4netns"):
        helper, tie = _slirp(program, container, pid, ports)
    else:
        raise Unsupported(
            "cannot connect the container to a network: neither pasta nor slirp4netns is installed",
            hint="install the package passt, or use --network host or --network none",
        )
    write_json(
        os.path.join(container.run_directory, _RECORD),
        {
            "pid": helper,
            "startTime": start_time(helper),
            # What this process holds, whose end is the helper's.
            "tie": tie,
            "holder": [os.getpid(), start_time(os.getpid())],
        },
    )
    return ports


def disconnect(run_directory: str) -> None:
    """End the helper of a container, if it had one."""
    path = os.path.join(run_directory, _RECORD)
    try:
        record = read_json(path, {"pid!": int, "startTime": int})
    except (OSError, WherryError):
        return
    signal(record["pid"], record["startTime"] or 0, signals.SIGKILL)
    try:
        os.waitpid(record["pid"], 0)
    except ChildProcessError:
        pass  # the child of a monitor that is gone
    if record["tie"] >= 0 and record["holder"] == [os.getpid(), start_time(os.getpid())]:
        os.close(record["tie"])
    remove_file(path)


def _choose_ports(container: Container) -> Ports:
    """The host's address and port for each published port. Raises Conflict for a busy one."""
    chosen: Ports = {}
    for port, bindings in wanted_ports(container.body).items():
        number, _, protocol = port.partition("/")
        for binding in bindings:
            address = binding.get("HostIp") or "0.0.0.0"
            host, ports = inner_address(address), binding.get("HostPort") or "0"
            bound = _try_ports(host, ports, protocol)
            chosen.setdefault(f"{number}/{protocol or 'tcp'}", []).append(
                {"HostIp": address, "HostPort": str(bound)}
            )
    return chosen


def _try_ports(address: str, ports: str, protocol: str) -> int:
    """A port, or one of a range, that can be bound now."""
    first, _, last = ports.partition("-")
    for port in range(int(first), int(last or first)):
        try:
            return _try_port(address, port, protocol)
        except Conflict:
            continue
    return _try_port(address, int(last or first), protocol)


def _try_port(address: str, port: int, protocol: str) -> int:
    """`port`, or a free one for 0, if it can be bound now."""
    family = sockets.AF_INET6 if ":" in address else sockets.AF_INET
    kind = sockets.SOCK_DGRAM if protocol == "udp" else sockets.SOCK_STREAM
    socket = sockets.socket(family, kind | sockets.SOCK_CLOEXEC)
    try:
        if kind == sockets.SOCK_STREAM:
            socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        socket.bind((address, port))
        return int(socket.getsockname()[1])
    except PermissionError as error:
        raise WherryError(
            f"cannot publish port {port}: only root may bind it",
            hint="publish a port from 1024 on; `wherry doctor` shows how to allow lower ones",
        ) from error
    except OSError as error:
        shown = f"[{address}]" if ":" in address else address
        if error.errno == 99:  # EADDRNOTAVAIL
            message = f"cannot publish on {shown}: this machine has no such address"
            raise NotFound(message) from error
        raise Conflict(f"Bind for {shown}:{port} failed: port is already allocated") from error
    finally:
        socket.close()


def _pasta(program: str, container: Container, pid: int, ports: Ports) -> int:
    record = os.path.join(container.run_directory, "network.pid")
    arguments = [
        program,
        "--config-net",
        "--quiet",
        "--no-map-gw",
        "--pid",
        record,
        *(["--runas", "0:0"] if os.geteuid() == 0 else []),
        *_pasta_ports(ports),
    ]
    # pasta goes into the background once everything is set up.
    if _shares_users(pid):
        # In our own user namespace pasta gives up what opening /proc/PID/ns/net takes.
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        os.set_inheritable(namespace, True)
        try:
            arguments += ["--netns-only", "--netns", f"/proc/self/fd/{namespace}"]
            helper = _spawn(arguments, container)
        finally:
            os.close(namespace)
    else:
        helper = _spawn([*arguments, str(pid)], container)
    if os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1]) != 0:
        raise WherryError(
            f"cannot connect the container to a network: pasta: {_last_words(container)}",
            hint="--network host and --network none need no helper",
        )
    with open(record) as file:
        daemon = int(file.read())
    remove_file(record)
    return daemon


def _shares_users(pid: int) -> bool:
    """Whether a process is in our own user namespace."""
    return os.readlink(f"/proc/{pid}/ns/user") == os.readlink("/proc/self/ns/user")


def _pasta_ports(ports: Ports) -> list[str]:
    options = []
    for port, bindings in ports.items():
        number, _, protocol = port.partition("/")
        for binding in bindings:
            address = inner_address(binding["HostIp"])
            address = "" if address == "0.0.0.0" else f"{address}/"
            options += [
                "-u" if protocol == "udp" else "-t",
                f"{address}{binding['HostPort']}:{number}",
            ]
    for option in ("-t", "-u"):
        if option not in options:
            options += [option, "none"]
    # Nothing on the host's loopback is the container's to reach.
    return [*options, "-T", "none", "-U", "none"]


def _slirp(program: str, container: Container, pid: int, ports: Ports) -> tuple[int, int]:
    """The pid of slirp4netns, and the descriptor that it ends with."""
    if ports:
        raise Unsupported("cannot publish ports with slirp4netns", hint="install the package passt")
    ready_read, ready_write = os.pipe()
    os.set_inheritable(ready_write, True)
    # It ends when the other end closes, which is when this process does. That may execute
    # another interpreter before (wherry_linux.handover); containers' programs get neither.
    exit_read, exit_write = os.pipe()
    os.set_inheritable(exit_read, True)
    try:
        helper = _spawn(
            [
                program,
                "--configure",
                "--mtu=65520",
                "--disable-host-loopback",
                f"--ready-fd={ready_write}",
                f"--exit-fd={exit_read}",
                f"--userns-path=/proc/{pid}/ns/user",
                str(pid),
                "tap0",
            ],
            container,
        )
    finally:
        os.close(ready_write)
        os.close(exit_read)
    poll = select.poll()
    poll.register(ready_read, select.POLLIN | select.POLLHUP)
    is_ready = bool(poll.poll(10_000)) and os.read(ready_read, 1)
    os.close(ready_read)
    if not is_ready:
        os.close(exit_write)
        os.kill(helper, 9)
        os.waitpid(helper, 0)
        raise WherryError(
            f"cannot connect the container to a network: slirp4netns: {_last_words(container)}",
            hint="--network host and --network none need no helper",
        )
    os.set_inheritable(exit_write, True)
    return helper, exit_write


def _spawn(arguments: list[str], container: Container) -> int:
    """Start a helper that writes to the container's network.log; its pid."""
    path = container.path("network.log")
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
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
