"""A Python that believes itself on another system, for the host's side of a machine.

    python tests/support/foreign.py win32 -m wherry run …
    python tests/support/foreign.py win32 -I -c PROGRAM

What only POSIX systems have is taken away: modules, `os.fork`, user ids, UNIX sockets. The
standard library and paramiko are loaded before, since they choose by the system that they
find; what they do on the other system is their authors' business, what we do is ours. The
processes that wherry starts are of this kind too: `sys.executable` is a script that runs
this file.
"""

from __future__ import annotations

import asyncio  # noqa: F401 - see above, for these
import builtins
import ctypes
import fcntl
import getpass  # noqa: F401
import hashlib
import os
import runpy
import shutil  # noqa: F401
import socket
import ssl
import subprocess
import sys
import tempfile
import types
import urllib.request
import uuid  # noqa: F401
import zipfile  # noqa: F401
from typing import Any

_MODULES = ("fcntl", "termios", "pwd", "grp", "resource", "pty", "tty", "readline", "syslog")
_OS = ("fork", "forkpty", "getuid", "geteuid", "getgid", "getegid", "setsid", "uname",
       "chown", "lchown", "mkfifo", "mknod", "openpty", "posix_spawn", "register_at_fork",
       "set_blocking", "get_blocking")  # fmt: skip


def become(system: str) -> None:
    """Take away what `system` has not got."""
    import paramiko  # noqa: F401
    import qemu.qmp.legacy  # noqa: F401

    lock = fcntl.flock
    real_import = builtins.__import__

    def guarded(name: str, *rest: Any, **more: Any) -> Any:
        if name in _MODULES and _is_ours(rest[0] if rest else more.get("globals")):
            raise ImportError(f"No module named {name!r} (this is {system})", name=name)
        return real_import(name, *rest, **more)

    if system == "win32":
        # The files that a machine shares are reached by Windows' own calls there.
        from wherry_vm.shares import posix

        posix.WindowsTree = posix.PosixTree  # type: ignore[attr-defined]
        sys.modules["wherry_vm.shares.windows"] = posix
        builtins.__import__ = guarded
        for name in _OS:
            if hasattr(os, name):
                delattr(os, name)
        os.O_BINARY = 0  # type: ignore[attr-defined]
        pair, family = socket.socketpair, socket.AF_UNIX
        # Over loopback there; asyncio wakes itself with it.
        socket.socketpair = lambda *_: pair(family)
        for module in (socket, sys.modules["_socket"]):
            delattr(module, "AF_UNIX")
        sys.modules["msvcrt"] = _msvcrt(lock)
        sys.modules["winreg"] = _winreg()
        sys.getwindowsversion = lambda: types.SimpleNamespace(build=26100)  # type: ignore[attr-defined]
        ctypes.windll = _Libraries()  # type: ignore[attr-defined]
        msvcrt = sys.modules["msvcrt"]
        msvcrt.get_osfhandle = lambda descriptor: descriptor  # type: ignore[attr-defined]
        _take_flags_from_popen()
    _have_settings_of(system)
    sys.platform = system


def _have_settings_of(system: str) -> None:
    """What tells of a system's proxies, resolvers and certificates: nothing is set there."""
    if system == "win32":
        registry = types.ModuleType("winreg")
        registry.HKEY_LOCAL_MACHINE = registry.HKEY_CURRENT_USER = 0  # type: ignore[attr-defined]

        def open_key(*_: object) -> None:
            raise FileNotFoundError(2, "The system cannot find the file specified")

        registry.OpenKey = open_key  # type: ignore[attr-defined]
        sys.modules["winreg"] = registry
        ssl.enum_certificates = lambda _: []  # type: ignore[attr-defined]
        urllib.request.getproxies_registry = dict  # type: ignore[attr-defined]
    if system == "darwin":
        settings = types.ModuleType("_scproxy")
        settings._get_proxy_settings = dict  # type: ignore[attr-defined]
        sys.modules["_scproxy"] = settings
        urllib.request.getproxies_macosx_sysconf = dict  # type: ignore[attr-defined]


def _is_ours(globals_: Any) -> bool:
    name = str((globals_ or {}).get("__name__", ""))
    return name == "__main__" or name.partition(".")[0] in ("wherry", "wherry_vm", "wherry_vmimage")


def _msvcrt(lock: Any) -> types.ModuleType:
    """The part of Windows' C library that we use."""
    module = types.ModuleType("msvcrt")
    module.LK_LOCK, module.LK_NBLCK = 1, 2  # type: ignore[attr-defined]

    def locking(descriptor: int, mode: int, size: int) -> None:
        try:
            lock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if mode == 2 else 0))
        except BlockingIOError:
            raise PermissionError(13, "Permission denied") from None

    module.locking = locking  # type: ignore[attr-defined]
    return module


def _winreg() -> types.ModuleType:
    """A registry with nothing in it."""
    module = types.ModuleType("winreg")
    module.HKEY_LOCAL_MACHINE = 0  # type: ignore[attr-defined]

    def open_key(*_: Any) -> Any:
        raise FileNotFoundError(2, "The system cannot find the file specified")

    module.OpenKey = open_key  # type: ignore[attr-defined]
    return module


class _Libraries:
    """Windows' libraries: every call fails, as of a console that is none."""

    def __getattr__(self, name: str) -> Any:
        return _Libraries() if name.endswith("32") else lambda *_: 0


def _take_flags_from_popen() -> None:
    """The standard library refuses Windows' flags on the system that this really is."""
    real = subprocess.Popen.__init__

    def start(self: Any, *rest: Any, creationflags: int = 0, **more: Any) -> None:
        real(self, *rest, start_new_session=bool(creationflags & 0x200), **more)

    subprocess.Popen.__init__ = start  # type: ignore[method-assign]


def _executable(system: str) -> str:
    """A script that is this interpreter, on the other system: one file for all processes."""
    script = f'#!/bin/sh\nexec {sys.executable} {os.path.abspath(__file__)} {system} "$@"\n'
    mark = hashlib.sha256(script.encode()).hexdigest()[:12]
    path = os.path.join(tempfile.gettempdir(), f"wherry-test-{system}-{mark}-{os.getuid()}")
    with tempfile.NamedTemporaryFile("w", dir=os.path.dirname(path), delete=False) as file:
        file.write(script)
        os.fchmod(file.fileno(), 0o700)
    os.replace(file.name, path)
    return path


def main() -> None:
    system, *words = sys.argv[1:]
    interpreter = _executable(system)
    become(system)
    sys.executable = interpreter
    words = [word for word in words if word not in ("-I", "-S", "-B")]
    if words[0] == "-c":
        sys.argv = words
        exec(compile(words[1], "-c", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = ["wherry", *words[2:]]
        runpy.run_module(words[1], run_name="__main__", alter_sys=False)


if __name__ == "__main__":
    main()
