"""Who runs the command under test: root, or an unprivileged user that the tests make.

The users are made when the first test asks for them, and removed by the last of the
test sessions that run at the time.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import os
import pwd
import shutil
import site
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_USER = "wherry-test"
_USER_WITHOUT_SUBUIDS = "wherry-test-single"
_LOCK = "/run/wherry-test.lock"
_REPOSITORY = Path(__file__).parents[2]
_BOUND = "/tmp/wherry-test-"
LOADED_FROM = (sys.base_prefix, sys.prefix, str(_REPOSITORY), _BOUND)
"""What the interpreters of the command under test load is below these, whoever runs it."""
_ROOTS = ("core", "linux_backend", "vm_backend", "vmimage")


@dataclass(frozen=True, kw_only=True)
class Account:
    """A user, and how the command under test is started as that user."""

    name: str
    uid: int
    gid: int
    command: tuple[str, ...]
    environment: dict[str, str]

    @property
    def is_root(self) -> bool:
        return self.uid == 0

    @property
    def interpreter(self) -> str:
        """A Python that this user can run, in which wherry can be imported."""
        return sys.executable if len(self.command) == 1 else self.command[0]


@functools.cache
def current_account() -> Account:
    """Whoever runs the tests."""
    uid = os.geteuid()
    name = pwd.getpwuid(uid).pw_name
    return Account(
        name=name, uid=uid, gid=os.getegid(), command=_installed_command(), environment={}
    )


@functools.cache
def rootless_account() -> Account:
    """An unprivileged user with ranges in /etc/subuid and /etc/subgid."""
    if os.geteuid() != 0:
        return current_account()
    return _account(_USER, subuids=True)


@functools.cache
def single_uid_account() -> Account:
    """An unprivileged user with no range of subordinate ids."""
    return _account(_USER_WITHOUT_SUBUIDS, subuids=False)


def _account(name: str, *, subuids: bool) -> Account:
    with _only_session():
        _make_user(name, subuids=subuids)
    entry = pwd.getpwnam(name)
    command, environment = _reachable_command(entry.pw_uid, entry.pw_gid)
    return Account(
        name=name,
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        command=command,
        environment=environment,
    )


def _installed_command() -> tuple[str, ...]:
    """The `wherry` that was installed beside the interpreter that runs the tests."""
    return (os.path.join(os.path.dirname(sys.executable), "wherry"),)


@functools.cache
def _lock() -> int:
    """The lock that each test session holds shared for as long as it runs."""
    descriptor = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    atexit.register(_remove_users, descriptor)
    return descriptor


@contextlib.contextmanager
def _only_session() -> Iterator[None]:
    """While no other session makes or removes users."""
    _lock()
    descriptor = os.open(f"{_LOCK}.change", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make_user(name: str, *, subuids: bool) -> None:
    try:
        pwd.getpwnam(name)
        return
    except KeyError:
        pass
    # A system user gets no range of subordinate ids of its own accord.
    _run("useradd", "--system", "--user-group", "--home-dir", "/", "--shell", "/bin/sh", name)
    if subuids:
        start = _free_subuid()
        last = start + 65535
        _run("usermod", "--add-subuids", f"{start}-{last}", name)
        _run("usermod", "--add-subgids", f"{start}-{last}", name)


def _remove_users(lock: int) -> None:
    with _only_session():
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another test session still uses them
        for name in (_USER, _USER_WITHOUT_SUBUIDS):
            subprocess.run(["userdel", name], capture_output=True, check=False)
        os.close(lock)


def _free_subuid() -> int:
    """The start of 65536 subordinate ids that no user has."""
    end = 1_000_000
    for path in ("/etc/subuid", "/etc/subgid"):
        with contextlib.suppress(FileNotFoundError):
            for line in Path(path).read_text().splitlines():
                fields = line.split(":")
                if len(fields) == 3:
                    end = max(end, int(fields[1]) + int(fields[2]))
    return end


def _reachable_command(uid: int, gid: int) -> tuple[tuple[str, ...], dict[str, str]]:
    """The command under test where `uid` can run it: installed, or copied and bound elsewhere.

    A clone or an interpreter below /root is closed to others.
    """
    command = _installed_command()
    probe = (
        subprocess.run(
            [sys.executable, "-c", "import wherry"],
            user=uid,
            group=gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            check=False,
        )
        if _can_execute(sys.executable, uid, gid)
        else None
    )
    if probe is not None and probe.returncode == 0:
        return command, {}

    place = _bound_interpreter()
    executable = os.path.relpath(os.path.realpath(sys.executable), sys.base_prefix)
    sources = [f"{place}/{root}" for root in _ROOTS]
    environment = {
        "PYTHONPATH": ":".join([*sources, f"{place}/site"]),
        # An interpreter may have its own library beside it, and name its old place.
        "LD_LIBRARY_PATH": f"{place}/python/lib",
    }
    return (f"{place}/python/{executable}", "-P", "-m", "wherry"), environment


def _can_execute(path: str, uid: int, gid: int) -> bool:
    result = subprocess.run(
        ["/usr/bin/test", "-x", path], user=uid, group=gid, extra_groups=[], cwd="/", check=False
    )
    return result.returncode == 0


@functools.cache
def _bound_interpreter() -> str:
    """A directory that everybody can enter, with our interpreter, packages and sources."""
    place = tempfile.mkdtemp(prefix=os.path.basename(_BOUND), dir=os.path.dirname(_BOUND))
    os.chmod(place, 0o755)
    # Copied, since a clone that was made with umask 077 has no file that others may read.
    for root in _ROOTS:
        _run("cp", "-r", "--preserve=timestamps", f"{_REPOSITORY}/{root}", f"{place}/{root}")
        _run("chmod", "-R", "a+rX", f"{place}/{root}")
    sources = {"python": sys.base_prefix, "site": site.getsitepackages()[0]}
    for name, source in sources.items():
        target = os.path.join(place, name)
        os.mkdir(target)
        _run("mount", "--bind", "-o", "ro", source, target)
    atexit.register(_unbind, place, tuple(sources))
    return place


def _unbind(place: str, names: tuple[str, ...]) -> None:
    for name in names:
        target = os.path.join(place, name)
        # Lazily: a mount namespace that a failed test left may hold it.
        subprocess.run(["umount", "--lazy", target], check=True)
        os.rmdir(target)
    shutil.rmtree(place)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, text=True)
