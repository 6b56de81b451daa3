"""Capabilities by name: the kernel's list, docker's default, `--cap-add` and `--cap-drop`.

What the kernel is asked for is in `wherry_linux.capabilities`.
"""

from __future__ import annotations

from wherry.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# In the order of linux/capability.h: a name's place is its number.
NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)

DEFAULT = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)

ALL = "ALL"


def normalize(name: str) -> str:
    """`net_admin` or `CAP_NET_ADMIN` as `CAP_NET_ADMIN`; `ALL` stays. Raises UsageError."""
    upper = name.strip().upper()
    if upper in (ALL, f"CAP_{ALL}"):
        return ALL
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if full not in NAMES:
        raise UsageError(
            f'invalid capability: "{name}"', hint="capabilities(7) lists the names that Linux has"
        )
    return full


def resolve(
    add: Iterable[str] = (),
    drop: Iterable[str] = (),
    *,
    available: Iterable[str] | None = None,
    default: Iterable[str] = DEFAULT,
) -> list[str]:
    """The capabilities of a container, by docker's rules.

    `--cap-add ALL` begins with every capability in `available` (None: all that Linux
    has), `--cap-drop ALL` with none; what is named besides `ALL` counts on top. A name
    both added and dropped stays, as in docker, unless all are added.
    """
    added = [normalize(name) for name in add]
    dropped = [normalize(name) for name in drop]
    if ALL in added:
        start = NAMES if available is None else tuple(available)
        return [name for name in start if name not in dropped]
    kept = () if ALL in dropped else default
    result = [name for name in kept if name not in dropped]
    return result + [name for name in dict.fromkeys(added) if name not in result]
