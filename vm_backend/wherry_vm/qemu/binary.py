"""The QEMU that is installed here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from wherry.errors import MachineError, NotFound
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry_vm.qemu.host import Host

OLDEST = {"linux": (7, 0, 0), "darwin": (8, 2, 1), "win32": (9, 0, 0)}
"""The oldest version that a guest is known to run under. On macOS older ones lose memory
writes on arm64; on Windows they lack what WHPX needs."""

_INSTALL = {
    ("linux", "x86_64"): "sudo apt-get install qemu-system-x86   (or your distribution's QEMU)",
    ("linux", "aarch64"): "sudo apt-get install qemu-system-arm   (or your distribution's QEMU)",
    ("darwin", ""): "brew install qemu",
    ("win32", ""): "winget install SoftwareFreedomConservancy.QEMU",
}

_PLACES = {
    "darwin": ("/opt/homebrew/bin", "/usr/local/bin", "/opt/local/bin"),
    "win32": (r"C:\Program Files\qemu", r"C:\msys64\ucrt64\bin", r"C:\msys64\mingw64\bin"),
}
"""Where installers put it without telling PATH."""


@value
class Qemu:
    """An executable, its version (major, minor, micro), and whether it knows -sandbox."""

    path: str
    version: tuple[int, int, int]
    has_sandbox: bool = False

    @property
    def shown(self) -> str:
        """The version as QEMU writes it."""
        return ".".join(map(str, self.version))


def find_qemu(host: Host) -> Qemu:
    """The QEMU for a guest of the host's architecture. Raises NotFound, MachineError.

    WHERRY_QEMU names one that is to be used, however old it is.
    """
    if chosen := os.environ.get("WHERRY_QEMU"):
        return Qemu(path=chosen, version=read_version(chosen), has_sandbox=_has_sandbox(chosen))
    path = _search(host)
    if path is None:
        raise NotFound(
            f"QEMU is not installed: there is no qemu-system-{host.architecture}",
            hint=f"install it: {install_line(host)}",
        )
    version = read_version(path)
    oldest = OLDEST.get(host.system, (7, 0, 0))
    if version < oldest:
        raise MachineError(
            f"{path} is QEMU {'.'.join(map(str, version))}, which is too old: "
            f"{'.'.join(map(str, oldest))} is the oldest that works here",
            hint=f"install a newer one: {install_line(host)}",
        )
    return Qemu(path=path, version=version, has_sandbox=_has_sandbox(path))


def _has_sandbox(path: str) -> bool:
    """Whether it was built with libseccomp, which it does not tell without being run."""
    if sys.platform != "linux":
        return False
    from mmap import ACCESS_READ, mmap

    try:
        with open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            return content.find(b"libseccomp.so") >= 0
    except (OSError, ValueError):
        return False


def install_line(host: Host) -> str:
    """What installs QEMU on such a host."""
    found = _INSTALL.get((host.system, host.architecture)) or _INSTALL.get((host.system, ""))
    return found or "see https://www.qemu.org/download"


def _search(host: Host) -> str | None:
    name = f"qemu-system-{host.architecture}"
    if found := shutil.which(name):
        return found
    return shutil.which(name, path=os.pathsep.join(_PLACES.get(host.system, ())))


def read_version(path: str) -> tuple[int, int, int]:
    """The version of the QEMU at `path`. Raises MachineError where it does not run."""
    try:
        result = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineError(f"{path} does not run: {error}") from error
    # QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)
    _, found, rest = result.stdout.partition("version ")
    numbers = rest.split()[0].split(".") if found and rest.split() else []
    try:
        major, minor, micro = (int(number) for number in (*numbers, "0", "0")[:3])
    except ValueError:
        said = (result.stderr or result.stdout).strip().splitlines()
        raise MachineError(
            f"{path} does not say which version it is: {said[-1] if said else 'it says nothing'}"
        ) from None
    return major, minor, micro
