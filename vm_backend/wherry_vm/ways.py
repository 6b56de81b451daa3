"""The ways to a running guest: virtio-serial ports for commands and shares, and SSH.

SSH is the only way where there are no ports (see wherry_vm.command_ports). Where there are it
serves when more commands run than there are ports, and nobody logs in before.
"""

from __future__ import annotations

import contextlib
import sys
import threading

from wherry.errors import MachineError
from wherry_vm.command_ports import CommandPorts
from wherry_vm.protocol import RUNNER_SOCKET
from wherry_vm.qemu.command import share_bus

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any

    from wherry_vm.boot import Boot
    from wherry_vm.channels import Channel
    from wherry_vm.machines import Machine
    from wherry_vm.shares.mounts import Mounts
    from wherry_vm.ssh import GuestTransport

_PATIENCE = 10
"""Seconds for QEMU to connect to a socket of ours."""


class Ways:
    """Those to the guest of one start; `say` tells its agent something."""

    def __init__(
        self,
        machine: Machine,
        attempt: Boot,
        mounts: Mounts,
        say: Callable[[dict[str, Any]], None],
    ) -> None:
        """Raises MachineError where QEMU has ended."""
        self._machine = machine
        self._attempt = attempt
        self._mounts = mounts
        self._say = say
        self._has_ports = bool(attempt.command_listeners)
        listeners = attempt.command_listeners
        self._ports = CommandPorts([attempt.accept(each, _PATIENCE) for each in listeners])
        # To log in takes long, and is no business of those who have a port.
        self._connecting, self._mounting = threading.Lock(), threading.Lock()
        self._ssh: GuestTransport | None = None

    def load(self) -> None:
        """Load what `log_in` needs, where it is needed."""
        if not self._has_ports:
            from wherry_vm import ssh  # noqa: F401

    def log_in(self) -> None:
        """Log in to a guest whose sshd listens, where that is the only way. Raises MachineError."""
        if not self._has_ports:
            self._session()

    def attach_shares(self) -> None:
        """Have the agent, which is ready, mount the shares that have ports."""
        if listeners := self._attempt.share_listeners:
            ports = [self._attempt.accept(each, _PATIENCE) for each in listeners]
            self._mounts.attach(ports, self._say)

    def look_after_shares(self) -> None:
        """Have all shares mounted. Raises MachineError: what is not there must not look empty."""
        self.log_in()
        with self._mounting:
            if not self._mounts.missing():
                return
            if self._has_ports:
                self._mounts.plug_in(self._plug_in, self._say)
            else:
                self._mounts.connect(self._ssh, self._say)
            self._mounts.settle()

    def open_channel(self, *, ahead: bool) -> Channel:
        """A channel to the guest's runner, perhaps `ahead` of a command. Raises MachineError."""
        port = self._ports.take(ahead=ahead)
        if port is None:
            return self._session().open_socket(RUNNER_SOCKET)
        if self._ports.are_few() and self._ssh is None:
            # Who finds none would have to wait for it.
            threading.Thread(target=self._log_in_early, daemon=True, name="log in").start()
        return port

    def hear(self, message: dict[str, Any]) -> None:
        """What the agent says of ports. Raises what is in wherry_vm.protocol.NONSENSE."""
        if message.get("event") == "ready":
            self._ports.open(map(int, message.get("commands", ())))
        elif message.get("event") == "lost":
            self._ports.lose(map(int, message["ports"]))

    def tell_of_end(self) -> None:
        """Tell the log once where the SSH connection has broken off."""
        if self._ssh is not None and (why := self._ssh.last_word()):
            print(f"wherry: the SSH connection to the guest broke off: {why}", file=sys.stderr)

    def _session(self) -> GuestTransport:
        """The SSH connection; a new one where it has broken off, as in a host that slept."""
        with self._connecting:
            if self._ssh is None:
                self._ssh = self._connect()
            elif not self._ssh.is_active():
                self.tell_of_end()
                self._ssh.close()
                if self._has_ports:
                    self._ssh = self._connect()
                else:
                    self._mounts.lose()
                    self._ssh = self._connect()
                    self._mounts.settle()
            return self._ssh

    def _connect(self) -> GuestTransport:
        """An SSH connection, with the shares on it that have no ports of their own."""
        from wherry_vm.ssh import connect

        session = connect(self._machine, self._attempt.ssh_port)
        if not self._has_ports:
            self._mounts.connect(session, self._say)
        return session

    def _log_in_early(self) -> None:
        # Whoever needs it will be told why it cannot be had.
        with contextlib.suppress(MachineError):
            self._session()

    def _plug_in(self, share: int, old: str, name: str) -> socket.socket:
        """Our end of a port called `name`, in the place of another of a share. Raises
        MachineError."""
        attempt = self._attempt
        assert attempt.monitor is not None
        listener, address = attempt.listen("share.sock")
        try:
            attempt.monitor.replace_port(share_bus(share), old, name, address)
        except MachineError as error:
            listener.close()
            raise MachineError(
                f"cannot share directories with the machine again: {error.message}",
                hint=f"wherry machine restart {self._machine.name}",
            ) from error
        return attempt.accept(listener, _PATIENCE)
