"""What a build elsewhere sends back: outputs that are files of the host that asks for it.

Its standard output has, in the order of those outputs, the contents of each in pieces with
their length in four bytes before them, up to a piece without any; after them what it prints.
"""

from __future__ import annotations

import os
import struct

from wherry.engine.piping import piped
from wherry.errors import MachineError, WherryError
from wherry.files import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wherry.builder.export import Output

_PIECE = 1 << 16
_STDOUT = 1


def send(write: Callable[[int], None]) -> None:
    """Have `write` fill a descriptor, and send that as the next output."""

    def frame(reader: int) -> None:
        while data := os.read(reader, _PIECE):
            write_all(_STDOUT, struct.pack(">I", len(data)) + data)

    piped(write, frame)
    write_all(_STDOUT, bytes(4))


def receive(outputs: Sequence[Output], forward: Callable[[int], int]) -> int:
    """Put what a build sends where `outputs` say; the build's exit code.

    `forward` has it write to a descriptor. What comes is written by a thread: signals are
    the other's business.
    """
    import threading

    reader, writer = os.pipe()
    problems: list[Exception] = []
    thread = threading.Thread(target=_write, args=(reader, outputs, problems))
    thread.start()
    try:
        code = forward(writer)
    finally:
        os.close(writer)
        thread.join()
        os.close(reader)
    if problems and not code:
        raise problems[0]
    return code


def _write(reader: int, outputs: Sequence[Output], problems: list[Exception]) -> None:
    from wherry.builder.export import keep

    try:
        for output in outputs:
            keep(output, _Pieces(reader))
        while data := os.read(reader, _PIECE):
            write_all(_STDOUT, data)
    except (OSError, WherryError) as error:
        problems.append(error)
        # Whoever sends must not be stopped before its end.
        while os.read(reader, _PIECE):
            pass


class _Pieces:
    """One output, to be read; the first piece has come when it is made."""

    def __init__(self, reader: int) -> None:
        self._reader = reader
        self._left = 0
        self._begin()

    def _begin(self) -> None:
        (self._left,) = struct.unpack(">I", self._take(4))

    def read(self, size: int = -1) -> bytes:
        """As much as is asked for, or all that is left."""
        found = bytearray()
        while self._left and (size < 0 or len(found) < size):
            wanted = self._left if size < 0 else min(self._left, size - len(found))
            found += self._take(wanted)
            self._left -= wanted
            if not self._left:
                self._begin()
        return bytes(found)

    def _take(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = os.read(self._reader, min(size - len(data), _PIECE))
            if not piece:
                raise MachineError("the build has ended before all of its output had come")
            data += piece
        return bytes(data)
