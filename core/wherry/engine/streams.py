"""The standard streams of a process that no monitor looks after.

A container gets pipes and nothing else. With a terminal of ours it could read what is
typed after the command has returned, and a file that we may only append to it could open
anew to read it, through /proc/self/fd; a directory leads to the whole host.
"""

from __future__ import annotations

import os
import stat

from wherry.lean import posix, select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Streams:
    """Our standard streams, each that is no pipe with a pipe before it."""

    def __init__(self, stdio: Sequence[int], *, stdin: bool, others: bool = False) -> None:
        """`stdio` are descriptors of ours, which stay ours; `stdin`: the first is wanted.

        `others`: who uses them is another user than we, and opens them by name maybe.
        """
        self.theirs = list(stdio)
        # Our end of the input's pipe, and from where to where output goes.
        self._input = -1
        self._source = stdio[0]
        self._outputs: dict[int, int] = {}
        self._pending = b""
        if stdin and not _is_pipe(stdio[0], others):
            self.theirs[0], self._input = posix.pipe2(posix.O_CLOEXEC)
            posix.set_blocking(self._input, False)
        for number in (1, 2):
            if not _is_pipe(stdio[number], others):
                reader, self.theirs[number] = posix.pipe2(posix.O_CLOEXEC)
                posix.set_blocking(reader, False)
                self._outputs[reader] = stdio[number]
        self._ours = set(self.theirs) - set(stdio)

    def given(self) -> list[int]:
        """Of `theirs` those that are nobody else's."""
        return list(self._ours)

    def close(self) -> None:
        """Give up what is still open."""
        for descriptor in self._ours:
            os.close(descriptor)
        self._ours.clear()
        self._end_input()
        for descriptor in list(self._outputs):
            self._end_output(descriptor)

    def relay(self, pid: int) -> None:
        """Pass on until process `pid`, which has `theirs`, has ended."""
        for descriptor in self._ours:
            os.close(descriptor)
        self._ours.clear()
        if self._input < 0 and not self._outputs:
            return
        try:
            process = posix.pidfd_open(pid)
        except ProcessLookupError:
            process = -1  # it has ended already
        try:
            while process >= 0 and (self._input >= 0 or self._outputs):
                if process in self._pass_on(process):
                    break
            for descriptor in list(self._outputs):
                while self._write_output(descriptor):
                    pass
        finally:
            if process >= 0:
                os.close(process)
            self.close()

    def _pass_on(self, process: int) -> set[int]:
        poll = select.poll()
        poll.register(process, select.POLLIN)
        for descriptor in self._outputs:
            poll.register(descriptor, select.POLLIN)
        if self._input >= 0:
            # An input that nobody reads any more says so without being asked.
            poll.register(self._input, select.POLLOUT if self._pending else 0)
            if not self._pending:
                poll.register(self._source, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll()}
        for descriptor in ready & self._outputs.keys():
            self._write_output(descriptor)
        if self._input in ready:
            self._write_input() if self._pending else self._end_input()
        elif self._input >= 0 and not self._pending and self._source in ready:
            self._read_input()
        return ready

    def _read_input(self) -> None:
        try:
            self._pending = os.read(self._source, 1 << 16)
        except OSError:
            self._pending = b""  # a directory, a terminal that has hung up
        if self._pending:
            self._write_input()
        else:
            self._end_input()

    def _write_input(self) -> None:
        try:
            self._pending = self._pending[os.write(self._input, self._pending) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._end_input()

    def _end_input(self) -> None:
        if self._input >= 0:
            os.close(self._input)
        self._input = -1
        self._pending = b""

    def _write_output(self, descriptor: int) -> bool:
        """Pass on what is there; False if there is nothing more for now, or ever."""
        from wherry.files import write_all

        try:
            data = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return False
        if data:
            try:
                write_all(self._outputs[descriptor], data)
                return True
            except OSError:
                pass  # a full disk, a closed socket: the program learns it as of a pipe
        self._end_output(descriptor)
        return False

    def _end_output(self, descriptor: int) -> None:
        del self._outputs[descriptor]
        os.close(descriptor)


def _is_pipe(descriptor: int, others: bool) -> bool:
    """Whether this is a pipe that can be passed on as it is."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return True  # closed, as the caller wanted it
    return stat.S_ISFIFO(found.st_mode) and not others and found.st_uid == posix.geteuid()
