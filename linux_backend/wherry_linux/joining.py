"""One more process in a running container: `exec`, `wherry oci exec`, health checks."""

from __future__ import annotations

import errno
import os
import posixpath

from wherry.errors import Conflict, KernelError, WherryError
from wherry.forked import start
from wherry.lean import dump_json, signals
from wherry.oci import GROUPS_ANNOTATION, KEEP_GROUPS_ANNOTATION, USER_ANNOTATION
from wherry_linux import console
from wherry_linux.cgroups import Cgroup, own_path
from wherry_linux.channel import Channel
from wherry_linux.check import check_process, read_numbers
from wherry_linux.idmap import read_users, root_of
from wherry_linux.namespaces import KINDS, open_namespace, outer_users
from wherry_linux.process import (
    become,
    become_root,
    enter_directory,
    environment,
    exec_error,
    find_executable,
    forbid_imports,
    give_pipe,
    hide,
    keeps_groups,
    open_label,
    prepare_to_execute,
    replace_null,
    resolve_identity,
    set_label,
    set_limits,
    set_memory_policy,
    set_personality,
    set_scheduling,
)
from wherry_linux.process import (
    execute as execute_program,
)
from wherry_linux.runtime import frozen_spec
from wherry_linux.syscalls import close_range, libc, setns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn

    from wherry.oci.runtime_spec import Process, Spec
    from wherry_linux.runtime import Runtime


def execute(
    runtime: Runtime,
    container_id: str,
    process: Process,
    *,
    user: str | None = None,
    detach: bool = False,
    stdin: bool = True,
    stdio: tuple[int, int, int] | None = None,
    given: Sequence[int] = (),
    on_terminal: Callable[[int], object] | None = None,
    on_started: Callable[[int], None] | None = None,
    preserve: int = 0,
    console_socket: Any = None,
    ignore_paused: bool = False,
    below: str = "",
    forward: bool = False,
) -> int:
    """Run `process` in a container; its exit code, or 0 at once with `detach`.

    `user` is looked up in the container; without it `process["user"]` has numbers. The user
    becomes the owner of the pipes that are `given`.
    With `process["terminal"]` the process gets a new terminal of the container, and
    `on_terminal` its master side, to relay until it returns (true: the user has left it), or
    `console_socket` in runc's way; `on_started` gets the pid. `below` names a group in the
    container's own.
    `forward` passes our signals on. Raises what kept the program from running.
    """
    record = runtime.record(container_id)
    _require_running(container_id, runtime.status(record), ignore_paused=ignore_paused)
    spec = frozen_spec(record)
    check_process(process)
    if spec["linux"].get("seccomp"):
        from wherry_linux import seccomp

        seccomp.prepare(spec["linux"]["seccomp"])
    ours, theirs = Channel.pair()
    opened = _open_namespaces(record["pid"], spec)
    cgroup = Cgroup(posixpath.join(record["cgroup"], below)) if record["cgroup"] else None

    def join() -> None:
        ours.close()
        try:
            _join(
                record, spec, process, user, opened, theirs, stdin, stdio, given, preserve,
                console_socket, detach,
            )  # fmt: skip
        except BaseException as error:
            theirs.send_error(error)
            raise

    child = start(join) if cgroup is None else _start_in(cgroup, record["pid"], join)
    theirs.close()
    for _, descriptor in opened:
        os.close(descriptor)
    terminal = -1
    try:
        has_console = bool(process.get("terminal")) and console_socket is None
        pid, terminal, number = _await_program(ours, has_console)
        if number:
            raise exec_error(process["args"][0], number)
        if on_started is not None:
            on_started(pid)
    except BaseException:
        os.waitpid(child, 0)
        raise
    finally:
        ours.close()
    if detach:
        os.waitpid(child, 0)
        if terminal >= 0:
            os.close(terminal)
        return 0
    if forward:
        forward_signals(child)
    if terminal >= 0 and on_terminal is not None and _relay(terminal, child, on_terminal):
        return 0
    return exit_code(child)


def _require_running(container_id: str, status: str, *, ignore_paused: bool) -> None:
    if status == "paused" and not ignore_paused:
        raise Conflict(f"container {container_id[:12]} is paused", hint="unpause it before exec")
    if status not in ("running", "paused"):
        raise Conflict(f"container {container_id[:12]} is not running")


def _relay(terminal: int, child: int, on_terminal: Callable[[int], object]) -> bool:
    """Have a terminal relayed, and close it; whether the user has left it."""
    was_left = bool(on_terminal(terminal))
    if was_left:
        console.hold(terminal)
        # What hangs up on us from now on is not meant for the program.
        os.setpgid(child, child)
    os.close(terminal)
    return was_left


def _start_in(cgroup: Cgroup, first: int, function: Callable[[], object]) -> int:
    """A child in the container's group that calls `function`.

    A container that divides its group further, as systemd does, leaves no room for a
    process in the group itself: where its first process is, there is some.
    """
    try:
        return cgroup.start(function)
    except KernelError as error:
        path = own_path(first)
        if error.errno != errno.EBUSY or not path.startswith(f"{cgroup.path.rstrip('/')}/"):
            raise
        return Cgroup(path).start(function)


def _await_program(channel: Channel, has_console: bool) -> tuple[int, int, int]:
    """The pid, the terminal, and the errno of execve(2), 0 where the program runs.

    They come from two processes, in any order before the end.
    """
    pid, terminal = 0, -1
    while True:
        message, descriptor = channel.receive()
        if "errno" in message:
            return pid, terminal, message["errno"]
        if "pid" in message:
            pid = message["pid"]
        elif "console" in message:
            terminal = descriptor
        elif not pid or (has_console and terminal < 0):
            raise WherryError("the process in the container ended before it was ready")
        else:
            return pid, terminal, 0


def exit_code(child: int) -> int:
    """Wait for the end of `child`; 128 and the signal's number where one ended it."""
    while True:
        try:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            break
        except InterruptedError:
            continue
    return 128 - code if code < 0 else code


def _open_namespaces(pid: int, spec: Spec) -> list[tuple[str, int]]:
    """The container's namespaces other than ours, the user namespace first."""
    kinds = {namespace["type"] for namespace in spec["linux"].get("namespaces") or []}
    kinds.add("mount")
    opened: list[tuple[str, int]] = []
    for kind, (_, name) in KINDS.items():
        if kind not in kinds:
            continue
        opened.append((kind, open_namespace(f"/proc/{pid}/ns/{name}")))
    return opened


def _join(
    record: dict[str, Any],
    spec: Spec,
    process: Process,
    user: str | None,
    opened: list[tuple[str, int]],
    channel: Channel,
    stdin: bool,
    stdio: tuple[int, int, int] | None,
    given: Sequence[int],
    preserve: int,
    console_socket: Any,
    detach: bool,
) -> None:
    """In a forked child: enter the container and run the program in a child of that."""
    procfs = os.open("/proc", os.O_PATH | os.O_CLOEXEC)
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    _set_affinity(process)
    set_limits(process)
    set_scheduling(process)
    set_memory_policy(spec["linux"])
    hide()
    forbid_imports()
    annotations = spec.get("annotations") or {}
    _enter(opened, given, record["pid"], keeps_groups=keeps_groups(annotations))
    # A pid namespace is entered by children alone.
    pid = os.fork()
    if pid:
        _wait_outside(pid, channel, detach=detach)
    os.setsid()
    label = open_label(process, procfs)
    os.chdir("/")
    slave = _open_terminal(process, channel, console_socket) if process.get("terminal") else -1
    set_personality(spec["linux"].get("personality"))
    identity = resolve_identity(process, _notes_of_user(user, annotations))
    variables = environment(process, identity.home)
    executable = find_executable(process["args"], variables, process["cwd"])
    if slave >= 0:
        console.take(slave)
    else:
        for pipe in given:
            give_pipe(pipe, identity.uid)
        _take_streams(-1 if stdin else null, stdio)
    try:
        os.chdir(process["cwd"])
    except OSError:
        pass
    state = {"ociVersion": record["ociVersion"], "id": record["id"], "status": "running"}
    set_label(label, process)
    step = prepare_to_execute(preserve, channel.fileno())
    become(
        process,
        identity,
        spec["linux"].get("seccomp"),
        dump_json({**state, "pid": record["pid"], "bundle": record["bundle"]}),
    )
    enter_directory(process["cwd"])
    execute_program(step, executable, process["args"], variables)


def _enter(
    opened: list[tuple[str, int]], given: Sequence[int], first: int, *, keeps_groups: bool
) -> None:
    """Enter the namespaces of process `first`, and be root of them."""
    for kind, descriptor in opened:
        if kind == "user" and given:
            _give(given, descriptor, first)
        setns(descriptor, KINDS[kind][0])
        os.close(descriptor)
        if kind == "user":
            if not keeps_groups:
                libc.setgroups(0, None)
            become_root()


def _wait_outside(pid: int, channel: Channel, *, detach: bool) -> NoReturn:
    """Be the parent of the process in the container, whose exit code becomes ours."""
    channel.send({"pid": pid})
    channel.close()
    # Whoever waits for the end of a stream waits for the program, not for this process.
    close_range(0, 0x7FFFFFFF, 0)
    if detach:
        os._exit(0)  # its parent is now who asked to be, or the system's first process
    forward_signals(pid)
    os._exit(exit_code(pid))


def _notes_of_user(user: str | None, annotations: Mapping[str, str]) -> dict[str, str]:
    """What tells `resolve_identity` who the program is to be."""
    notes = {} if user is None else {USER_ANNOTATION: user}
    for name in (GROUPS_ANNOTATION, KEEP_GROUPS_ANNOTATION):
        if name in annotations:
            notes[name] = annotations[name]
    return notes


def _give(pipes: Sequence[int], users: int, pid: int) -> None:
    """Make root of the user namespace `users`, which process `pid` is in, the owner of pipes."""
    outer = outer_users(users)
    if outer >= 0 and os.geteuid() != 0:
        # Only root of that one may give what is ours to ids that are not.
        setns(outer, KINDS["user"][0])
        become_root()
    root = root_of(read_users(pid))
    for pipe in pipes:
        give_pipe(pipe, *root)
    if outer >= 0:
        os.close(outer)


def _set_affinity(process: Process) -> None:
    """`process.execCPUAffinity`: this process is in the container's group already."""
    affinity = process.get("execCPUAffinity") or {}
    wanted = affinity.get("final") or affinity.get("initial")
    if wanted:
        try:
            os.sched_setaffinity(0, read_numbers(wanted))
        except OSError as error:
            raise KernelError(
                f"cannot run on processors {wanted}: {error.strerror}", error.errno or 0
            ) from error


def forward_signals(pid: int) -> None:
    """Pass every signal that we get on to `pid`."""
    for number in range(1, signals.NSIG):
        if number not in (signals.SIGKILL, signals.SIGSTOP, signals.SIGCHLD, signals.SIGWINCH):
            try:
                signals.signal(number, lambda received, _: _pass_on(pid, received))
            except (OSError, ValueError):
                pass


def _pass_on(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _open_terminal(process: Process, channel: Channel, console_socket: Any) -> int:
    """A new terminal of the container's devpts, its master sent to who relays it."""
    found = os.open("/dev/ptmx", os.O_PATH | os.O_CLOEXEC)
    console.check_multiplexer(found)
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK)
    console.check_multiplexer(master)
    os.set_blocking(master, True)
    os.close(found)
    number = console.open_pair(master)
    size: Mapping[str, int] = process.get("consoleSize") or {}  # type: ignore[assignment]
    console.set_size(master, size.get("height", 0), size.get("width", 0))
    slave = console.open_slave(master)
    if console_socket is None:
        channel.send({"console": True}, master)
    else:
        console.hand_over(master, f"/dev/pts/{number}", console_socket)
    os.close(master)
    return slave


def _take_streams(null: int, stdio: tuple[int, int, int] | None) -> None:
    for target, source in enumerate(stdio or ()):
        os.dup2(source, target)
    if null >= 0:
        os.dup2(null, 0)
    replace_null()
