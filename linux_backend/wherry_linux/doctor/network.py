"""The default network, published ports, and ping."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from wherry.errors import WherryError
from wherry_linux import idmap
from wherry_linux.constants import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER
from wherry_linux.doctor.finding import Finding, install, read, set_sysctl
from wherry_linux.network import links
from wherry_linux.network.netlink import Connection
from wherry_linux.userns import in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TUN = "/dev/net/tun"
_MEANWHILE = "--network host, --network none and networks that are --internal"


def network() -> Iterator[Finding]:
    if os.geteuid() == 0 and _has_bridges():
        yield Finding(subject="network", verdict="ok", text="by bridges")
        return
    helper = next((n for n in ("pasta", "slirp4netns") if idmap.find_program(n)), None)
    if helper is None:
        yield Finding(
            subject="network",
            verdict="limited",
            text="there is neither pasta nor slirp4netns for the default network",
            mend=install("passt"),
            who="administrator",
            meanwhile=_MEANWHILE,
        )
        return
    try:
        os.close(os.open(_TUN, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        mend, text = f"sudo chmod 666 {_TUN}", "may not be opened by this user"
    except OSError:
        mend, text = "sudo modprobe tun", "is not there, or the kernel has no driver for it"
    else:
        yield Finding(subject="network", verdict="ok", text=f"by {helper}")
        return
    yield Finding(
        subject="network",
        verdict="limited",
        text=f"{helper} is there, but {_TUN} {text}",
        mend=mend,
        who="administrator",
        meanwhile=_MEANWHILE,
    )


def own_networks() -> Iterator[Finding]:
    """Those of `wherry network create`, without root."""
    if not _can(lambda: None):
        return  # it is user namespaces that are missing
    if _has_bridges():
        yield Finding(subject="own networks", verdict="ok", text="by bridges in a namespace")
        return
    yield Finding(
        subject="own networks",
        verdict="limited",
        text="this kernel makes no bridges for this user",
        mend="sudo modprobe -a bridge veth nf_tables",
        who="administrator",
        meanwhile="the default network, --network host and --network none",
    )


def _has_bridges() -> bool:
    """Whether this kernel makes us a bridge, tried where nobody else sees it."""
    return _can(_make_bridge)


def _can(function: Callable[[], None]) -> bool:
    """Whether it can be done in a network namespace of our own."""
    flags, maps = CLONE_NEWNET | CLONE_NEWNS, None
    if os.geteuid() != 0:
        flags |= CLONE_NEWUSER
        maps = idmap.rootless_maps(os.geteuid(), os.getegid())
    try:
        in_child(function, flags, maps)
    except WherryError:
        return False
    return True


def _make_bridge() -> None:
    try:
        with Connection() as route:
            route.send([links.bridge("wherry", "02:00:00:00:00:01")])
    except OSError as error:
        raise WherryError(f"no bridge: {error.strerror}") from error


def low_ports() -> Iterator[Finding]:
    first = read("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if first.isdigit() and int(first) > 80:
        yield Finding(
            subject="published ports",
            verdict="limited",
            text=f"this user may not publish ports below {first}",
            mend=set_sysctl("net.ipv4.ip_unprivileged_port_start", "80"),
            who="administrator",
            meanwhile="-p 8080:80",
        )
    else:
        yield Finding(subject="published ports", verdict="ok", text=f"from {first or 0} on")


def ping() -> Iterator[Finding]:
    bounds = read("/proc/sys/net/ipv4/ping_group_range").split()
    if len(bounds) == 2 and not int(bounds[0]) <= os.getegid() <= int(bounds[1]):
        yield Finding(
            subject="ping",
            verdict="limited",
            text="with --network host, ping has no permission (net.ipv4.ping_group_range)",
            mend=set_sysctl("net.ipv4.ping_group_range", "0 2147483647"),
            who="administrator",
            meanwhile="ping works in a network of the container's own",
        )
    else:
        yield Finding(subject="ping", verdict="ok", text="allowed")
