"""The default network, published ports, and ping."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from wherry.errors import WherryError
from wherry_linux import idmap
from wherry_linux.constants import CLONE_NEWNET, CLONE_NEWNS
from wherry_linux.doctor.finding import Finding, install, read, set_sysctl
from wherry_linux.network import links
from wherry_linux.network.netlink import Connection
from wherry_linux.userns import in_child

if TYPE_CHECKING:
    from collections.abc import Iterator

_TUN = "/dev/net/tun"
_MEANWHILE = "--network host and --network none"


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


def _has_bridges() -> bool:
    """Whether this kernel makes us a bridge, tried where nobody else sees it."""
    try:
        in_child(_make_bridge, CLONE_NEWNET | CLONE_NEWNS, None)
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
