"""What the kernel has, and what of it has been delegated."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from wherry.errors import KernelError, WherryError
from wherry_linux import cgroups, group_places, idmap
from wherry_linux import constants as c
from wherry_linux import namespaces as kinds
from wherry_linux.doctor.finding import Finding, read
from wherry_linux.syscalls import mount_setattr, openat2
from wherry_linux.userns import run_unshared

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNIFIED = "systemd.unified_cgroup_hierarchy=1"
_DELEGATE = (
    "sudo mkdir -p /etc/systemd/system/user@.service.d && printf"
    " '[Service]\\nDelegate=cpu cpuset io memory pids\\n' | sudo tee"
    " /etc/systemd/system/user@.service.d/delegate.conf && sudo systemctl daemon-reload"
    " # then log in anew"
)


def namespaces() -> Iterator[Finding]:
    absent = [kind for kind in kinds.KINDS if not kinds.is_supported(kind)]
    if not absent:
        yield Finding(subject="namespaces", verdict="ok", text="the kernel has all eight")
        return
    needed = "Linux 5.6" if absent == ["time"] else "a kernel configured with them"
    yield Finding(
        subject="namespaces",
        verdict="limited",
        text=f"the kernel has no {', '.join(absent)} namespaces; they need {needed}",
        meanwhile="containers share the host's",
    )


def control_groups() -> Iterator[Finding]:
    base = cgroups.mount_point()
    if base is None:
        yield Finding(
            subject="control groups",
            verdict="limited",
            text="no cgroup v2 is mounted: containers cannot be limited or paused",
            mend=_boot_with(_UNIFIED),
            who="administrator",
            meanwhile="containers run without limits",
        )
        return
    path = group_places.place_for("doctor")
    if path is None:
        systemd = os.path.isdir("/run/systemd/system")
        yield Finding(
            subject="control groups",
            verdict="limited",
            text="none is delegated to this user: limits and pause do not work"
            + (
                f"; its own systemd would make one, but /run/user/{os.getuid()}/bus is not there"
                if systemd
                else "; it takes a service manager such as systemd to delegate"
            ),
            mend=f"sudo loginctl enable-linger {os.getuid()}" if systemd else "",
            who="administrator" if systemd else "",
            meanwhile="containers run without limits",
        )
        return
    offered = cgroups.controllers_for(path)
    absent = [name for name in ("cpu", "memory", "pids", "io", "cpuset") if name not in offered]
    if not absent:
        yield Finding(subject="control groups", verdict="ok", text="cgroup v2, all controllers")
        return
    hybrid = base != "/sys/fs/cgroup"
    yield Finding(
        subject="control groups",
        verdict="limited",
        text=f"pause works; {', '.join(absent)} cannot be limited: "
        + (
            "this host mounts those controllers as cgroup v1"
            if hybrid
            else "the groups above this user's do not hand them down"
        ),
        mend=_boot_with(_UNIFIED) if hybrid else _DELEGATE,
        who="administrator",
        meanwhile="containers run without those limits",
    )


def _boot_with(parameter: str) -> str:
    """The line that adds a kernel parameter to the boot loader's."""
    if idmap.find_program("grubby"):
        return f"sudo grubby --update-kernel=ALL --args={parameter} && sudo reboot"
    if idmap.find_program("update-grub"):
        return (
            f"sudo sed -i 's/^GRUB_CMDLINE_LINUX=\"/&{parameter} /' /etc/default/grub"
            " && sudo update-grub && sudo reboot"
        )
    return f"boot the kernel with {parameter}"


def seccomp() -> Iterator[Finding]:
    actions = read("/proc/sys/kernel/seccomp/actions_avail").split()
    if actions:
        yield Finding(subject="seccomp", verdict="ok", text=f"actions: {' '.join(actions)}")
        return
    yield Finding(
        subject="seccomp",
        verdict="missing",
        text="the kernel has no filters of system calls",
        mend="wherry run --security-opt seccomp=unconfined …",
        who="you",
    )


def mounts() -> Iterator[Finding]:
    descriptor = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        os.close(openat2(descriptor, "/", os.O_PATH, resolve=c.RESOLVE_IN_ROOT))
    except KernelError:
        yield Finding(
            subject="mounts",
            verdict="missing",
            text="openat2(2) does not work: the kernel is older than Linux 5.6,"
            " or a container around this one forbids it",
        )
        return
    finally:
        os.close(descriptor)
    try:
        run_unshared(_make_root_readonly, mounts=True)
    except WherryError:
        yield Finding(
            subject="mounts",
            verdict="limited",
            text="mount_setattr(2) does not work (Linux 5.12 has it): no idmapped mounts",
            meanwhile="a read-only bind mount does not cover the mounts below it",
        )
        return
    yield Finding(
        subject="mounts", verdict="ok", text="openat2, and recursive read-only by mount_setattr"
    )


def _make_root_readonly() -> None:
    mount_setattr(c.AT_FDCWD, "/", c.AT_RECURSIVE, attr_set=c.MOUNT_ATTR_RDONLY)
