"""The network namespace in which the networks of an unprivileged user are.

    RUN/networks/namespace.json    the process that keeps it, and the helper that leads out of it
    RUN/networks/namespace.lock    shared: somebody is putting a container on a network

It is made when the first container is put on a network, in a user namespace of its own,
and goes with the last. What keeps it is a program of some thirty bytes in memory that
waits; what leads out of it is the helper that a container on the default network has
(wherry_linux.network.helpers), one for all.
"""

from __future__ import annotations

import os
import struct

from wherry import paths
from wherry.errors import CorruptState, KernelError, WherryError
from wherry.files import Lock, make_dir, read_json, remove_file, write_json
from wherry.forked import start
from wherry.lean import signals, sockets
from wherry_linux import constants as c
from wherry_linux import trampoline
from wherry_linux.idmap import write_maps
from wherry_linux.network import helpers, links, senders
from wherry_linux.network.netlink import Connection
from wherry_linux.processes import boot_id, is_alive, signal, start_time, wait_gone
from wherry_linux.syscalls import close_range, unshare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    Record = dict[str, Any]

# Of its link to the outside: nobody's (RFC 5737), so that it is in the way of nobody's.
SUBNET = "192.0.2.0/24"
_ADDRESS, _GATEWAY = "192.0.2.100", "192.0.2.2"
_NAME = "wherry-network"


def used() -> Lock:
    """While it is held nobody takes the namespace away."""
    return Lock(_path("namespace.lock"), shared=True)


def find() -> int:
    """The process that keeps the namespace; 0 where there is none."""
    return int(_read().get("pid", 0))


def keeps_senders() -> bool:
    """Whether who is relayed into the namespace keeps his address there."""
    return bool(_read().get("keepsSenders"))


def ensure(*, outside: bool) -> tuple[int, bool]:
    """The process that keeps the namespace, and whether it was made now.

    With `outside` it leads to the world, if the host does. For who holds `used`.
    """
    with Lock(_path("")):
        record = _read()
        is_new = not record
        if is_new:
            record = _make()
        helper = record["helper"]
        if outside and not (helper and helpers.is_running(helper)) and host_address():
            record["helper"] = _connect(record["pid"])
            _write(record)
        return record["pid"], is_new


def leave() -> None:
    """Take the namespace away if no container is on a network any more. Safe to call always."""
    if not os.path.exists(_path("namespace.json")) or _is_in_use():
        return
    try:
        with Lock(_path("namespace.lock"), wait=False), Lock(_path("")):
            if not _is_in_use():
                _end()
    except WherryError:
        return  # somebody is about to use it, and will come by here


def _is_in_use() -> bool:
    from wherry.network import leases

    return any(leases.endpoints(name) for name in os.listdir(_path("")) if "." not in name)


def _end() -> None:
    record = _read(alive=False)
    if record:
        if record["helper"]:
            helpers.end(record["helper"])
        if signal(record["pid"], record["startTime"], signals.SIGKILL):
            wait_gone(record["pid"], record["startTime"], 10)
    helpers.end_forgotten(_path("namespace.pid"))
    remove_file(_path("namespace.json"))


def _path(name: str) -> str:
    return os.path.join(make_dir(os.path.join(paths.run(), "networks"), 0o711), name)


def _read(*, alive: bool = True) -> Record:
    """What is noted of the namespace; nothing where it is gone."""
    try:
        record: Record = read_json(_path("namespace.json"), {"pid!": int, "startTime!": int})
    except (FileNotFoundError, CorruptState):
        return {}
    if record["bootId"] != boot_id():
        return {}  # what had that number before the host was started anew
    return record if not alive or is_alive(record["pid"], record["startTime"]) else {}


def _write(record: Record) -> None:
    write_json(_path("namespace.json"), record)


# ---- making it ----


def _make() -> Record:
    _end()
    ours, theirs = sockets.socketpair(sockets.AF_UNIX, sockets.SOCK_STREAM)

    def leave() -> None:
        # A child of nobody's: it outlives whoever makes it.
        os.setsid()
        if os.fork() == 0:
            ours.close()
            _hold(theirs)

    os.waitpid(start(leave), 0)
    theirs.close()
    try:
        pid = int(_hear(ours))
        write_maps(pid, *_maps())
        record = {
            "pid": pid,
            "startTime": start_time(pid),
            "bootId": boot_id(),
            "helper": None,
        }
        _write(record)
        ours.send(b"1")
        record["keepsSenders"] = _hear(ours) == "all"
        _hear(ours, to_the_end=True)
        _write(record)
    finally:
        ours.close()
    return record


def _maps() -> tuple[list[Any], list[Any]]:
    """Its root is the user, and nobody else is there."""
    return (
        [{"containerID": 0, "hostID": os.geteuid(), "size": 1}],
        [{"containerID": 0, "hostID": os.getegid(), "size": 1}],
    )


def _hear(socket: Any, *, to_the_end: bool = False) -> str:
    """What the process that is to keep the namespace says. Raises what went wrong there."""
    text: str = socket.recv(4096).decode()
    if not text and not to_the_end:
        raise WherryError("a helper process ended without an answer")
    if "!" in text:
        number, _, message = text.partition("!")[2].partition(" ")
        raise KernelError(
            f"cannot make a network namespace: {message}",
            int(number),
            hint="`wherry doctor` tells what keeps this user from making namespaces",
        )
    return text


def _hold(socket: Any) -> NoReturn:
    """In the process that keeps the namespace. The socket closes when it executes its program."""
    try:
        unshare(c.CLONE_NEWUSER | c.CLONE_NEWNET)
        socket.send(str(os.getpid()).encode())
        if socket.recv(1):
            with Connection() as route:
                route.send([links.raise_link(1)])
            socket.send(b"all" if senders.prepare() else b"part")
            os.chdir("/")
            program = trampoline.memory_program(_PROGRAMS)
            _be_deaf()
            trampoline.execute(program, [_NAME, paths.run()], {})
    except (OSError, WherryError) as error:
        socket.send(f"!{getattr(error, 'errno', 0) or 0} {error}".encode())
    finally:
        os._exit(1)


def _be_deaf() -> None:
    """Hold nothing of the command, and hear nothing from its terminal."""
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    close_range(3, 0x7FFFFFFF, c.CLOSE_RANGE_CLOEXEC)
    for number in signals.valid_signals():
        if number not in (signals.SIGKILL, signals.SIGSTOP):
            signals.signal(number, signals.SIG_DFL)
    signals.pthread_sigmask(signals.SIG_SETMASK, [])


# ppoll(NULL, 0, NULL, NULL), for ever
_PROGRAMS = {
    "x86_64": lambda: bytes.fromhex(
        "31ff"        # wait: xor edi, edi
        "31f6"        # xor esi, esi
        "31d2"        # xor edx, edx
        "4531d2"      # xor r10d, r10d
        "b80f010000"  # mov eax, 271
        "0f05"        # syscall
        "ebee"        # jmp wait
    ),
    "aarch64": lambda: struct.pack(
        "<7I",
        0xAA1F03E0,  # wait: mov x0, xzr
        0xAA1F03E1,  # mov x1, xzr
        0xAA1F03E2,  # mov x2, xzr
        0xAA1F03E3,  # mov x3, xzr
        0x52800928,  # mov w8, #73
        0xD4000001,  # svc #0
        0x17FFFFFA,  # b wait
    ),
}  # fmt: skip


# ---- the way out of it ----


def _connect(pid: int) -> Record:
    return helpers.start(
        helpers.Task(
            pid=pid,
            pid_file=_path("namespace.pid"),
            log=_path("namespace.log"),
            lasting=True,
            interface="outside",
            address=_ADDRESS,
            gateway=_GATEWAY,
        )
    )


def host_address() -> str:
    """The address of the host that others know; "" where it is on no network."""
    probe = sockets.socket(sockets.AF_INET, sockets.SOCK_DGRAM | sockets.SOCK_CLOEXEC)
    try:
        probe.connect(("198.51.100.1", 9))  # nothing is sent
        return str(probe.getsockname()[0])
    except OSError:
        return ""
    finally:
        probe.close()
