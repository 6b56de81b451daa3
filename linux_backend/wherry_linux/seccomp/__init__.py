"""System call filters: docker's profiles, compiled here and given to the kernel.

    profile.py    the default profile
    resolve.py    a profile in docker's format, for a container's capabilities and this
                  machine, as runtime-spec's section
    compiler.py   that section as a BPF program
    install.py    the program into this process

`prepare` comes before the process enters the container: later, wherry's files, its own
modules among them, cannot be reached, and what is found at their paths is the image's.
`install_profile` comes last of all before the program is executed. A compiled program is
kept by the digest of its section: compiling takes milliseconds, loading a fraction of one.
"""

from __future__ import annotations

import os

from wherry import paths
from wherry.errors import WherryError
from wherry.files import make_dir, write_atomic
from wherry.lean import dump_json
from wherry_linux.seccomp.install import install

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.lean import sockets
    from wherry.oci.runtime_spec import LinuxSeccomp

# Part of the digest: to be raised with every change of what the compiler makes.
_COMPILER = "1"
# A sock_filter's size, and the longest program the kernel takes.
_INSTRUCTION = 8
_LONGEST = 4096 * _INSTRUCTION


class Filter:
    """A compiled section, and the connection to its listener where it has one."""

    def __init__(self, seccomp: LinuxSeccomp) -> None:
        self.program = load_program(seccomp)
        self.flags = seccomp.get("flags")
        self.metadata = seccomp.get("listenerMetadata", "")
        self.listener: sockets.socket | None = None
        if path := seccomp.get("listenerPath"):
            from wherry_linux.seccomp.notify import check_notify, connect

            check_notify(seccomp)
            self.listener = connect(path)


_prepared: dict[str, Filter] = {}


def prepare(seccomp: LinuxSeccomp) -> None:
    """Make the filter ready for `install_profile`, in this process or one that it forks."""
    key = _key(seccomp)
    if key not in _prepared:
        _prepared[key] = Filter(seccomp)


def release(seccomp: LinuxSeccomp) -> None:
    """Let go of a prepared filter: its listener waits for the end of our connection."""
    prepared = _prepared.pop(_key(seccomp), None)
    if prepared is not None and prepared.listener is not None:
        prepared.listener.close()


def install_profile(seccomp: LinuxSeccomp, state: str) -> None:
    """Filter this process from here on; `state` is for the listener, as JSON."""
    try:
        prepared = _prepared[_key(seccomp)]
    except KeyError:
        raise WherryError("cannot filter system calls: the filter was not prepared") from None
    if prepared.listener is None:
        install(prepared.program, prepared.flags)
        return
    from wherry_linux.seccomp.notify import send_listener

    notifications = install(prepared.program, prepared.flags, listen=True)
    send_listener(notifications, prepared.listener, state, prepared.metadata)


def load_program(seccomp: LinuxSeccomp) -> bytes:
    """The compiled program, from the cache where it is there."""
    path = os.path.join(paths.cache(), "seccomp", f"{_digest(seccomp)}.bpf")
    program = _read(path)
    if program is None:
        program = _compile(seccomp)
        try:
            make_dir(os.path.dirname(path))
            write_atomic(path, program)
        except WherryError:
            pass  # a full or read-only disk costs time, not the container
    return program


def instruction_count(seccomp: LinuxSeccomp) -> int:
    """The length of the compiled program."""
    return len(load_program(seccomp)) // _INSTRUCTION


def _compile(seccomp: LinuxSeccomp) -> bytes:
    from wherry_linux.seccomp.compiler import compile_filter

    return compile_filter(seccomp, os.uname().machine)


def _read(path: str) -> bytes | None:
    """A program that is whole, ours, and for nobody else to change."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            return None
        program = os.read(descriptor, _LONGEST + 1)
    finally:
        os.close(descriptor)
    if not program or len(program) > _LONGEST or len(program) % _INSTRUCTION:
        return None
    return program


def _key(seccomp: LinuxSeccomp) -> str:
    return dump_json(seccomp)


def _digest(seccomp: LinuxSeccomp) -> str:
    # hashlib would load the whole of OpenSSL for it.
    from _blake2 import blake2b

    rules = {
        key: seccomp.get(key)
        for key in ("defaultAction", "defaultErrnoRet", "architectures", "syscalls")
    }
    text = f"{_COMPILER} {os.uname().machine} {dump_json(rules)}"
    return str(blake2b(text.encode(), digest_size=20).hexdigest())
