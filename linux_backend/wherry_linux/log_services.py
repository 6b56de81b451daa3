"""`--log-driver journald` and `syslog`: the lines of a container on their way to the host's log.

A service that cannot be reached when the container starts is an error. One that goes away
later, or takes no more, costs the lines that it does not take: the container goes on.
"""

from __future__ import annotations

import os
import struct
import time

from wherry.container import log_drivers
from wherry.container.logs import cut
from wherry.errors import WherryError
from wherry.lean import sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from wherry.container.store import Container

_JOURNAL = "/run/systemd/journal/socket"
# syslog(3)'s levels: what went to stderr is an error.
_LEVELS = {"stdout": 6, "stderr": 3}
# So long may a service take over a line before it is given up.
_PATIENCE = 1.0


class LogService:
    """Cuts what a container writes into lines, and sends them one by one."""

    def __init__(self) -> None:
        self._partial = {"stdout": b"", "stderr": b""}

    def write(self, stream: str, data: bytes) -> None:
        """Send the lines that are whole, and keep the rest until its end comes."""
        *lines, rest = (self._partial[stream] + data).split(b"\n")
        *pieces, rest = cut(rest)
        for line in lines:
            for piece in cut(line):
                self._send(stream, piece)
        for piece in pieces:
            self._send(stream, piece)
        self._partial[stream] = rest

    def finish(self) -> None:
        """Send what is left of unfinished lines."""
        for stream, rest in self._partial.items():
            if rest:
                self._partial[stream] = b""
                self._send(stream, rest)

    def unfinished(self) -> dict[str, str]:
        """The beginnings of lines, for `go_on` of another service."""
        return {stream: rest.decode("latin-1") for stream, rest in self._partial.items()}

    def go_on(self, unfinished: Mapping[str, str]) -> None:
        for stream, rest in unfinished.items():
            self._partial[stream] = rest.encode("latin-1")

    def _send(self, stream: str, line: bytes) -> None:
        raise NotImplementedError


def open_service(driver: str, container: Container) -> LogService:
    """The log of the host that `driver` names. Raises WherryError where it is not there."""
    return Journal(container) if driver == "journald" else Syslog(container)


class Journal(LogService):
    """systemd's journal, by its own protocol: a datagram of fields for each line."""

    def __init__(self, container: Container) -> None:
        super().__init__()
        tag = log_drivers.tag(container)
        fields = {
            "CONTAINER_ID": container.id[:12],
            "CONTAINER_ID_FULL": container.id,
            "CONTAINER_NAME": container.name,
            "CONTAINER_TAG": tag,
            "IMAGE_NAME": container.record["ImageName"],
            "SYSLOG_IDENTIFIER": tag,
            **_journal_fields(log_drivers.attributes(container)),
        }
        self._fields = b"".join(
            _field(name, text.encode("utf-8", "surrogateescape")) for name, text in fields.items()
        )
        self._socket = _connect(sockets.SOCK_DGRAM, _JOURNAL, "journald")

    def _send(self, stream: str, line: bytes) -> None:
        priority = _field("PRIORITY", b"%d" % _LEVELS[stream])
        try:
            self._socket.send(_field("MESSAGE", line) + priority + self._fields)
        except OSError:
            pass  # the journal takes no more, or has been started anew
        else:
            return
        try:
            self._socket.connect(_JOURNAL)
            self._socket.send(_field("MESSAGE", line) + priority + self._fields)
        except OSError:
            pass


def _journal_fields(attributes: Mapping[str, str]) -> dict[str, str]:
    """The journal takes capitals, digits and `_`, and no `_` or digit in front."""
    named = {}
    for name, text in attributes.items():
        clean = "".join(
            letter if letter.isascii() and letter.isalnum() else "_" for letter in name.upper()
        )
        if clean := clean.lstrip("_0123456789")[:64]:
            named[clean] = text
    named.pop("TAG", None)  # that is CONTAINER_TAG
    return named


def _field(name: str, content: bytes) -> bytes:
    """A field with its length, so that it may hold anything."""
    return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(content)), content)


class Syslog(LogService):
    """syslog(3), here or elsewhere, in the formats that docker has."""

    def __init__(self, container: Container) -> None:
        super().__init__()
        _, options = log_drivers.driver_of(container.body["HostConfig"])
        self._facility = log_drivers.facility(options)
        self._format = options.get("syslog-format") or ""
        self._tag = log_drivers.tag(container)
        self._transport, self._place, self._port = log_drivers.syslog_address(options)
        self._socket = self._open()

    def _open(self) -> Any:
        if self._transport == "unixgram":
            return _connect(sockets.SOCK_DGRAM, self._place, "syslog")
        if self._transport == "unix":
            return _connect(sockets.SOCK_STREAM, self._place, "syslog")
        return _connect_to_host(self._transport, self._place, self._port)

    def _send(self, stream: str, line: bytes) -> None:
        message = self._head(_LEVELS[stream]).encode("utf-8", "surrogateescape") + line
        if self._transport in ("tcp", "unix"):
            message += b"\n"
        for attempt in range(2):
            try:
                self._socket.sendall(message)
            except OSError:
                if attempt:
                    return
            else:
                return
            try:
                self._socket.close()
                self._socket = self._open()
            except (OSError, WherryError):
                return

    def _head(self, level: int) -> str:
        priority, pid = self._facility << 3 | level, os.getpid()
        if self._format.startswith("rfc5424"):
            name, tag = os.uname().nodename, self._tag.replace(" ", "_") or "-"
            return f"<{priority}>1 {self._long_time()} {name} {tag} {pid} {tag} - "
        moment = time.localtime()
        stamp = f"{time.strftime('%b', moment)} {moment.tm_mday:2} {time.strftime('%X', moment)}"
        name = f"{os.uname().nodename} " if self._format else ""
        return f"<{priority}>{stamp} {name}{self._tag}[{pid}]: "

    def _long_time(self) -> str:
        nanoseconds = time.time_ns()
        fraction = f".{nanoseconds // 1000 % 1_000_000:06}" if "micro" in self._format else ""
        moment = time.gmtime(nanoseconds // 1_000_000_000)
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', moment)}{fraction}Z"


def _connect(kind: int, path: str, driver: str) -> Any:
    connection = sockets.socket(sockets.AF_UNIX, kind | sockets.SOCK_CLOEXEC)
    connection.settimeout(_PATIENCE)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise WherryError(
            f"failed to initialize logging driver {driver}: {path}: {error.strerror}",
            hint="without that service there is `--log-driver json-file`",
        ) from error
    return connection


def _connect_to_host(transport: str, host: str, port: int) -> Any:
    import socket

    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    reason: OSError | None = None
    try:
        found = socket.getaddrinfo(host, port, type=kind)
    except OSError as error:
        found, reason = [], error
    for family, _, _, _, address in found:
        connection = socket.socket(family, kind | socket.SOCK_CLOEXEC)
        connection.settimeout(_PATIENCE)
        try:
            connection.connect(address)
        except OSError as error:
            connection.close()
            reason = error
        else:
            return connection
    raise WherryError(
        f"failed to initialize logging driver syslog: {transport}://{host}:{port}:"
        f" {(reason and reason.strerror) or reason}"
    ) from reason
