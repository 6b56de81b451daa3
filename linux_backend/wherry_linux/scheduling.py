"""runtime-spec `process.scheduler`: sched_setattr(2)."""

from __future__ import annotations

import ctypes

from wherry.errors import UsageError
from wherry_linux.constants import SYS_sched_setattr
from wherry_linux.syscalls import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.oci.runtime_spec import Scheduler

# linux/sched.h
_POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}


class _Attributes(ctypes.Structure):
    """struct sched_attr, version 0."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def set_scheduler(scheduler: Scheduler) -> None:
    """Apply the policy to this process. Raises UsageError for an unknown one, KernelError."""
    policy = _POLICIES.get(scheduler["policy"])
    if policy is None:
        raise UsageError(f"unknown scheduling policy {scheduler['policy']}")
    flags = 0
    for name in scheduler.get("flags") or ():
        if name not in _FLAGS:
            raise UsageError(f"unknown scheduling flag {name}")
        flags |= _FLAGS[name]
    attributes = _Attributes(
        ctypes.sizeof(_Attributes),
        policy,
        flags,
        scheduler.get("nice", 0),
        scheduler.get("priority", 0),
        scheduler.get("runtime", 0),
        scheduler.get("deadline", 0),
        scheduler.get("period", 0),
    )
    syscall(
        SYS_sched_setattr,
        0,
        ctypes.byref(attributes),
        0,
        action=f"set scheduling policy {scheduler['policy']}",
    )
