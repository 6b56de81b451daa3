"""The last steps before a container's program: runtime-spec `process`.

Both the first process of a container and one that joins it later come this way.
"""

from __future__ import annotations

import ctypes
import errno
import os
import posixpath
import stat
import sys

from wherry.errors import CommandNotExecutable, CommandNotFound, KernelError, NotFound, WherryError
from wherry.lean import signals
from wherry.oci import (
    GROUPS_ANNOTATION,
    KEEP_GROUPS_ANNOTATION,
    PASSWD_ANNOTATION,
    USER_ANNOTATION,
)
from wherry_linux import capabilities, trampoline
from wherry_linux import constants as c
from wherry_linux.seccomp import install_profile
from wherry_linux.syscalls import close_range, ioprio_set, is_below_root, personality, prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from wherry.oci.runtime_spec import Linux, LinuxSeccomp, Process
    from wherry.oci.runtime_spec import LinuxPersonality as Personality

_LAST_ID = 0x7FFFFFFF


def forbid_imports() -> None:
    """From here on an import fails instead of running what a container put in our way.

    To be called before the container's root becomes ours, where every module that is
    still to be used has been imported.
    """
    sys.path.clear()
    sys.meta_path.clear()
    sys.path_hooks.clear()


def hide() -> None:
    """Let nobody in a namespace that this process is about to enter look into it.

    Without the first they could use its descriptors and its root directory, which is the
    host's (CVE-2016-9962); without the second they read what its caller has typed.
    """
    # proc(5), /proc/PID/stat: fields 48 and 49.
    with open("/proc/self/stat", "rb", buffering=0) as file:
        fields = file.read(4096).rpartition(b") ")[2].split()
    start, end = int(fields[45]), int(fields[46])
    ctypes.memset(start, 0, end - start)
    prctl(c.PR_SET_DUMPABLE, 0)


class Identity:
    """Who the program runs as."""

    def __init__(self, uid: int, gid: int, groups: list[int] | None, home: str) -> None:
        """`groups` of None are those that the process has."""
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home


def resolve_identity(process: Process, annotations: dict[str, str]) -> Identity:
    """The ids of `process`, names looked up in the container as docker does."""
    user = process["user"]
    uid, gid = user.get("uid", 0), user.get("gid", 0)
    groups = list(user.get("additionalGids") or [])
    wanted = annotations.get(USER_ANNOTATION)
    users = _entries("/etc/passwd", 7)
    if wanted is None:
        kept = None if keeps_groups(annotations) else groups
        return Identity(uid, gid, kept, _home(users, uid))
    name, _, group = wanted.partition(":")
    group_entries = _entries("/etc/group", 4)
    entry = _find(users, name or "0")
    if entry is not None:
        uid, gid = int(entry[2]), int(entry[3])
    else:
        uid, gid = _number(name or "0", "user"), 0
    if group:
        found = _find(group_entries, group)
        gid = int(found[2]) if found else _number(group, "group")
    elif entry is not None:
        member = entry[0]
        groups += [
            int(line[2])
            for line in group_entries
            if member in line[3].split(",") and int(line[2]) not in groups
        ]
    for extra in filter(None, annotations.get(GROUPS_ANNOTATION, "").split(",")):
        found = _find(group_entries, extra)
        groups.append(int(found[2]) if found else _number(extra, "group"))
    # A file that its group alone may not read is closed to who is in the group by its
    # primary one too: without it in the list, setgid(2) would get out of the group.
    if gid not in groups:
        groups.insert(0, gid)
    home = entry[5] if entry else _home(users, uid)
    if PASSWD_ANNOTATION in annotations and not any(line[2] == str(uid) for line in users):
        home = process["cwd"]
        _add_user(annotations[PASSWD_ANNOTATION] or str(uid), uid, gid, home)
    return Identity(uid, gid, None if keeps_groups(annotations) else groups, home)


def keeps_groups(annotations: Mapping[str, str]) -> bool:
    """Whether the groups of whoever runs the command are to be kept."""
    return annotations.get(KEEP_GROUPS_ANNOTATION) == "1"


def _add_user(name: str, uid: int, gid: int, home: str) -> None:
    """A line in the container's passwd(5), where it has one that can be written."""
    flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    clean = home.replace(":", "_").replace("\n", "_")
    try:
        descriptor = os.open("/etc/passwd", flags)
    except OSError:
        return  # a read-only root, or an image without users
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode):
        whole = not found.st_size or os.pread(descriptor, 1, found.st_size - 1) == b"\n"
        line = f"{name}:x:{uid}:{gid}:container user:{clean}:/bin/sh\n"
        os.write(descriptor, ("" if whole else "\n").encode() + line.encode())
    os.close(descriptor)


def _entries(path: str, fields: int) -> list[list[str]]:
    """The lines of passwd(5) or group(5) whose ids are numbers."""
    try:
        # The image decides what this file is: never wait for a fifo's writer.
        # Nor let a terminal become ours: a session leader's first one would.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        descriptor = os.open(path, flags)
    except OSError:
        return []
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return []
        lines = file.read(4 << 20).decode(errors="replace").split("\n")
    entries = []
    for line in lines:
        entry = line.split(":")
        entry += [""] * (fields - len(entry))
        if _is_id(entry[2]) and (fields == 4 or _is_id(entry[3])):
            entries.append(entry)
    return entries


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 11 and int(text) <= _LAST_ID


def _find(entries: list[list[str]], wanted: str) -> list[str] | None:
    """By name first, then by number."""
    for entry in entries:
        if entry[0] == wanted:
            return entry
    for entry in entries:
        if entry[2] == wanted:
            return entry
    return None


def _number(text: str, kind: str) -> int:
    if not (text.isascii() and text.isdigit()):
        file = "passwd" if kind == "user" else kind
        raise NotFound(f"unable to find {kind} {text}: no matching entries in {file} file")
    if not _is_id(text):
        raise WherryError(f"{kind} id {text} is out of range (0-2147483647)")
    return int(text)


def _home(users: list[list[str]], uid: int) -> str:
    for entry in users:
        if entry[2] == str(uid):
            return entry[5] or "/"
    return "/"


def environment(process: Process, home: str) -> dict[str, str]:
    """The program's variables; HOME from passwd(5) where nothing says otherwise."""
    variables = {}
    for assignment in process.get("env") or []:
        name, _, value = assignment.partition("=")
        if name:  # an image may say "=x", which execve(2) takes and nobody can ask for
            variables[name] = value
    variables.setdefault("HOME", home or "/")
    return variables


def find_executable(arguments: list[str], variables: dict[str, str], cwd: str) -> str:
    """The file that execvp(3) would take, in the words that docker's exit codes follow."""
    name = arguments[0]
    if not name:
        raise CommandNotFound("the command is an empty string")
    if "/" in name:
        return _executable(name, posixpath.join(cwd, name))
    denied = False
    for directory in variables.get("PATH", "").split(":"):
        path = posixpath.join(directory or ".", name)
        try:
            return _executable(name, posixpath.join(cwd, path))
        except CommandNotExecutable:
            denied = not os.path.isdir(path)
        except CommandNotFound:
            pass
    if denied:
        raise CommandNotExecutable(f'exec: "{name}": permission denied')
    raise CommandNotFound(f'exec: "{name}": executable file not found in $PATH')


def _executable(name: str, path: str) -> str:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno == errno.EACCES:
            raise CommandNotExecutable(f'exec: "{name}": permission denied') from error
        if error.errno == errno.ELOOP:
            raise CommandNotExecutable(f'exec: "{name}": {error.strerror}') from error
        raise CommandNotFound(f'exec: "{name}": stat {path}: no such file or directory') from error
    if stat.S_ISDIR(mode):
        raise CommandNotExecutable(f'exec: "{name}": is a directory')
    if not mode & 0o111:
        raise CommandNotExecutable(f'exec: "{name}": permission denied')
    return path


def set_limits(process: Process, pid: int = 0) -> None:
    """The resource limits and OOM score of process `pid`, or of this one.

    To raise them takes privileges that nobody has in a user namespace of its own.
    """
    adjustment = process.get("oomScoreAdj")
    if adjustment is not None:
        _set_oom_score(adjustment, pid)
    if process.get("rlimits"):
        _set_rlimits(process, pid)


def set_scheduling(process: Process) -> None:
    """The scheduler and the priorities of this process, while it may still set them."""
    if process.get("scheduler"):
        from wherry_linux.scheduling import set_scheduler

        set_scheduler(process["scheduler"])
    priority = process.get("ioPriority")
    if priority:
        classes = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
        ioprio_set(
            c.IOPRIO_WHO_PROCESS,
            0,
            classes[priority["class"]] << c.IOPRIO_CLASS_SHIFT | priority.get("priority", 0),
        )


def set_memory_policy(linux: Linux) -> None:
    """`linux.memoryPolicy` for this process, while no filter forbids it."""
    if linux.get("memoryPolicy"):
        from wherry_linux import memory_policy

        memory_policy.set_memory_policy(linux["memoryPolicy"])


def _set_oom_score(adjustment: int, pid: int) -> None:
    try:
        with open(f"/proc/{pid or 'self'}/oom_score_adj", "w") as file:
            file.write(str(adjustment))
    except OSError as error:
        raise KernelError(
            f"cannot set the OOM score to {adjustment}: {error.strerror}",
            error.errno or 0,
            hint="only root may make a process less likely to be killed than its parent",
        ) from error


def _set_rlimits(process: Process, pid: int) -> None:
    import resource

    for limit in process["rlimits"]:
        number = getattr(resource, limit["type"], None)
        if number is None:
            raise WherryError(f"unknown resource limit {limit['type']}")
        pair = tuple(
            resource.RLIM_INFINITY if value >= 1 << 63 or value < 0 else value
            for value in (limit["soft"], limit["hard"])
        )
        try:
            resource.prlimit(pid, number, (pair[0], pair[1]))
        except (OSError, ValueError) as error:
            hard = resource.getrlimit(number)[1]
            raise KernelError(
                f"cannot set {limit['type']} to {_written(pair)}:"
                f" {getattr(error, 'strerror', None) or error}",
                getattr(error, "errno", 0) or 0,
                hint=f"the limit of this user is {_written((hard,))}; see limits.conf(5)",
            ) from error


def _written(limits: tuple[int, ...]) -> str:
    return ":".join("unlimited" if limit < 0 else str(limit) for limit in limits)


_PERSONALITIES = {"LINUX": 0x0, "LINUX32": 0x8}


def set_personality(persona: Personality | None) -> None:
    """`linux.personality`."""
    if persona:
        personality(_PERSONALITIES[persona["domain"]])


def become(process: Process, identity: Identity, seccomp: LinuxSeccomp | None, state: str) -> None:
    """Give up every privilege that the program is not to have. There is no way back.

    `state` is the container's state as JSON, for a seccomp listener.
    """
    no_new_privileges = bool(process.get("noNewPrivileges"))
    if no_new_privileges:
        prctl(c.PR_SET_NO_NEW_PRIVS, 1)
    if seccomp is not None and not no_new_privileges:
        # seccomp(2) wants CAP_SYS_ADMIN or no_new_privs, and the former goes next.
        install_profile(seccomp, state)
    umask = process["user"].get("umask")
    os.umask(0o022 if umask is None else umask)
    wanted = process.get("capabilities") or {}
    capabilities.limit_bounding(wanted)
    try:
        _set_groups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        prctl(c.PR_SET_KEEPCAPS, 1)
        os.setresuid(identity.uid, identity.uid, identity.uid)
    except OSError as error:
        raise KernelError(
            f"cannot become user {identity.uid}:{identity.gid}: {error.strerror}",
            error.errno or 0,
            hint="the id is not mapped into the container: /etc/subuid and /etc/subgid decide",
        ) from error
    capabilities.apply(wanted)
    prctl(c.PR_SET_KEEPCAPS, 0)
    if seccomp is not None and no_new_privileges:
        install_profile(seccomp, state)


def _set_groups(groups: list[int] | None) -> None:
    if groups is None:
        return
    try:
        os.setgroups(groups)
    except PermissionError:
        # Where a user without subordinate ids made the user namespace, the kernel lets
        # nobody in it change groups. /proc/self/setgroups tells so, but may be a fake.
        pass


def become_root() -> None:
    """Root of a user namespace that has been entered."""
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def give_pipe(descriptor: int, uid: int, gid: int = -1) -> None:
    """Let `uid` open a pipe by its name in /dev, which asks for permission anew.

    Not what is no pipe: /dev/null is the host's. Nor where we may give nothing to them.
    """
    try:
        found = os.fstat(descriptor)
        if found.st_uid != uid and stat.S_ISFIFO(found.st_mode):
            os.fchown(descriptor, uid, gid)
    except OSError:
        pass  # closed, or not ours


def replace_null() -> None:
    """In the container: its own /dev/null where a standard stream is the host's.

    Through a descriptor of the host's, the container's root could change the node's mode.
    """
    for descriptor in range(3):
        try:
            if not _is_null(descriptor):
                continue
        except OSError:
            continue  # closed
        try:
            own = os.open("/dev/null", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            own = -1
        if own < 0 or not _is_null(own):
            if descriptor:
                raise WherryError("the container has no /dev/null of its own to write to")
            # A pipe that nobody writes to is as empty.
            own, writer = os.pipe2(os.O_CLOEXEC)
            os.close(writer)
        os.dup2(own, descriptor)
        os.close(own)


def _is_null(descriptor: int) -> bool:
    found = os.fstat(descriptor)
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3)


def enter_directory(cwd: str) -> None:
    """Change to the program's working directory, which has to be the container's."""
    try:
        os.chdir(cwd)
    except OSError as error:
        reason = f"cannot change to directory {cwd!r}: {(error.strerror or '').lower()}"
        if error.errno == errno.ENOENT:
            raise CommandNotFound(reason) from error
        raise CommandNotExecutable(reason) from error
    # A path may lead out by a descriptor that is still open (CVE-2024-21626).
    if not is_below_root():
        raise WherryError(f"cannot change to directory {cwd!r}: it is not in the container")


def open_label(process: Process, procfs: int) -> int:
    """The file that sets the security label of the program, by the host's /proc; -1 for none."""
    if process.get("apparmorProfile"):
        names: tuple[str, ...] = ("apparmor/exec", "exec")
    elif process.get("selinuxLabel"):
        names = ("exec",)
    else:
        return -1
    for name in names:
        try:
            return os.open(f"self/attr/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=procfs)
        except FileNotFoundError:
            pass
    raise WherryError("cannot label the program: the kernel has no /proc/self/attr/exec")


def set_label(descriptor: int, process: Process) -> None:
    """Have the next program that is executed labelled as `process` asks."""
    if descriptor < 0:
        return
    profile = process.get("apparmorProfile")
    label = f"exec {profile}" if profile else process["selinuxLabel"]
    try:
        os.write(descriptor, label.encode())
    except OSError as error:
        raise KernelError(
            f"cannot apply {profile or label}: {error.strerror}", error.errno or 0
        ) from error
    finally:
        os.close(descriptor)


def prepare_to_execute(preserve: int, report: int, complaints: str = "") -> int:
    """Leave the program descriptors 0 to 2 and `preserve` more; the descriptor to `execute`.

    Comes before the system calls are filtered. What goes wrong will be written to `report`;
    with `complaints` about a program, to standard error.
    """
    step = trampoline.make(report, complaints)
    # The interpreter ignores some, and so does a monitor; the program would inherit that.
    for number in signals.valid_signals():
        if signals.getsignal(number) == signals.SIG_IGN:
            signals.signal(number, signals.SIG_DFL)
    signals.pthread_sigmask(signals.SIG_SETMASK, [])
    close_range(3 + preserve, 0x7FFFFFFF, c.CLOSE_RANGE_CLOEXEC)
    for descriptor in (*range(3 + preserve), report):
        try:
            os.set_inheritable(descriptor, True)
        except OSError:
            pass
    return step


def execute(step: int, path: str, arguments: list[str], variables: dict[str, str]) -> None:
    """Replace this process by the program; returns only by an exception."""
    try:
        trampoline.execute(step, ["wherry", path, *arguments], variables)
    except OSError as error:
        raise exec_error(arguments[0], error.errno or 0) from error


def exec_error(name: str, number: int) -> WherryError:
    """Why execve(2) did not execute the program `name`."""
    reason = f'exec: "{name}": {os.strerror(number).lower()}'
    if number in (errno.ENOENT, errno.ENOTDIR):
        # The file was there: what is missing is the interpreter it names.
        return CommandNotFound(
            reason,
            hint="does the interpreter or loader that the file names exist in the image, "
            "and has the file no line ends of Windows (CRLF)?",
        )
    if number == errno.ENOEXEC:
        return CommandNotExecutable(
            reason, hint="the file is for another architecture, or a script without #!"
        )
    return CommandNotExecutable(reason)
