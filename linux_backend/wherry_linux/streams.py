"""A container's streams and terminal, between its processes, its log and whoever is attached."""

from __future__ import annotations

import os
import select

from wherry.container.logs import LogWriter
from wherry.container.wire import STDERR, STDOUT, frame
from wherry_linux.loop import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.container.store import Container
    from wherry_linux.clients import Client
    from wherry_linux.log_services import LogService

# What clients have typed and the container has not read may be this much before they wait.
_LARGEST_INPUT = 1 << 20


class Streams(Loop):
    """The monitor's ends of them."""

    def __init__(self, container: Container) -> None:
        super().__init__()
        self.container = container
        self.clients: list[Client] = []
        self.log: LogWriter | None = None
        # journald or syslog, where the log goes there too.
        self.service: LogService | None = None
        self.stdin = -1
        self.outputs: dict[int, str] = {}
        self.terminal = -1
        self.stdin_queue = bytearray()
        self.stdin_ended = False

    def open_log(self) -> None:
        """Make the container's log ready, unless it has none."""
        config = self.container.body["HostConfig"].get("LogConfig") or {}
        path = self.container.path("container.log")
        if config.get("Type") in (None, "", "json-file") and not config.get("Config"):
            self.log = LogWriter(path)
            return
        from wherry.container import log_drivers

        driver, options = log_drivers.driver_of(self.container.body["HostConfig"])
        if log_drivers.is_kept(driver, options):
            self.log = LogWriter(
                path,
                *log_drivers.limits(options),
                compressed=log_drivers.is_compressed(options),
                attributes=log_drivers.attributes(self.container),
            )
        if driver in ("journald", "syslog"):
            from wherry_linux.log_services import open_service

            self.service = open_service(driver, self.container)

    def _output(self, _mask: int) -> None:
        for descriptor in list(self.outputs):
            self._read_output(descriptor)

    def _read_output(self, descriptor: int) -> bool:
        """Pass on what is there; False once there is nothing more for now."""
        try:
            data = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return False
        except OSError:
            data = b""  # EIO: nobody has the terminal open any more
        stream = self.outputs[descriptor]
        if not data:
            self.unwatch(descriptor)
            del self.outputs[descriptor]
            if descriptor != self.terminal:
                os.close(descriptor)
            return False
        if self.log is not None:
            self.log.write(stream, data)
        if self.service is not None:
            self.service.write(stream, data)
        kind = STDOUT if stream == "stdout" else STDERR
        packet = frame(kind, data)
        for client in list(self.clients):
            if kind in client.wants:
                client.send(packet)
        if self._is_held():
            self.resume_outputs()
        return True

    def _is_held(self) -> bool:
        """Whether the container has to wait until its slowest reader has caught up."""
        return any(client.is_behind() for client in self.clients)

    def resume_outputs(self) -> None:
        """Watch the container's output, or wait with it until every client has caught up."""
        held = self._is_held()
        for descriptor in self.outputs:
            if descriptor == self.terminal:
                self._watch_terminal(held)
            elif held:
                self.unwatch(descriptor)
            elif descriptor not in self.handlers:
                self.watch(descriptor, select.EPOLLIN, self._output)

    def _watch_terminal(self, held: bool) -> None:
        mask = (0 if held else select.EPOLLIN) | (select.EPOLLOUT if self.stdin_queue else 0)
        if mask:
            self.watch(self.terminal, mask, self._terminal_ready)
        else:
            self.unwatch(self.terminal)

    def _terminal_ready(self, mask: int) -> None:
        if mask & select.EPOLLOUT:
            self._flush_stdin(mask)
        if mask & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            self._output(mask)

    def write_stdin(self, data: bytes) -> None:
        """What an attached client typed."""
        if self.stdin < 0 or self.stdin_ended:
            return
        self.stdin_queue += data
        self._flush_stdin(0)

    def end_stdin(self) -> None:
        """No attached client has anything more to say. A terminal goes on without one."""
        if self.stdin < 0 or self.stdin == self.terminal:
            return
        if self.container.body.get("StdinOnce"):
            self.stdin_ended = True
            self._flush_stdin(0)

    def _flush_stdin(self, _mask: int) -> None:
        was_full = self.stdin_is_full()
        while self.stdin_queue:
            try:
                written = os.write(self.stdin, self.stdin_queue)
            except BlockingIOError:
                break
            except OSError:
                self.stdin_queue.clear()  # nobody reads it
                self.stdin_ended = True
                break
            del self.stdin_queue[:written]
        if was_full and not self.stdin_is_full():
            for client in self.clients:
                client.watch()
        if self.stdin_queue or self.stdin == self.terminal:
            self._wait_for_stdin()
            return
        self.unwatch(self.stdin)
        if self.stdin_ended:
            os.close(self.stdin)
            self.stdin = -1

    def _wait_for_stdin(self) -> None:
        if self.stdin != self.terminal:
            self.watch(self.stdin, select.EPOLLOUT, self._flush_stdin)
        elif self.terminal in self.outputs:
            self._watch_terminal(self._is_held())

    def stdin_is_full(self) -> bool:
        """Whether clients should hold back what they have to say."""
        return len(self.stdin_queue) > _LARGEST_INPUT
