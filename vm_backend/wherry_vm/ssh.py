"""The one SSH connection to the guest: SSH-2 (RFC 4251-4254), OpenSSH's PROTOCOL file.

The only module that imports paramiko, 0.2 s: the supervisor does, commands do not.
"""

from __future__ import annotations

import contextlib
import logging
import socket

import paramiko  # noqa: TID253 - whoever imports this module needs it
from paramiko.common import cMSG_CHANNEL_OPEN  # noqa: TID253

from wherry.errors import MachineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from wherry_vm.machines import Machine

_STREAMLOCAL = "direct-streamlocal@openssh.com"

_WINDOW = 4 << 20
_PACKET = 1 << 15

_PATIENCE = 30
"""Seconds for a handshake with an emulated guest that has other things to do."""

_KEX = "curve25519-sha256@libssh.org"
"""The exchange of keys that is cheapest where the guest's processor is emulated."""

# What goes wrong is told as an error of ours; paramiko would print it from its thread.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False


class GuestTransport(paramiko.Transport):  # type: ignore[misc]
    """A connection that can also open channels to UNIX sockets of the guest.

    paramiko knows no channels of OpenSSH's own kinds: what their opening says after the
    usual fields is added where the message is sent.
    """

    _path = ""
    _has_told = False

    def open_socket(self, path: str) -> SshChannel:
        """A channel to the UNIX socket at `path` of the guest. Raises MachineError."""
        self._path = path
        with ssh_errors(f"reach {path} in the guest"):
            channel = self.open_channel(
                _STREAMLOCAL, window_size=_WINDOW, max_packet_size=_PACKET, timeout=_PATIENCE
            )
        return SshChannel(channel)

    def last_word(self) -> str:
        """Why the connection has ended; nothing while it lasts, or once that has been told."""
        if self.is_active() or self._has_told:
            return ""
        self._has_told = True
        # The guest's end of it is an exception without a word.
        return str(self.get_exception() or "") or "the guest has closed it"

    def _send_user_message(self, data: Any) -> None:
        opening = paramiko.Message()
        opening.add_byte(cMSG_CHANNEL_OPEN)
        opening.add_string(_STREAMLOCAL)
        if data.asbytes().startswith(opening.asbytes()):
            data.add_string(self._path)
            data.add_string("")
            data.add_int(0)
        super()._send_user_message(data)


class SshChannel:
    """A channel to the guest's runner, as wherry_vm.channels has them."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self.recv, self.sendall = channel.recv, channel.sendall
        # Neither is the other's half: the runner hears of the end and ends.
        self.end = self.close = channel.close
        self._channel = channel

    def confirm(self) -> None:
        """It has been answered when it was opened."""

    def is_open(self) -> bool:
        """Whether both its ends are there."""
        channel = self._channel
        is_whole = not (channel.closed or channel.eof_received)
        return bool(is_whole and channel.transport.is_active())


def connect(machine: Machine, port: int) -> GuestTransport:
    """Connect to the machine's sshd at a port of 127.0.0.1. Raises MachineError.

    Its key has to be the one that it was given.
    """
    key = paramiko.Ed25519Key.from_private_key_file(machine.file("key"))
    host_key = paramiko.Ed25519Key.from_private_key_file(machine.file("host_key"))
    with ssh_errors("connect to the guest"):
        stream = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE)
        stream.settimeout(None)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport = GuestTransport(stream, default_window_size=_WINDOW)
        transport.banner_timeout = transport.auth_timeout = _PATIENCE
        transport.get_security_options().kex = (_KEX,)
        try:
            transport.start_client(timeout=_PATIENCE)
            if transport.get_remote_server_key() != host_key:
                raise MachineError(
                    "what answers on the guest's port is not the guest: its key is another",
                    hint="another program may have taken the port; try again",
                )
            transport.auth_publickey("root", key)
        except BaseException:
            transport.close()
            raise
    transport.set_keepalive(30)
    return transport


@contextlib.contextmanager
def ssh_errors(action: str) -> Iterator[None]:
    """paramiko's errors as ours."""
    try:
        yield
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise MachineError(f"cannot {action}: {str(error) or type(error).__name__}") from error
