"""Scopes of systemd: the units in which it has the groups of processes that others start.

Where systemd runs the tree of control groups is its own, but for what it delegates: the
scope that StartTransientUnit of org.freedesktop.systemd1(5) makes with `Delegate` is the
caller's to divide. Root asks the host's systemd, another user the one of that user's,
which alone can take a process out of a login session.

    SLICE/UNIT.scope/monitor      who made it: a group with processes hands no controllers down
    SLICE/UNIT.scope/container    the container. systemd leaves it alone, a reload does, too

A scope ends with its last process, and systemd removes what is below it.
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
_EXISTS = "org.freedesktop.systemd1.UnitExists"
_SYSTEM_BUS = "/run/dbus/system_bus_socket"
_LEAF = "container"


def manager_group(base: str) -> str | None:
    """The group of the systemd that makes this user's scopes, "" for root's; None for none.

    `base` is where the tree of version 2 is mounted.
    """
    uid = _user()
    if not _bus(uid):
        return None
    if uid == 0:
        # In a hybrid tree this one has no controllers.
        is_booted = base == "/sys/fs/cgroup" and os.path.isdir("/run/systemd/system")
        return "" if is_booted else None
    path = f"/user.slice/user-{uid}.slice/user@{uid}.service"
    return path if os.access(base + path, os.W_OK) else None


def group_in(manager: str, slice_name: str, unit: str, below: str = "") -> str:
    """The group of a container whose scope is `unit`, in a slice or, for "", the usual one."""
    chosen = slice_name or ("app.slice" if manager else "system.slice")
    return "/".join((manager, *slices(chosen), unit, *([below] if below else []), _LEAF))


def slices(name: str) -> list[str]:
    """systemd.slice(5): a-b.slice is in a.slice; -.slice is the root."""
    if name == "-.slice":
        return []
    parts = name.removesuffix(".slice").split("-")
    return ["-".join(parts[: count + 1]) + ".slice" for count in range(len(parts))]


def scope_of(path: str) -> str:
    """The path of the scope that has to be there before the group at `path`; "" for none."""
    above, unit, below = path.partition(".scope/")
    return above + unit.rstrip("/") if unit and f"/{below}".endswith(f"/{_LEAF}") else ""


def enter(scope: str) -> None:
    """Move this process into a new scope, which will have that path. Raises Unsupported."""
    unit = os.path.basename(scope)
    above = os.path.basename(os.path.dirname(scope))
    failure = f"cannot make a control group: systemd does not make {unit}"
    try:
        import jeepney
        from jeepney.io.blocking import DBusConnection
    except ImportError:
        raise Unsupported(failure, hint="it takes the package jeepney") from None
    properties = [
        ("Description", ("s", "A container of wherry's")),
        ("Slice", ("s", above if above.endswith(".slice") else "-.slice")),
        ("Delegate", ("b", True)),
        ("CollectMode", ("s", "inactive-or-failed")),
        ("PIDs", ("au", [os.getpid()])),
    ]
    try:
        with DBusConnection(_authenticated(_user())) as connection:
            refused = _start(connection, jeepney, unit, properties)
    except (OSError, StopIteration, jeepney.DBusErrorResponse) as error:
        raise Unsupported(f"{failure}: {error or 'its bus does not answer'}") from error
    if refused:
        raise Unsupported(f"{failure}: {refused}")


def _user() -> int:
    """Who this process is to systemd: an engine may have made its user root of a namespace."""
    uid = os.geteuid()
    with open("/proc/self/uid_map") as file:
        for line in file:
            inside, outside, count = map(int, line.split())
            if inside <= uid < inside + count:
                return outside + uid - inside
    return uid


def _bus(uid: int) -> str:
    """The socket of the message bus that this user's systemd is on; "" where there is none."""
    if uid == 0:
        return _SYSTEM_BUS if os.path.exists(_SYSTEM_BUS) else ""
    for directory in (os.environ.get("XDG_RUNTIME_DIR") or "", f"/run/user/{uid}"):
        if directory and os.path.exists(f"{directory}/bus"):
            return f"{directory}/bus"
    return ""


def _authenticated(uid: int) -> Any:
    """A socket on which the bus knows who we are: jeepney would give it the id from within."""
    import socket

    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_SECONDS)
    try:
        connection.connect(_bus(uid))
        # dbus-specification, "Authentication Protocol": the id's digits in hexadecimal.
        connection.sendall(b"\0AUTH EXTERNAL %b\r\n" % str(uid).encode().hex().encode())
        answer = connection.makefile("rb", buffering=0).readline(1024)
        if not answer.startswith(b"OK "):
            raise OSError(f"its bus answers {answer.decode(errors='replace').strip()!r}")
        connection.sendall(b"BEGIN\r\n")
    except BaseException:
        connection.close()
        raise
    connection.settimeout(None)
    return connection


def _start(connection: Any, jeepney: Any, unit: str, properties: list[Any]) -> str:
    """Start the scope, with this process in it; why that failed, or ""."""
    service, path = _SERVICE
    manager = jeepney.DBusAddress(path, bus_name=service, interface=_MANAGER)
    told = jeepney.MatchRule(type="signal", interface=_MANAGER, path=path)
    connection.send_and_get_reply(jeepney.message_bus.AddMatch(told), timeout=_SECONDS)
    # systemd tells of its jobs and units to who has asked for that.
    connection.send_and_get_reply(jeepney.new_method_call(manager, "Subscribe"), timeout=_SECONDS)
    call = jeepney.new_method_call(
        manager, "StartTransientUnit", "ssa(sv)a(sa(sv))", (unit, "fail", properties, [])
    )
    with connection.filter(told, bufsize=1000) as signals:

        def wait_for(member: str, at: int, value: str) -> Any:
            """The body of the signal whose argument `at` is `value`."""
            while True:
                signal = connection.recv_until_filtered(signals, timeout=_SECONDS)
                name = signal.header.fields[jeepney.HeaderFields.member]
                if name == member and signal.body[at] == value:
                    return signal.body

        while True:
            reply = connection.send_and_get_reply(call, timeout=_SECONDS)
            if reply.header.message_type != jeepney.MessageType.error:
                result = wait_for("JobRemoved", 1, reply.body[0])[3]
                return "" if result == "done" else f"its job ended with {result!r}"
            if reply.header.fields[jeepney.HeaderFields.error_name] != _EXISTS:
                return str(reply.body[0] if reply.body else "it refused")
            # That of the container's last run, about to go.
            wait_for("UnitRemoved", 0, unit)
