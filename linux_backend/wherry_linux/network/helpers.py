"""The process that speaks for a network namespace on the host's sockets, without root.

pasta(1) where it is installed, slirp4netns(1) otherwise. It makes an interface in the
namespace, which lives as long as it does; whoever clears up ends it by its record.
"""

from __future__ import annotations

import os
import select

from wherry.errors import Unsupported, WherryError
from wherry.files import remove_file
from wherry.lean import signals
from wherry.values import value
from wherry_linux.idmap import find_program
from wherry_linux.processes import is_alive, signal, start_time, wait_gone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Record = dict[str, Any]

_HINT = "--network host and --network none need no helper"


@value
class Task:
    """What a helper has to do."""

    # The process whose network namespace it is.
    pid: int
    # Where its pid is written, before anybody else can know it, and what it says.
    pid_file: str
    log: str
    # The ports for datagrams that it publishes of the namespace (wherry_linux.network.publishing);
    # only pasta can.
    published: Sequence[dict[str, Any]] = ()
    # Whether it outlives this process.
    lasting: bool = False
    # The interface that it makes; "" for the name of the host's.
    interface: str = ""
    # The namespace's address and that of the way out of it, instead of the host's.
    address: str = ""
    gateway: str = ""


def start(task: Task) -> Record:
    """Connect a network namespace; returns once the interface is up.

    The record of the helper is what `end` takes.
    """
    end_forgotten(task.pid_file)
    tie = -1
    if program := find_program("pasta"):
        helper = _pasta(program, task)
    elif program := find_program("slirp4netns"):
        helper, tie = _slirp(program, task)
    else:
        raise Unsupported(
            "cannot connect the container to a network: neither pasta nor slirp4netns is installed",
            hint="install the package passt, or use --network host or --network none",
        )
    return {
        "pid": helper,
        "startTime": start_time(helper),
        # What this process holds, whose end is the helper's.
        "tie": tie,
        "holder": [os.getpid(), start_time(os.getpid())],
    }


def publishes() -> bool:
    """Whether the helper that is here publishes ports."""
    return find_program("pasta") is not None


def is_running(record: Record) -> bool:
    return is_alive(record["pid"], record["startTime"] or 0)


def end(record: Record) -> None:
    """End a helper. Safe to call twice."""
    signal(record["pid"], record["startTime"] or 0, signals.SIGKILL)
    try:
        os.waitpid(record["pid"], 0)
    except ChildProcessError:
        wait_gone(record["pid"], record["startTime"] or 0, 10)
    if record["tie"] >= 0 and record["holder"] == [os.getpid(), start_time(os.getpid())]:
        os.close(record["tie"])


def end_forgotten(pid_file: str) -> None:
    """End the helper of somebody who was killed before he could note it."""
    try:
        with open(pid_file) as file:
            pid = int(file.read())
        with open(f"/proc/{pid}/cmdline", "rb") as words:
            if pid_file.encode() in words.read().split(b"\0"):
                signal(pid, start_time(pid) or 0, signals.SIGKILL)
    except (OSError, ValueError):
        pass
    remove_file(pid_file)


def _pasta(program: str, task: Task) -> int:
    arguments = [
        program,
        "--config-net",
        "--quiet",
        "--no-map-gw",
        "--pid",
        task.pid_file,
        *(["--runas", "0:0"] if os.geteuid() == 0 else []),
        *(["--ns-ifname", task.interface] if task.interface else []),
        *(_addresses(task) if task.address else []),
        *_pasta_ports(task.published),
    ]
    # pasta goes into the background once everything is set up.
    if _shares_users(task.pid):
        # In our own user namespace pasta gives up what opening /proc/PID/ns/net takes.
        namespace = os.open(f"/proc/{task.pid}/ns/net", os.O_RDONLY)
        os.set_inheritable(namespace, True)
        try:
            arguments += ["--netns-only", "--netns", f"/proc/self/fd/{namespace}"]
            helper = _spawn(arguments, task)
        finally:
            os.close(namespace)
    else:
        helper = _spawn([*arguments, str(task.pid)], task)
    if os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1]) != 0:
        raise WherryError(
            f"cannot connect the container to a network: pasta: {_last_words(task)}", hint=_HINT
        )
    with open(task.pid_file) as file:
        return int(file.read())


def _addresses(task: Task) -> list[str]:
    return ["--address", task.address, "--netmask", "24", "--gateway", task.gateway]


def _shares_users(pid: int) -> bool:
    """Whether a process is in our own user namespace."""
    return os.readlink(f"/proc/{pid}/ns/user") == os.readlink("/proc/self/ns/user")


def _pasta_ports(published: Sequence[dict[str, Any]]) -> list[str]:
    options = []
    for each in published:
        number = each["Port"].partition("/")[0]
        options += ["-u", f"{each['Place']}/{each['HostPort']}:{number}"]
    # Nothing on the host's loopback is the container's to reach.
    return [*(options or ["-u", "none"]), "-t", "none", "-T", "none", "-U", "none"]


def _slirp(program: str, task: Task) -> tuple[int, int]:
    """The pid of slirp4netns, and the descriptor that it ends with; -1 where it does not."""
    ready_read, ready_write = os.pipe()
    os.set_inheritable(ready_write, True)
    # It ends when the other end closes, which is when this process does. That may execute
    # another interpreter before (wherry_linux.handover); containers' programs get neither.
    exit_read, exit_write = (-1, -1) if task.lasting else os.pipe()
    if exit_read >= 0:
        os.set_inheritable(exit_read, True)
    try:
        helper = _spawn(
            [
                program,
                "--configure",
                "--mtu=65520",
                "--disable-host-loopback",
                f"--ready-fd={ready_write}",
                *([] if task.lasting else [f"--exit-fd={exit_read}"]),
                f"--userns-path=/proc/{task.pid}/ns/user",
                *(["--cidr", f"{task.gateway.rpartition('.')[0]}.0/24"] if task.address else []),
                str(task.pid),
                task.interface or "tap0",
            ],
            task,
        )
    finally:
        _close(ready_write, exit_read)
    poll = select.poll()
    poll.register(ready_read, select.POLLIN | select.POLLHUP)
    is_ready = bool(poll.poll(10_000)) and os.read(ready_read, 1)
    os.close(ready_read)
    if not is_ready:
        _close(exit_write)
        os.kill(helper, 9)
        os.waitpid(helper, 0)
        raise WherryError(
            f"cannot connect the container to a network: slirp4netns: {_last_words(task)}",
            hint=_HINT,
        )
    if exit_write >= 0:
        os.set_inheritable(exit_write, True)
    return helper, exit_write


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        if descriptor >= 0:
            os.close(descriptor)


def _spawn(arguments: list[str], task: Task) -> int:
    """Start a helper that writes to its log; its pid."""
    log = os.open(task.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
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


def _last_words(task: Task) -> str:
    with open(task.log, errors="replace") as file:
        lines = [line.strip() for line in file if line.strip()]
    return lines[-1] if lines else "no message"
