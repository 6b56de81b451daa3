"""QEMU's monitor (QMP). Every question has an end: a QEMU that is stuck answers none."""

from __future__ import annotations

import contextlib
import re
import threading

from wherry.errors import MachineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Coroutine, Iterator
    from typing import Any

_PATIENCE, _LOOK = 10, 5
"""Seconds for an answer where the host has other things to do, and to see whether one comes."""

_UNLIMITED = 1 << 40


class Monitor:
    """The connection that QEMU has made to us; one question at a time, of any thread."""

    def __init__(self, stream: socket.socket) -> None:
        """Raises MachineError where what has connected does not greet."""
        import asyncio

        from qemu.qmp import QMPClient

        self._loop = asyncio.new_event_loop()
        self._client = QMPClient()
        self._lock = threading.Lock()
        self._do(self._client.connect(stream))

    def command(self, line: str) -> str:
        """What the human monitor says to a line. Raises MachineError where it says nothing."""
        words = {"command-line": line}
        said: str = self._do(self._client.execute("human-monitor-command", words))
        return said

    def is_mute(self, patience: float = _LOOK) -> bool:
        """Whether QEMU does not even tell what it is doing, and so is stuck itself."""
        try:
            self._do(self._client.execute("query-status"), patience)
        except MachineError:
            return True
        return False

    def forwarded_port(self) -> int:
        """The port of this host that QEMU forwards to the guest's SSH server."""
        said = self.command("info usernet")
        found = re.search(r"\[HOST_FORWARD\] +\d+ +127\.0\.0\.1 +(\d+)", said)
        if found is None:
            raise MachineError(f"QEMU does not tell which port leads to the guest: {said.strip()}")
        return int(found[1])

    def replace_port(self, bus: str, old: str, name: str, path: str) -> None:
        """Put a virtio-serial port called `name`, which connects to the socket at `path`, in
        the place of the one of device `bus` with the identity `old`. Raises MachineError."""
        address = {"type": "unix", "data": {"path": path}}
        backend = {"type": "socket", "data": {"addr": address, "server": False}}
        self._execute("chardev-add", id=name, backend=backend)
        # The channel of the old one stays: QEMU holds on to it for a while.
        self._execute("device_del", id=old)
        port = {"bus": f"{bus}.0", "id": name, "chardev": name, "name": name}
        self._execute("device_add", driver="virtserialport", **port)

    def send_guest(self, path: str) -> None:
        """Stop the guest, and have QEMU send all of it to the socket at `path`."""
        self._execute("stop")
        self._execute("migrate-set-parameters", **{"max-bandwidth": _UNLIMITED})
        self._execute("migrate", uri=f"unix:{path}")

    def receive_guest(self, path: str) -> None:
        """Have QEMU listen at `path` for what `send_guest` sent."""
        self._execute("migrate-incoming", uri=f"unix:{path}")

    def migration(self) -> str:
        """How far either of the two is: "completed" and "failed" are its ends."""
        return str(self._execute("query-migrate").get("status"))

    def go_on(self) -> None:
        """Have the guest run that was stopped."""
        self._execute("cont")

    def _execute(self, command: str, **arguments: object) -> Any:
        return self._do(self._client.execute(command, arguments))

    def close(self) -> None:
        """Ask nothing more."""
        with contextlib.suppress(MachineError):
            self._do(self._client.disconnect())
        self._loop.close()

    def _do(self, task: Coroutine[Any, Any, Any], patience: float = _PATIENCE) -> Any:
        import asyncio

        with self._lock, _errors():
            return self._loop.run_until_complete(asyncio.wait_for(task, patience))


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """qemu.qmp's errors as ours."""
    from qemu.qmp import QMPError

    try:
        yield
    except (QMPError, OSError, EOFError) as error:
        why = "it is silent" if isinstance(error, TimeoutError) else str(error)
        raise MachineError(f"QEMU's monitor does not answer: {why}") from error
