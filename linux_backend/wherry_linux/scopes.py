"""Scopes of a user's systemd: how a process gets to where its user may make control groups.

A login session is a group of root's, and nobody moves a process out of it but systemd
itself. It does so for StartTransientUnit of org.freedesktop.systemd1(5): the scope that
it makes with `Delegate` is below the user's own manager, and the user's to divide.

Root needs none of this: it makes its groups itself, beside those of systemd's.
"""

from __future__ import annotations

import os

from wherry.errors import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SECONDS = 10.0
_SERVICE = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
_MANAGER = "org.freedesktop.systemd1.Manager"
_SLICE = "app.slice"


def manager_group(base: str) -> str | None:
    """The group of this user's own systemd, where it runs and can be asked."""
    uid = os.getuid()
    path = f"/user.slice/user-{uid}.slice/user@{uid}.service"
    return path if os.access(base + path, os.W_OK) and _bus() else None


def scope_path(manager: str, container_id: str) -> str:
    """The group that the scope of a container will be, below that of `manager`."""
    return f"{manager}/{_SLICE}/wherry-{container_id}.scope"


def scope_of(path: str) -> str:
    """The unit in `path` that has to be there before the group can be made; "" for none."""
    for part in path.split("/"):
        if part.startswith("wherry-") and part.endswith(".scope"):
            return part
    return ""


def enter(unit: str) -> None:
    """Move this process into a new scope. Raises Unsupported."""
    failure = f"cannot enter a control group of this user's: systemd does not make {unit}"
    try:
        import jeepney
        from jeepney.io.blocking import open_dbus_connection
    except ImportError:
        raise Unsupported(failure, hint="it takes the package jeepney") from None
    try:
        with open_dbus_connection(f"unix:path={_bus()}") as connection:
            refused = _start(connection, jeepney, unit)
    except (OSError, StopIteration, jeepney.DBusErrorResponse) as error:
        raise Unsupported(f"{failure}: {error or 'its bus does not answer'}") from error
    if refused:
        raise Unsupported(f"{failure}: {refused}")


def _bus() -> str:
    """The socket of the user's message bus; "" where there is none."""
    for directory in (os.environ.get("XDG_RUNTIME_DIR") or "", f"/run/user/{os.getuid()}"):
        if directory and os.path.exists(f"{directory}/bus"):
            return f"{directory}/bus"
    return ""


def _start(connection: Any, jeepney: Any, unit: str) -> str:
    """Start the scope, with this process in it; why that failed, or ""."""
    service, path = _SERVICE
    manager = jeepney.DBusAddress(path, bus_name=service, interface=_MANAGER)
    ended = jeepney.MatchRule(type="signal", interface=_MANAGER, member="JobRemoved", path=path)
    connection.send_and_get_reply(jeepney.message_bus.AddMatch(ended), timeout=_SECONDS)
    # systemd tells of its jobs to who has asked for that.
    connection.send_and_get_reply(jeepney.new_method_call(manager, "Subscribe"), timeout=_SECONDS)
    properties = [
        ("Description", ("s", "A container of wherry's")),
        ("Slice", ("s", _SLICE)),
        ("Delegate", ("b", True)),
        ("CollectMode", ("s", "inactive-or-failed")),
        ("PIDs", ("au", [os.getpid()])),
    ]
    with connection.filter(ended, bufsize=100) as jobs:
        call = jeepney.new_method_call(
            manager, "StartTransientUnit", "ssa(sv)a(sa(sv))", (unit, "fail", properties, [])
        )
        reply = connection.send_and_get_reply(call, timeout=_SECONDS)
        if reply.header.message_type == jeepney.MessageType.error:
            return str(reply.body[0] if reply.body else "it refused")
        while True:
            _, job, _, result = connection.recv_until_filtered(jobs, timeout=_SECONDS).body
            if job == reply.body[0]:
                return "" if result == "done" else f"its job ended with {result!r}"
