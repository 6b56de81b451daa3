"""Capabilities as the kernel has them: five sets of bits of a thread.

The order matters, around the change of user:

    limit_bounding()          needs CAP_SETPCAP, which setuid(2) makes ineffective
    PR_SET_KEEPCAPS, setgroups, setgid, setuid
    apply()                   permitted, effective and inheritable, then ambient, which
                              may only hold what is both permitted and inheritable
"""

from __future__ import annotations

import ctypes
import errno
import sys

from wherry.container.capabilities import NAMES
from wherry.errors import KernelError
from wherry_linux.constants import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAP_AMBIENT_RAISE,
    PR_CAPBSET_DROP,
    PR_CAPBSET_READ,
)
from wherry_linux.syscalls import check, libc, prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from wherry.oci.runtime_spec import Capabilities

# linux/capability.h
_LINUX_CAPABILITY_VERSION_3 = 0x20080522

# Bits are numbered up to 63 at most: capset(2) has two words of them.
_BITS = 64

_warned: set[str] = set()


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def mask(names: Iterable[str]) -> int:
    """The bits of `names`. One that is unknown to us is left out with a warning."""
    bits = 0
    for name in names:
        try:
            bits |= 1 << NAMES.index(name)
        except ValueError:
            _warn(f"unknown capability {name} is left out")
    return bits


def names_of(bits: int) -> list[str]:
    """The names of the bits, by number; those without a name are left out."""
    return [name for number, name in enumerate(NAMES) if bits >> number & 1]


def bounding() -> int:
    """What this thread and its children can ever have.

    A kernel may know more than we have names for: those are in it as well.
    """
    bits = 0
    for number in range(_BITS):
        try:
            bits |= prctl(PR_CAPBSET_READ, number) << number
        except KernelError as error:
            if error.errno != errno.EINVAL:
                raise
            # One past the kernel's last.
            break
    return bits


def permitted() -> int:
    """What this thread may make effective."""
    header = _Header(_LINUX_CAPABILITY_VERSION_3, 0)
    data = (_Data * 2)()
    check(libc.capget(ctypes.byref(header), data), "capget")
    low, high = int(data[0].permitted), int(data[1].permitted)
    return low | high << 32


def limit_bounding(sets: Capabilities) -> None:
    """Before the change of user: drop from the bounding set what is not asked for."""
    keep = mask(sets.get("bounding", ()))
    for number in range(_BITS):
        if keep >> number & 1:
            continue
        try:
            prctl(PR_CAPBSET_DROP, number)
        except KernelError as error:
            if error.errno != errno.EINVAL:
                raise
            break


def apply(sets: Capabilities) -> None:
    """After the change of user: the sets that are asked for, as far as there is any to give."""
    ambient = mask(sets.get("ambient", ()))
    available = permitted()
    wanted = mask(sets.get("permitted", ()))
    if missing := wanted & ~available:
        _warn(f"cannot give {', '.join(names_of(missing))}: this process does not have it")
    held = wanted & available
    # More would need CAP_SETPCAP, which the change of user made ineffective.
    inheritable = mask(sets.get("inheritable", ())) & available
    _capset(mask(sets.get("effective", ())) & held, held, inheritable)
    _set_ambient(ambient & held & inheritable)


def _capset(effective: int, permitted_bits: int, inheritable: int) -> None:
    header = _Header(_LINUX_CAPABILITY_VERSION_3, 0)
    low, high = 0xFFFFFFFF, 32
    data = (_Data * 2)(
        _Data(effective & low, permitted_bits & low, inheritable & low),
        _Data(effective >> high, permitted_bits >> high, inheritable >> high),
    )
    check(libc.capset(ctypes.byref(header), data), "capset")


def _set_ambient(bits: int) -> None:
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(_BITS):
        if bits >> number & 1:
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)


def _warn(message: str) -> None:
    # The specification wants a warning, not a failure.
    if message not in _warned:
        _warned.add(message)
        sys.stderr.write(f"wherry: {message}\n")
