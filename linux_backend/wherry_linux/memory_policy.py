"""runtime-spec `linux.memoryPolicy`: set_mempolicy(2)."""

from __future__ import annotations

import ctypes

from wherry.errors import UsageError
from wherry_linux.constants import SYS_set_mempolicy
from wherry_linux.syscalls import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.oci.runtime_spec import LinuxMemoryPolicy

# linux/mempolicy.h
MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
FLAGS = {
    "MPOL_F_STATIC_NODES": 1 << 15,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_NUMA_BALANCING": 1 << 13,
}
_WITHOUT_NODES = ("MPOL_DEFAULT", "MPOL_LOCAL")
# The kernel takes no mask of more than a page.
_MOST_NODES = 4096 * 8


def arguments(policy: LinuxMemoryPolicy) -> tuple[int, int]:
    """The mode with its flags, and the nodes as bits. Raises UsageError."""
    from wherry_linux.check import read_numbers

    mode = policy.get("mode", "")
    if mode not in MODES:
        raise UsageError(f"linux.memoryPolicy: unknown mode {mode!r}")
    number = MODES[mode]
    for flag in policy.get("flags") or ():
        if flag not in FLAGS:
            raise UsageError(f"linux.memoryPolicy: unknown flag {flag!r}")
        number |= FLAGS[flag]
    nodes = policy.get("nodes") or ""
    if nodes and mode in _WITHOUT_NODES:
        raise UsageError(f"linux.memoryPolicy: {mode} takes no nodes")
    if not nodes and mode not in (*_WITHOUT_NODES, "MPOL_PREFERRED"):
        raise UsageError(f"linux.memoryPolicy: {mode} needs nodes")
    mask = 0
    for node in read_numbers(nodes) if nodes else ():
        if node >= _MOST_NODES:
            raise UsageError(f"linux.memoryPolicy: there is no node {node}")
        mask |= 1 << node
    return number, mask


def set_memory_policy(policy: LinuxMemoryPolicy) -> None:
    """From which nodes this process, and what it becomes, gets its memory."""
    mode, mask = arguments(policy)
    bits = max(64, (mask.bit_length() + 63) // 64 * 64)
    # maxnode counts one more than the bits that are read (set_mempolicy(2), "BUGS").
    given = mask.to_bytes(bits // 8, "little") if mask else None
    syscall(
        SYS_set_mempolicy,
        mode,
        ctypes.c_char_p(given),
        bits + 1 if mask else 0,
        action=f"set memory policy {policy['mode']}",
    )
