"""The default network in user mode: a helper process for each container that is on no other.

pasta publishes ports for datagrams, and keeps their clients' addresses; but not those of IPv6
where the host has no way out by that. Those we publish, for slirp4netns all, and everywhere those
for connections: pasta copies each byte twice, and what it sends waits for it.
"""

from __future__ import annotations

import os

from wherry.container.ports import wanted_ports
from wherry.errors import Unsupported, WherryError
from wherry.files import make_dir
from wherry_linux.network import helpers, publishing, senders
from wherry_linux.network.entering import within

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Any

    from wherry.container.store import Container

    Published = dict[str, Any]
    Service = dict[str, Any]

_PID_FILE = "network.pid"
INTERFACE = "eth0"


def connect(
    container: Container, pid: int
) -> tuple[list[Published], dict[str, Any], list[Service]]:
    """Connect the network namespace of `pid`; returns once the interface is up.

    What is published, the helper's record, and what the container's monitor has to serve.
    """
    directory = make_dir(container.run_directory)
    published = hold(wanted_ports(container.body))
    helped = [each for each in published if helpers.publishes() and _is_helpers(each)]
    # They were bound to be told of a busy one, and who has it; the helper does so itself.
    publishing.let_go(helped)
    for each in helped:
        each.update(Descriptor=-1, Helped=True)
    try:
        helper = helpers.start(
            helpers.Task(
                pid=pid,
                pid_file=os.path.join(directory, _PID_FILE),
                log=container.path("network.log"),
                published=helped,
                interface=INTERFACE,
            )
        )
        return published, helper, services(published, pid)
    except BaseException:
        publishing.let_go(published)
        raise


def hold(bindings: dict[str, Any], busy: Collection[tuple[str, int]] = ()) -> list[Published]:
    """Bind the host's ports that are published without root. Raises Conflict, Unsupported."""
    if any(port.endswith("/sctp") for port in bindings):
        raise Unsupported("only root can publish SCTP ports")
    return publishing.hold(bindings, busy)


def services(published: Sequence[Published], pid: int) -> list[Service]:
    """What has to be served for the ports that no helper publishes."""
    from wherry_linux.network.addresses import addresses, ipv6_addresses

    own, ipv6 = (next(iter(found), "") for found in (addresses(pid), ipv6_addresses(pid)))
    place = {"IPAddress": own, "GlobalIPv6Address": ipv6, "Wherry": {"DefaultRoute": True}}
    held = [each for each in published if not each.get("Helped")]
    return reached_within(publishing.services(held, [place]), pid)


def reached_within(found: Sequence[Service], pid: int) -> list[Service]:
    """Services that reach the container from its own network namespace, which is the shortest way.

    Only connections keep their senders there.
    """
    keeps = False
    if any(each["Protocol"] == "tcp" for each in found):
        try:
            keeps = bool(within(pid, senders.prepare_within))
        except (OSError, WherryError):
            pass  # it has just ended
    return [
        {**each, "Within": pid, "Senders": keeps and each["Protocol"] == "tcp"} for each in found
    ]


def _is_helpers(published: Published) -> bool:
    return published["Port"].endswith("/udp") and ":" not in published["Place"]


def disconnect(run_directory: str, helper: dict[str, Any] | None) -> None:
    """End the helper of a container, if it had one."""
    if helper is not None:
        helpers.end(helper)
    helpers.end_forgotten(os.path.join(run_directory, _PID_FILE))
