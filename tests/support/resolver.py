"""A host's name server, for tests: it knows one address for every name."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

_A = 1
_HEADER = 12


class NameServer:
    """Says `answer` to every question for an IPv4 address, by UDP and TCP; `asked` are names."""

    def __init__(self, answer: str, where: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self._answer = ipaddress.IPv4Address(answer).packed
        self.asked: list[str] = []
        self._datagrams = socket.socket(type=socket.SOCK_DGRAM)
        self._datagrams.bind(where)
        self.address: tuple[str, int] = self._datagrams.getsockname()
        self._stream = socket.create_server(self.address)
        for serve in (self._serve_datagrams, self._serve_streams):
            threading.Thread(target=serve, daemon=True).start()

    def __enter__(self) -> NameServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for each in (self._datagrams, self._stream):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _serve_datagrams(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                question, sender = self._datagrams.recvfrom(4096)
                if not question:
                    return  # it is closed
                self._datagrams.sendto(self.said(question), sender)

    def _serve_streams(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                stream, _ = self._stream.accept()
                with stream:
                    question = stream.recv(4096)[2:]
                    said = self.said(question)
                    stream.sendall(len(said).to_bytes(2, "big") + said)

    def said(self, question: bytes) -> bytes:
        end = question.index(b"\0", _HEADER) + 5
        labels, at = [], _HEADER
        while size := question[at]:
            labels.append(question[at + 1 : at + 1 + size].decode())
            at += 1 + size
        self.asked.append(".".join(labels))
        is_address = int.from_bytes(question[end - 4 : end - 2], "big") == _A
        head = question[:2] + b"\x81\x80" + b"\0\1" + bytes((0, int(is_address))) + bytes(4)
        record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + self._answer if is_address else b""
        return head + question[_HEADER:end] + record


def question(name: str, number: int = 0x1234) -> bytes:
    """A message that asks for the IPv4 address of `name`."""
    labels = b"".join(bytes((len(each),)) + each.encode() for each in name.split("."))
    return number.to_bytes(2, "big") + b"\1\0\0\1" + bytes(6) + labels + b"\0\0\1\0\1"
