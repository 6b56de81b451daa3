"""The commands of `wherry oci`, with runc's options and output."""

from __future__ import annotations

import os
import sys

from wherry.cli.grammar import argument, command, option
from wherry.container.signals import read_signal
from wherry.errors import Conflict, UsageError, WherryError
from wherry.files import read_json, write_asked
from wherry.lean import dump_json, load_json, sockets
from wherry_linux.cgroups import Cgroup
from wherry_linux.oci.shape import PROCESS, RESOURCES, check_shape
from wherry_linux.processes import in_same_pid_namespace
from wherry_linux.runtime import frozen_spec, load_spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.grammar import Declaration
    from wherry.oci.runtime_spec import Capabilities, LinuxResources, Process, Spec
    from wherry_linux.creation import Created
    from wherry_linux.oci.session import Session

_ID = argument("container_id", metavar="CONTAINER-ID")
_BUNDLE = option("-b", "--bundle", default=".", metavar="directory", help="The bundle's directory")
_CONSOLE_SOCKET = option(
    "--console-socket",
    metavar="path",
    help="UNIX socket that gets the master side of the container's terminal",
)
_PID_FILE = option("--pid-file", metavar="file", help="Write the process id to this file")
_PRESERVE = option(
    "--preserve-fds",
    type=int,
    metavar="int",
    help="Descriptors after standard error (and LISTEN_FDS) that the program keeps",
)
_CREATION = (
    _BUNDLE,
    _CONSOLE_SOCKET,
    option("--no-new-keyring", type=bool, help="Keep the caller's session keyring"),
    option("--no-pivot", type=bool, help="Enter the root by chroot, for one on a ramdisk"),
    _PID_FILE,
    _PRESERVE,
    _ID,
)


@command(*_CREATION)
def create(session: Session, container_id: str, **options: Any) -> int:
    """Make a container from a bundle; its program waits for start"""
    created = _create(session, container_id, foreground=False, **options)
    created.channel.close()
    return 0


@command(
    option("-d", "--detach", type=bool, help="Return once the program runs"),
    option("--keep", type=bool, help="Do not delete the container at its end"),
    *_CREATION,
)
def run(session: Session, container_id: str, detach: bool, keep: bool, **options: Any) -> int:
    """Create a container and start it"""
    created = _create(session, container_id, foreground=not detach, **options)
    try:
        session.runtime.start(container_id)
        created.started()
        if detach:
            return 0
        return _attend(created)
    except BaseException:
        keep = False
        raise
    finally:
        if (not detach and not keep) or sys.exc_info()[0] is not None:
            session.runtime.delete(container_id, force=True)


def _attend(created: Created) -> int:
    """Pass signals and the terminal on until the program ends; its exit code."""
    from wherry_linux.joining import exit_code, forward_signals

    forward_signals(created.pid)
    if created.terminal >= 0:
        _relay(created.terminal)
    return exit_code(created.pid)


def _relay(master: int) -> None:
    from wherry.engine.session import relay_terminal

    relay_terminal(master, stdin=True)
    os.close(master)


def _create(
    session: Session,
    container_id: str,
    *,
    foreground: bool,
    bundle: str,
    console_socket: str,
    no_new_keyring: bool,
    no_pivot: bool,
    pid_file: str,
    preserve_fds: int,
) -> Created:
    preserve = _preserved(preserve_fds)
    spec = load_spec(bundle)
    has_terminal = bool(spec["process"].get("terminal"))
    _check_console(has_terminal, console_socket, foreground=foreground)
    session.fit_to_host(spec, container_id)
    return session.runtime.create(
        container_id,
        bundle,
        spec=spec,
        console_socket=_connect(console_socket) if console_socket else None,
        pid_file=os.path.abspath(pid_file) if pid_file else None,
        preserve=preserve,
        new_keyring=not no_new_keyring,
        pivot=not no_pivot,
        supervise=foreground,
        freeze=True,
    )


def _check_console(has_terminal: bool, console_socket: str, *, foreground: bool) -> None:
    if has_terminal and not console_socket and not foreground:
        raise UsageError("cannot allocate a terminal: nobody takes it without --console-socket")
    if console_socket and not has_terminal:
        raise UsageError("--console-socket serves only where process.terminal is true")


def _connect(path: str) -> Any:
    socket = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM | sockets.SOCK_CLOEXEC)
    try:
        socket.connect(path)
    except OSError as error:
        raise WherryError(f"cannot connect to console socket {path}: {error.strerror}") from error
    return socket


def _preserved(more: int) -> int:
    """How many descriptors beyond standard error the program keeps; the others close now."""
    if more < 0:
        raise UsageError(f"--preserve-fds cannot be {more}")
    listening = os.environ.get("LISTEN_FDS", "")
    count = more + (int(listening) if listening.isdigit() else 0)
    for descriptor in range(3, 3 + count):
        try:
            os.fstat(descriptor)
        except OSError:
            raise UsageError(f"preserved descriptor {descriptor} is not open") from None
    os.closerange(3 + count, 0x7FFFFFFF)
    return count


@command(_ID)
def start(session: Session, container_id: str) -> int:
    """Run a created container's program"""
    session.runtime.start(container_id)
    return 0


@command(_ID)
def state(session: Session, container_id: str) -> int:
    """Show a container's state"""
    runtime = session.runtime
    record = runtime.record(container_id)
    shown = {
        "pid": 0,
        **runtime.state(container_id),
        "rootfs": record["rootfs"],
        "created": _timestamp(record["created"]),
        "owner": _owner(record["owner"]),
    }
    print(_indented(shown))
    return 0


def _indented(document: Any) -> str:
    import json

    return json.dumps(document, indent=2)


def _timestamp(seconds: float) -> str:
    import time

    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1e9):09}Z"


def _owner(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


@command(
    option("-a", "--all", type=bool, help="Every process of the container"),
    _ID,
    argument("signal", required=False),
)
def kill(session: Session, container_id: str, signal: str, all: bool) -> int:  # noqa: A002
    """Send a signal to a container's first process"""
    session.runtime.kill(container_id, read_signal(signal or "TERM"), everyone=all)
    return 0


@command(option("-f", "--force", type=bool, help="Kill what still runs"), _ID)
def delete(session: Session, container_id: str, force: bool) -> int:
    """Remove what a container needed"""
    session.runtime.delete(container_id, force=force)
    return 0


@command(
    option("-g", "--additional-gids", type=int, multiple=True, name="groups", metavar="int",
           help="More groups"),
    option("--apparmor", metavar="string", help="AppArmor profile"),
    option("-c", "--cap", multiple=True, metavar="string", help="More capabilities"),
    option("--cgroup", metavar="path", help="A group below the container's own"),
    _CONSOLE_SOCKET,
    option("-w", "--cwd", metavar="directory", help="Working directory"),
    option("-d", "--detach", type=bool, help="Return once the program runs"),
    option("-e", "--env", multiple=True, metavar="string", help="More variables"),
    option("--ignore-paused", type=bool, help="Wait in a paused container"),
    option("--no-new-privs", type=bool, help="Set no_new_privs"),
    _PID_FILE,
    _PRESERVE,
    option("-p", "--process", metavar="file", help="process.json with everything"),
    option("--process-label", metavar="string", help="SELinux label"),
    option("-t", "--tty", type=bool, help="With a terminal"),
    option("-u", "--user", metavar="uid[:gid]", help="As this user"),
    _ID,
    argument("words", nargs=-1, required=False, metavar="COMMAND"),
    interspersed=False,
    name="exec",
)  # fmt: skip
def exec_(
    session: Session,
    container_id: str,
    words: tuple[str, ...],
    process: str,
    console_socket: str,
    detach: bool,
    ignore_paused: bool,
    pid_file: str,
    preserve_fds: int,
    cgroup: str,
    **changes: Any,
) -> int:
    """Run one more program in a container"""
    from wherry_linux.joining import execute

    preserve = _preserved(preserve_fds)
    spec = frozen_spec(session.runtime.record(container_id))
    if process:
        wanted: Process = _read_process(process)
    else:
        if not words:
            raise UsageError("'wherry oci exec' needs a command, or --process with one")
        wanted = _changed_process(spec["process"], words, **changes)
    _check_console(bool(wanted.get("terminal")), console_socket, foreground=not detach)

    def started(pid: int) -> None:
        if pid_file:
            write_asked(pid_file, str(pid).encode())

    return execute(
        session.runtime,
        container_id,
        wanted,
        detach=detach,
        on_terminal=None if detach else _relay,
        on_started=started,
        preserve=preserve,
        console_socket=_connect(console_socket) if console_socket else None,
        ignore_paused=ignore_paused,
        below=cgroup,
        forward=True,
    )


def _read_process(path: str) -> Process:
    try:
        process: Process = read_json(path)
    except FileNotFoundError:
        raise WherryError(f"{path} does not exist") from None
    check_shape(process, PROCESS, path)
    if not process.get("args"):
        raise UsageError(f"{path}: args is missing")
    if not process.get("cwd", "").startswith("/"):
        raise UsageError(f"{path}: cwd is not an absolute path")
    process.setdefault("user", {})
    return process


def _changed_process(
    base: Process,
    words: tuple[str, ...],
    *,
    groups: tuple[int, ...],
    apparmor: str,
    cap: tuple[str, ...],
    cwd: str,
    env: tuple[str, ...],
    no_new_privs: bool,
    process_label: str,
    tty: bool,
    user: str,
) -> Process:
    """The container's own process, as far as the command line does not say otherwise."""
    process: Process = {**base, "args": list(words), "terminal": tty}
    process.pop("consoleSize", None)
    process["env"] = [*(base.get("env") or []), *env]
    process["user"] = {**base["user"]}
    if cwd:
        process["cwd"] = cwd
    if apparmor:
        process["apparmorProfile"] = apparmor
    if process_label:
        process["selinuxLabel"] = process_label
    if no_new_privs:
        process["noNewPrivileges"] = True
    if user:
        uid, _, gid = user.partition(":")
        if not uid.isdigit() or (gid and not gid.isdigit()):
            raise UsageError(f"invalid user {user!r}", hint="it reads UID or UID:GID, in numbers")
        process["user"]["uid"] = int(uid)
        if gid:
            process["user"]["gid"] = int(gid)
    if groups:
        process["user"]["additionalGids"] = [
            *(base["user"].get("additionalGids") or []),
            *groups,
        ]
    if cap:
        process["capabilities"] = _with_capabilities(base.get("capabilities") or {}, cap)
    return process


def _with_capabilities(base: Capabilities, names: tuple[str, ...]) -> Capabilities:
    from wherry.container.capabilities import normalize

    wanted = [normalize(name) for name in names]

    def extended(present: list[str] | None) -> list[str]:
        return list(dict.fromkeys([*(present or []), *wanted]))

    return {
        **base,
        "bounding": extended(base.get("bounding")),
        "effective": extended(base.get("effective")),
        "permitted": extended(base.get("permitted")),
    }


@command(
    option("-f", "--format", choices=("table", "json"), default="table", metavar="string",
           help='"table" or "json"'),
    option("-q", "--quiet", type=bool, help="The ids alone"),
    name="list",
)  # fmt: skip
def list_(session: Session, format: str, quiet: bool) -> int:  # noqa: A002
    """List the containers"""
    runtime = session.runtime
    ids = runtime.containers()
    if quiet:
        print(*ids, sep="\n", end="\n" if ids else "")
        return 0
    shown = []
    for container_id in ids:
        try:
            record = runtime.record(container_id)
        except WherryError:
            continue  # being made or removed as we look
        found = runtime.state(container_id)
        shown.append(
            {
                "ociVersion": found["ociVersion"],
                "id": container_id,
                "pid": found.get("pid", 0),
                "status": found["status"],
                "bundle": found["bundle"],
                "rootfs": record["rootfs"],
                "created": _timestamp(record["created"]),
                "annotations": found["annotations"],
                "owner": _owner(record["owner"]),
            }
        )
    if format == "json":
        print(dump_json(shown))
        return 0
    keys = ("id", "pid", "status", "bundle", "created", "owner")
    _print_table(
        [[key.upper() for key in keys], *([str(row[key]) for key in keys] for row in shown)]
    )
    return 0


def _print_table(rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("   ".join(cells).rstrip())


@command(
    option("-f", "--format", choices=("table", "json"), default="table", metavar="string",
           help='"table" or "json"'),
    _ID,
    argument("ps_options", nargs=-1, required=False, metavar="PS-OPTIONS"),
    interspersed=False,
)  # fmt: skip
def ps(session: Session, container_id: str, ps_options: tuple[str, ...], format: str) -> int:  # noqa: A002
    """List a container's processes"""
    record = session.runtime.record(container_id)
    if record["cgroup"]:
        pids = Cgroup(record["cgroup"]).processes()
    else:
        pids = in_same_pid_namespace(record["pid"])
    if format == "json":
        print(dump_json(pids))
        return 0
    import subprocess

    try:
        listing = subprocess.run(
            ["ps", *(ps_options or ("-ef",))], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise WherryError("ps is not installed", hint="--format json needs no program") from None
    if listing.returncode:
        raise UsageError(f"ps: {listing.stderr.strip()}")
    title, *lines = listing.stdout.splitlines()
    if "PID" not in title.split():
        raise UsageError("ps printed no PID column", hint="ask for one with -o pid,…")
    column = title.split().index("PID")
    print(title)
    for line in lines:
        if int(line.split()[column]) in pids:
            print(line)
    return 0


@command(_ID)
def pause(session: Session, container_id: str) -> int:
    """Freeze a container's processes"""
    session.runtime.pause(container_id)
    return 0


@command(_ID)
def resume(session: Session, container_id: str) -> int:
    """Let a paused container go on"""
    session.runtime.resume(container_id)
    return 0


_LIMITS = {
    "blkio_weight": ("blockIO", "weight"),
    "cpu_burst": ("cpu", "burst"),
    "cpu_period": ("cpu", "period"),
    "cpu_quota": ("cpu", "quota"),
    "cpu_rt_period": ("cpu", "realtimePeriod"),
    "cpu_rt_runtime": ("cpu", "realtimeRuntime"),
    "cpu_share": ("cpu", "shares"),
    "cpu_idle": ("cpu", "idle"),
    "cpuset_cpus": ("cpu", "cpus"),
    "cpuset_mems": ("cpu", "mems"),
    "memory": ("memory", "limit"),
    "memory_reservation": ("memory", "reservation"),
    "memory_swap": ("memory", "swap"),
    "pids_limit": ("pids", "limit"),
}


def _limit_option(name: str) -> Any:
    flag = "--" + name.replace("_", "-")
    if name.startswith("cpuset"):
        return option(flag, default=None, metavar="string", help=f"cgroup's {name}")
    section, key = _LIMITS[name]
    return option(
        flag, type=int, default=None, metavar="int", help=f"linux.resources.{section}.{key}"
    )


@command(
    *map(_limit_option, _LIMITS),
    option("-r", "--resources", metavar="file",
           help="linux.resources as JSON, from a file or - for standard input"),
    _ID,
)  # fmt: skip
def update(session: Session, container_id: str, resources: str, **limits: Any) -> int:
    """Change what a container may use"""
    record = session.runtime.record(container_id)
    if session.runtime.status(record) == "stopped":
        raise Conflict(f"cannot update container {container_id}: it is stopped")
    if resources:
        wanted: LinuxResources = _read_resources(resources)
    else:
        chosen: dict[str, dict[str, Any]] = {}
        for name, value in limits.items():
            if value is not None:
                section, key = _LIMITS[name]
                chosen.setdefault(section, {})[key] = value
        wanted = chosen  # type: ignore[assignment]
    if not record["cgroup"]:
        raise Conflict(f"cannot update container {container_id}: it has no control group")
    memory = wanted.get("memory") or {}
    if memory.get("swap") and not memory.get("limit"):
        # `swap` is both together, so that it means nothing without the limit there is.
        resources_then = frozen_spec(record)["linux"].get("resources") or {}
        memory["limit"] = (resources_then.get("memory") or {}).get("limit") or 0
    session.runtime.update(container_id, wanted)
    return 0


def _read_resources(path: str) -> LinuxResources:
    try:
        if path == "-":
            text = sys.stdin.read()
        else:
            with open(path) as file:
                text = file.read()
        found: LinuxResources = load_json(text)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read resources from {path}: {error}") from error
    check_shape(found, RESOURCES, "standard input" if path == "-" else path)
    return found


@command(
    _BUNDLE,
    option("--rootless", type=bool, help="For a user without root's rights"),
)
def spec(session: Session, bundle: str, rootless: bool) -> int:  # noqa: ARG001
    """Write a config.json to begin with"""
    from wherry_linux.oci.template import default_spec

    path = os.path.join(bundle, "config.json")
    if os.path.exists(path):
        raise Conflict(f"{path} exists already", hint="move it away first")
    document: Spec = default_spec(rootless=rootless)
    write_asked(path, (_indented(document) + "\n").encode())
    return 0


@command(
    option("--interval", default="5s", metavar="duration", help="Time between two lines"),
    option("--stats", type=bool, help="Show one line and end"),
    _ID,
)
def events(session: Session, container_id: str, interval: str, stats: bool) -> int:
    """Show what a container uses"""
    from wherry.words import read_duration
    from wherry_linux.oci.events import show

    try:
        seconds = read_duration(interval) / 1e9
    except ValueError as error:
        raise UsageError(f"--interval: {error}") from error
    if seconds <= 0:
        raise UsageError(f"--interval {interval} is not greater than zero")
    return show(session.runtime, container_id, interval=seconds, once=stats)


@command()
def features(session: Session) -> int:  # noqa: ARG001
    """Show what the runtime can do here"""
    from wherry_linux.oci.features import document

    print(_indented(document()))
    return 0


COMMANDS: dict[str, Declaration] = {
    declaration.path[-1]: declaration
    for declaration in (
        create, delete, events, exec_, features, kill, list_, pause, ps, resume, run, spec, start,
        state, update,
    )
}  # fmt: skip
