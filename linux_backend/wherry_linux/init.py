"""From a fork of the runtime to the container's first process: runtime-spec "Lifecycle".

    stage one   enters or makes the namespaces, and forks
    init        pid 1 of the new pid namespace: builds the root, waits for `start`,
                gives up what the program may not have, and becomes the program

Both report to the runtime over one Channel, which closes when the program runs. Between
`create` and `start` nobody is at its other end; what fails then is told on the container's
standard error.
"""

from __future__ import annotations

import os
import select

from wherry.errors import KernelError, NoUserNamespace, WherryError, as_ours
from wherry.lean import dump_json, sockets
from wherry.oci import ARCHITECTURE_ANNOTATION, INIT_ANNOTATION, MTAB_ANNOTATION
from wherry_linux import console, reaper
from wherry_linux import constants as c
from wherry_linux.idmap import open_users, read_users, root_of, within
from wherry_linux.mounts import fd_path, open_in_root
from wherry_linux.process import (
    become,
    become_root,
    enter_directory,
    environment,
    execute,
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
    set_memory_policy,
    set_personality,
    set_scheduling,
)
from wherry_linux.rootfs import (
    enter_root,
    make_devices,
    make_mount_table,
    make_readonly,
    make_root_readonly,
    make_working_directory,
    mask,
    mount_all,
    mount_root,
    share_root,
    write_sysctls,
)
from wherry_linux.syscalls import check, keyctl, libc, mount, prctl, setns, unshare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from wherry.oci.runtime_spec import IDMapping, LinuxTimeOffsets, Spec
    from wherry_linux.channel import Channel
    from wherry_linux.namespaces import Plan


class Launch:
    """How the runtime wants its container started, beside what the spec says."""

    def __init__(
        self,
        *,
        spec: Spec,
        state: dict[str, Any],
        fifo: str,
        plan: Plan,
        stdio: tuple[int, int, int] | None = None,
        console_socket: Any = None,
        preserve: int = 0,
        new_keyring: bool = True,
        pivot: bool = True,
        die_with_parent: bool = False,
        place: str = "",
        is_nested: bool = False,
    ) -> None:
        self.spec = spec
        self.state = state
        self.fifo = fifo
        self.plan = plan
        self.stdio = stdio
        self.console_socket = console_socket
        self.preserve = preserve
        self.new_keyring = new_keyring
        self.pivot = pivot
        self.die_with_parent = die_with_parent
        # A directory to stage mounts in; "" where there is nothing to stage.
        self.place = place
        # The first user namespace has the usual maps of who started us, and the container's
        # is in it: its root has no way through this user's directories.
        self.is_nested = is_nested
        # What `start` writes to, opened while the way there is still open to us.
        self.start = -1
        self.has_init = (spec.get("annotations") or {}).get(INIT_ANNOTATION) == "true"
        self.has_mount_table = MTAB_ANNOTATION in (spec.get("annotations") or {})
        self.emulate: Callable[[int], None] | None = None
        if "user" in plan.kinds and ARCHITECTURE_ANNOTATION in (spec.get("annotations") or {}):
            from wherry_linux.emulators import emulate

            self.emulate = emulate(spec["annotations"][ARCHITECTURE_ANNOTATION])
        self.run_hooks: Callable[..., None] | None = None
        if spec.get("hooks"):
            # Inside the container nothing can be imported any more.
            from wherry_linux.hooks import run_hooks

            self.run_hooks = run_hooks


def stage_one(launch: Launch, runtimes: Channel, channel: Channel) -> None:
    """The forked child of the runtime, whose end of the channel is closed here; never returns."""
    try:
        runtimes.close()
        _enter_namespaces(launch, channel)
        pid = os.fork()
        if pid:
            channel.send({"pid": pid})
            os._exit(0)
        _init(launch, channel)
    except BaseException as error:
        _report(error, channel)
    finally:
        os._exit(1)


def _report(error: BaseException, channel: Channel) -> None:
    if channel.has_peer():
        channel.send_error(error)
    else:
        os.write(2, f"wherry: {as_ours(error)}\n".encode(errors="replace"))


def _enter_namespaces(launch: Launch, channel: Channel) -> None:
    plan, linux = launch.plan, launch.spec["linux"]
    offsets = linux.get("timeOffsets")
    # Now: once its ids change, or it hides, a process may not open its own /proc to write.
    clocks = os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC) if offsets else -1
    if plan.has_company and not plan.makes("user"):
        # Otherwise nobody is there to look into us, and whoever writes our maps, or the
        # network's helper, has to find us.
        hide()
    launch.start = os.open(launch.fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    _give_streams(launch, _maps(launch.spec))
    if launch.place and not launch.is_nested:
        from wherry_linux.idmapped import stage

        stage(launch.spec, launch.place, plan.joined.get("user", -1))
    if launch.is_nested and plan.outer >= 0:
        setns(plan.outer, c.CLONE_NEWUSER)
        os.close(plan.outer)
    elif "user" in plan.joined:
        plan.join("user")
    elif plan.makes("user"):
        try:
            unshare(c.CLONE_NEWUSER)
        except KernelError as error:
            raise NoUserNamespace(
                error.message,
                error.errno,
                hint="`wherry doctor` tells what keeps this user from making user namespaces",
            ) from error
    # The runtime writes the maps.
    channel.send({"namespaces": True})
    channel.expect("go")
    if "user" in plan.kinds:
        _become_root(launch)
        if launch.is_nested:
            _nest(launch)
        if not plan.has_company:
            # A change of ids closes our own /proc to us. Nobody else is there to look.
            prctl(c.PR_SET_DUMPABLE, 1)
    for kind in list(plan.joined):
        plan.join(kind)
    # The control group that this process is in becomes the root of a new cgroup namespace.
    unshare(plan.flags & ~c.CLONE_NEWUSER)
    if offsets:
        _set_clocks(clocks, offsets)
    if plan.has_company:
        hide()


def _become_root(launch: Launch) -> None:
    if not keeps_groups(launch.spec.get("annotations") or {}):
        libc.setgroups(0, None)  # denied in a single-id namespace
    become_root()


def _nest(launch: Launch) -> None:
    """From this user's own namespace into the container's, with what is mounted in it."""
    from wherry_linux.idmapped import stage_all

    linux, plan = launch.spec["linux"], launch.plan
    if "user" in plan.joined:
        maps = _maps(launch.spec)  # as they are seen from here
    else:
        outer = read_users("self")
        maps = within(linux["uidMappings"], outer[0]), within(linux["gidMappings"], outer[1])
        plan.joined["user"] = open_users(*maps)
    _give_streams(launch, maps)
    stage_all(launch.spec, launch.place)
    plan.join("user")
    _become_root(launch)


def _give_streams(launch: Launch, maps: tuple[list[IDMapping], list[IDMapping]]) -> None:
    """Make the container's root the owner of our pipes: from inside it could not."""
    root = root_of(maps)
    if root[0] in (-1, os.geteuid()):
        return
    for descriptor in launch.stdio or (0, 1, 2):
        try:
            if os.fstat(descriptor).st_uid == os.geteuid():
                give_pipe(descriptor, *root)
        except OSError:
            pass  # closed


def _maps(spec: Spec) -> tuple[list[IDMapping], list[IDMapping]]:
    linux = spec["linux"]
    for namespace in linux["namespaces"]:
        path = namespace.get("path", "")
        if namespace["type"] == "user" and path.endswith("/ns/user"):
            return read_users(path.split("/")[-3])
    return linux.get("uidMappings") or [], linux.get("gidMappings") or []


def _set_clocks(clocks: int, offsets: LinuxTimeOffsets) -> None:
    """time_namespaces(7): the offsets are fixed once the first process enters.

    `clocks` is this process's timens_offsets.
    """
    lines = "".join(
        f"{clock} {offset.get('secs', 0)} {offset.get('nanosecs', 0)}\n"
        for clock, offset in (
            (clock, offsets[clock]) for clock in ("monotonic", "boottime") if clock in offsets
        )
    )
    try:
        os.write(clocks, lines.encode())
        os.close(clocks)
    except OSError as error:
        raise KernelError(
            f"cannot set the clock offsets: {error.strerror}",
            error.errno or 0,
            hint="an offset must not make a clock negative or reach beyond 146 years",
        ) from error


def _init(launch: Launch, channel: Channel) -> None:
    spec = launch.spec
    process, linux = spec["process"], spec["linux"]
    # Only now has the runtime adopted this process, and run its hooks.
    message, _ = channel.expect("go")
    launch.state["pid"] = message["pid"]
    os.setsid()
    os.umask(0o022)
    if launch.new_keyring:
        _new_keyring()
    _name_host(spec, launch.plan)
    if launch.plan.makes("network"):
        _raise_loopback()
    set_scheduling(process)
    set_memory_policy(linux)
    label = open_label(process, os.open("/proc", os.O_PATH | os.O_CLOEXEC))

    root = mount_root(spec)
    # Before anybody's directory may be mounted on /etc.
    if launch.has_mount_table:
        make_mount_table(root)
    mount_all(spec, root)
    if launch.emulate is not None:
        launch.emulate(root)
    make_devices(spec, root, bind="user" in launch.plan.kinds)
    if process.get("terminal"):
        terminal = _open_console(root, spec, launch, channel)
    _run_hooks(launch, "createContainer", "creating")
    forbid_imports()
    # As long as the host's /proc is there: it is what mounts by descriptor go through.
    write_sysctls(root, linux.get("sysctl") or {})
    make_working_directory(root, process["cwd"])
    make_root_readonly(spec, root)
    make_readonly(root, linux.get("readonlyPaths") or [])
    mask(root, linux.get("maskedPaths") or [])
    enter_root(root, pivot=launch.pivot)
    os.close(root)
    share_root(linux.get("rootfsPropagation") or "")
    set_personality(linux.get("personality"))

    identity = resolve_identity(process, spec.get("annotations") or {})
    variables = environment(process, identity.home)
    executable = find_executable(process["args"], variables, process["cwd"])
    if process.get("terminal"):
        # Now: containerd waits for the end of the streams that `create` was given.
        console.take(terminal)
    channel.send({"created": True})
    _wait_for_start(launch.start, channel if launch.die_with_parent else None)
    # Everything outside has found us by now; from here on others may come in.
    prctl(c.PR_SET_DUMPABLE, 0)

    _run_hooks(launch, "startContainer", "created")
    if not process.get("terminal"):
        _take_streams(launch, identity.uid)
    try:
        os.chdir(process["cwd"])
    except OSError:
        pass  # the user may be allowed where root of a user namespace is not
    set_label(label, process)
    complaints = "" if channel.has_peer() else executable
    step = prepare_to_execute(launch.preserve, channel.fileno(), complaints)
    program = reaper.make() if launch.has_init else -1
    become(process, identity, linux.get("seccomp"), dump_json(launch.state))
    enter_directory(process["cwd"])
    if launch.die_with_parent:
        _die_with(channel)
    if program >= 0:
        reaper.split(program, has_terminal=bool(process.get("terminal")))
    execute(step, executable, process["args"], variables)


def _wait_for_start(fifo: int, monitor: Channel | None) -> None:
    """Block until `start` writes to the fifo; readable without a writer means nothing.

    Ends this process if the `monitor` that it belongs to dies meanwhile.
    """
    poll = select.poll()
    poll.register(fifo, select.POLLIN)
    if monitor is not None:
        poll.register(monitor.fileno(), 0)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor != fifo:
                os._exit(1)
        try:
            if os.read(fifo, 1):
                return
        except BlockingIOError:
            continue


def _die_with(monitor: Channel) -> None:
    """From here on the end of the monitor is the end of this process."""
    # Every change of ids clears it, so this comes after the last one (prctl(2)).
    prctl(c.PR_SET_PDEATHSIG, 9)
    poll = select.poll()
    poll.register(monitor.fileno(), 0)
    if poll.poll(0):
        os._exit(1)  # it has ended just before


def _take_streams(launch: Launch, uid: int) -> None:
    for target, source in enumerate(launch.stdio or ()):
        os.dup2(source, target)
    replace_null()
    for descriptor in range(3):
        give_pipe(descriptor, uid)


def _new_keyring() -> None:
    try:
        keyctl(c.KEYCTL_JOIN_SESSION_KEYRING, None)
    except KernelError:
        pass  # a kernel without keyrings, or a filter around us that denies them


def _name_host(spec: Spec, plan: Plan) -> None:
    if "uts" not in plan.kinds:
        return
    try:
        if spec.get("hostname"):
            sockets.sethostname(spec["hostname"])
        if spec.get("domainname"):
            name = spec["domainname"].encode()
            check(libc.setdomainname(name, len(name)), f"set domain name {spec['domainname']}")
    except OSError as error:
        raise WherryError(f"cannot set hostname {spec['hostname']!r}: {error.strerror}") from error


def _raise_loopback() -> None:
    """A new network namespace has a loopback interface that is down (netdevice(7))."""
    import fcntl
    import struct

    siocsifflags, iff_up_running = 0x8914, 0x41
    socket = sockets.socket(sockets.AF_INET, sockets.SOCK_DGRAM | sockets.SOCK_CLOEXEC)
    try:
        fcntl.ioctl(socket.fileno(), siocsifflags, struct.pack("16sH14x", b"lo", iff_up_running))
    finally:
        socket.close()


def _open_console(root: int, spec: Spec, launch: Launch, channel: Channel) -> int:
    """A terminal of the container's own devpts; its master goes to the runtime's client."""
    found = open_in_root(root, "/dev/pts/ptmx")
    try:
        console.check_multiplexer(found)
        master = os.open(fd_path(found), os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    finally:
        os.close(found)
    number = console.open_pair(master)
    size: Mapping[str, int] = spec["process"].get("consoleSize") or {}  # type: ignore[assignment]
    console.set_size(master, size.get("height", 0), size.get("width", 0))
    slave = console.open_slave(master)
    target = open_in_root(root, "/dev/console", create="file")
    node = open_in_root(root, f"/dev/pts/{number}")
    if not os.path.samestat(os.fstat(node), os.fstat(slave)):
        raise WherryError("the container's /dev/pts is not its own")
    mount(fd_path(node), fd_path(target), "", c.MS_BIND)
    os.close(node)
    os.close(target)
    if launch.console_socket is None:
        channel.send({"console": True}, master)
    else:
        console.hand_over(master, f"/dev/pts/{number}", launch.console_socket)
    os.close(master)
    return slave


def _run_hooks(launch: Launch, kind: str, status: str) -> None:
    hooks = (launch.spec.get("hooks") or {}).get(kind)
    if hooks and launch.run_hooks is not None:
        launch.run_hooks(hooks, kind, {**launch.state, "status": status})
