"""What of this host decides how QEMU is run, as values that a test can make up."""

from __future__ import annotations

import os
import sys

from wherry.errors import Unsupported
from wherry.values import replace, value

_ARCHITECTURES = {
    "amd64": "x86_64",
    "x86_64": "x86_64",
    "x86-64": "x86_64",
    "aarch64": "aarch64",
    "arm64": "aarch64",
}


@value
class Host:
    """A system that QEMU is to run on.

    `system` is "linux", "darwin" or "win32", as sys.platform has it; `build` is the build
    number of Windows, or the version of macOS's kernel as in 2105 for 21.5, 0 elsewhere.
    `flags` are of /proc/cpuinfo; of Windows only "hypervisor" is known. `is_native` is False
    where `architecture` is the guest's and not the host's own.
    """

    system: str
    architecture: str
    cpus: int = 1
    build: int = 0
    flags: frozenset[str] = frozenset()
    is_native: bool = True

    def running(self, architecture: str) -> Host:
        """This host as it is for a guest of a Debian architecture, which may be another's.

        Raises Unsupported.
        """
        found = _ARCHITECTURES.get(architecture)
        if found is None:
            raise Unsupported(f"there is no guest for processors of type {architecture!r}")
        if found == self.architecture:
            return self
        return replace(self, architecture=found, flags=frozenset(), is_native=False)


def this_host() -> Host:
    """The one that this process runs on. Raises Unsupported."""
    return Host(
        system=sys.platform,
        architecture=_architecture(),
        cpus=os.cpu_count() or 1,
        build=_build(),
        flags=_cpu_flags(),
    )


def _architecture() -> str:
    if sys.platform == "win32":
        # Of the system, not of a Python that is emulated there.
        named = os.environ.get("PROCESSOR_ARCHITEW6432") or os.environ.get(
            "PROCESSOR_ARCHITECTURE", ""
        )
    else:
        named = os.uname().machine
        if sys.platform == "darwin" and named == "x86_64" and sysctl("hw.optional.arm64") == "1":
            named = "arm64"
    found = _ARCHITECTURES.get(named.lower())
    if found is None:
        raise Unsupported(f"there is no guest for processors of type {named!r}")
    return found


def _build() -> int:
    if sys.platform == "win32":
        return sys.getwindowsversion().build
    if sys.platform == "darwin":
        major, minor, *_ = os.uname().release.split(".")
        return int(major) * 100 + int(minor)
    return 0


def processor() -> str:
    """The name of the host's processors, or the number of their model; "" where Linux does not
    tell."""
    return _of_processors("model name", "CPU part")


def _cpu_flags() -> frozenset[str]:
    """The processor's features, as Linux names them."""
    if sys.platform == "win32":
        return frozenset({"hypervisor"} if is_virtual(*_firmware()) else ())
    return frozenset(_of_processors("flags", "Features").split())


def _of_processors(*names: str) -> str:
    """What Linux says of the first processor under one of these names; "" for nothing."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
            for line in lines:
                name, _, text = line.partition(":")
                if name.strip() in names:
                    return text.strip()
    except OSError:
        pass
    return ""


_VIRTUAL = ("virtual", "vmware", "qemu", "kvm", "xen", "amazon ec2", "google compute", "parallels")


def is_virtual(*names: str) -> bool:
    """Whether a computer whose firmware gives it these names is a virtual machine.

    The processor does not tell on Windows: with Hyper-V the system itself is a guest of it.
    """
    return any(word in name.lower() for name in names for word in _VIRTUAL)


def _firmware() -> tuple[str, ...]:
    """Maker and model, as Windows has them of SMBIOS."""
    if sys.platform != "win32":
        return ()
    import winreg

    names = []
    path = r"HARDWARE\DESCRIPTION\System\BIOS"
    for name in ("SystemManufacturer", "SystemProductName"):
        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path) as key:
                names.append(str(winreg.QueryValueEx(key, name)[0]))
        except OSError:
            continue
    return tuple(names)


def memory() -> int:
    """The MiB that a program of this host can have at most; 0 where it does not tell."""
    if sys.platform == "win32":
        return _memory_of_windows()
    if sys.platform == "darwin":
        return int(sysctl("hw.memsize") or 0) >> 20
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            sizes = dict(line.split(":") for line in file)
    except OSError:
        return 0
    return sum(int(sizes.get(name, "0").split()[0]) for name in ("MemTotal", "SwapTotal")) >> 10


def _memory_of_windows() -> int:
    if sys.platform != "win32":
        return 0
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            ("sizes", ctypes.c_ulonglong * 7),
        )

    status = Status(length=ctypes.sizeof(Status))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return 0
    # Memory and its free part, then the same with the page file.
    return int(status.sizes[2]) >> 20


def boot_id() -> str:
    """Something that changes when the host boots; "" where it cannot be told cheaply."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def sysctl(name: str) -> str:
    """A value of macOS's sysctl(8); "" where there is none of that name."""
    import subprocess

    try:
        result = subprocess.run(
            ["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return result.stdout.strip()
