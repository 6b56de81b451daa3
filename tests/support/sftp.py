"""A small client of SFTP version 3, for the server of shares: one request, one answer."""

from __future__ import annotations

import socket
import struct
import threading
from typing import TYPE_CHECKING

from wherry_vm.shares import sftp
from wherry_vm.shares.owners import Owners
from wherry_vm.shares.server import Server
from wherry_vm.shares.tree import open_tree

if TYPE_CHECKING:
    from pathlib import Path


class Refused(Exception):
    """The server answered with a status other than OK."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Client:
    """Speaks to a server of `root`, which runs in a thread until `close`."""

    def __init__(self, root: Path, table: Path, *, readonly: bool = False) -> None:
        self.stream, theirs = socket.socketpair()
        self.stream.settimeout(60)
        self._tree = open_tree(str(root), Owners(str(table), str(root)), readonly=readonly)
        self._server = threading.Thread(target=Server(theirs, self._tree).run, daemon=True)
        self._server.start()
        self._number = 0
        self.send(sftp.INIT, struct.pack(">I", 3), numbered=False)
        self.extensions = self.receive()[2]

    def close(self) -> None:
        if self.stream.fileno() < 0:
            return
        self.stream.close()
        self._server.join(60)
        assert not self._server.is_alive()
        self._tree.close()

    def send(self, kind: int, body: bytes, *, numbered: bool = True) -> int:
        """Send a request; its number."""
        self._number += 1
        number = struct.pack(">I", self._number) if numbered else b""
        self.stream.sendall(struct.pack(">IB", 1 + len(number) + len(body), kind) + number + body)
        return self._number

    def receive(self) -> tuple[int, int, bytes]:
        """The next answer: its kind, the number of its request, its body."""
        size, kind, number = struct.unpack(">IBI", self._exactly(9))
        return kind, number, self._exactly(size - 5)

    def ask(self, kind: int, *fields: bytes) -> sftp.Reader:
        """The answer to one request. Raises Refused."""
        self.send(kind, b"".join(fields))
        answer, _, body = self.receive()
        fields_of = sftp.Reader(body)
        if answer == sftp.STATUS:
            code = fields_of.u32()
            if code != sftp.OK:
                raise Refused(code, fields_of.text().decode())
        return fields_of

    def open(self, path: str, flags: int, mode: int = 0o644) -> bytes:
        attributes = struct.pack(">II", 4, mode)
        return self.ask(sftp.OPEN, _text(path), struct.pack(">I", flags), attributes).text()

    def write(self, path: str, data: bytes) -> None:
        handle = self.open(path, sftp.OPEN_WRITE | sftp.OPEN_CREATE | sftp.OPEN_TRUNCATE)
        self.ask(sftp.WRITE, sftp.text(handle), struct.pack(">Q", 0), sftp.text(data))
        self.ask(sftp.CLOSE, sftp.text(handle))

    def read(self, path: str) -> bytes:
        handle = self.open(path, sftp.OPEN_READ)
        try:
            return self.ask(sftp.READ, sftp.text(handle), struct.pack(">QI", 0, 1 << 16)).text()
        finally:
            self.ask(sftp.CLOSE, sftp.text(handle))

    def stat(self, path: str) -> sftp.Attributes:
        return self.ask(sftp.LSTAT, _text(path)).attributes()

    def change(self, path: str, flags: int, *numbers: int) -> None:
        self.ask(sftp.SETSTAT, _text(path), struct.pack(f">I{len(numbers)}I", flags, *numbers))

    def path(self, kind: int, *paths: str) -> sftp.Reader:
        """A request whose fields are all paths."""
        return self.ask(kind, *map(_text, paths))

    def extended(self, name: str, *paths: str) -> sftp.Reader:
        return self.ask(sftp.EXTENDED, *map(_text, (name, *paths)))

    def list(self, path: str) -> dict[str, sftp.Attributes]:
        handle = self.ask(sftp.OPENDIR, _text(path)).text()
        found = {}
        while True:
            try:
                answer = self.ask(sftp.READDIR, sftp.text(handle))
            except Refused as error:
                assert error.code == sftp.EOF
                break
            for _ in range(answer.u32()):
                name = answer.text().decode()
                answer.text()
                found[name] = answer.attributes()
        self.ask(sftp.CLOSE, sftp.text(handle))
        return found

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.stream.recv(size - len(data))
            assert more, "the server has hung up"
            data += more
        return data


def _text(text: str) -> bytes:
    return sftp.text(text.encode())
