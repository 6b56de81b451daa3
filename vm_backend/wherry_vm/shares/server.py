"""The SFTP server of one share: the other side is sshfs in the guest.

What may have to wait for a disk, reading what is not in memory and fsync, is done by a few
threads, in order for each file, so that a slow disk keeps only those waiting who read it.
Everything else is done where it is read, which is much quicker than handing it over, and
after all writes that came before it. Answers go out as they come.
"""

from __future__ import annotations

import contextlib
import errno
import threading
import traceback
from collections import deque
from queue import SimpleQueue

from wherry_vm.shares import sftp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from wherry_vm.shares.tree import OpenFile, Tree

    class Channel(Protocol):
        """What carries the packets: a socket, or a channel of SSH."""

        def recv(self, size: int, /) -> bytes: ...
        def sendall(self, data: bytes, /) -> Any: ...
        def close(self) -> Any: ...

    Job = Callable[[], bytes | None]
    Action = Callable[["Server", int, sftp.Reader], bytes | None]

_WORKERS = 4
_MOST_JOBS = 256
_CHUNK = 1 << 18
_ENTRIES = 128
_TEXT = 1 << 16


class _Handle:
    """An open file or directory, and what is still to be done with it."""

    def __init__(self, *, file: OpenFile | None = None, entries: Any = None) -> None:
        self.file = file
        self.entries = entries
        self.jobs: deque[tuple[int, Job, bool]] = deque()
        self.is_busy = False


class Server:
    """Serves `tree` on `channel` until the other side closes it; `run` returns then."""

    def __init__(self, channel: Channel, tree: Tree) -> None:
        self._channel = channel
        self._tree = tree
        self._handles: dict[bytes, _Handle] = {}
        self._next = 0
        self._sending = threading.Lock()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._writes = 0
        self._room = threading.Semaphore(_MOST_JOBS)
        self._work: SimpleQueue[_Handle | None] = SimpleQueue()
        self._workers: list[threading.Thread] = []

    def run(self) -> None:
        """Serve. Every file is closed in the end."""
        buffer = bytearray()
        try:
            with contextlib.suppress(OSError, EOFError, ValueError):
                while data := self._channel.recv(_CHUNK):
                    buffer += data
                    for packet in sftp.packets(buffer):
                        self._take(packet)
        finally:
            self._end()

    def _end(self) -> None:
        for _ in self._workers:
            self._work.put(None)
        for worker in self._workers:
            worker.join()
        with contextlib.suppress(OSError, EOFError):
            self._channel.close()
        for handle in self._handles.values():
            _close(handle)
        self._handles.clear()

    def _send(self, data: bytes) -> None:
        with self._sending, contextlib.suppress(OSError, EOFError):
            self._channel.sendall(data)

    # ---- requests ----

    def _take(self, packet: bytes) -> None:
        """Answer a request, or see that a worker does. Raises ValueError for no packet at all."""
        fields = sftp.Reader(packet)
        kind, number = fields.byte(), fields.u32()
        if kind == sftp.INIT:
            self._send(sftp.version())
            return
        try:
            name = fields.text() if kind == sftp.EXTENDED else b""
            if kind in _ON_HANDLES or name == b"fsync@openssh.com":
                self._queue(kind, number, fields)
                return
            action = _EXTENDED.get(name) if name else _ACTIONS.get(kind)
            if action is None:
                self._send(sftp.status(number, sftp.OP_UNSUPPORTED))
                return
            self._wait_for_writes()
            answer = action(self, number, fields) or sftp.status(number, sftp.OK)
        except Exception as error:
            answer = _failure(number, error)
        self._send(answer)

    def _wait_for_writes(self) -> None:
        if self._writes:
            with self._idle:
                while self._writes:
                    self._idle.wait()

    def _add(self, handle: _Handle) -> bytes:
        if len(self._handles) >= sftp.MOST_HANDLES:
            _close(handle)
            raise OSError(errno.EMFILE, "too many open files")
        self._next += 1
        name = self._next.to_bytes(8, "big")
        self._handles[name] = handle
        return name

    # ---- what is done with open files, by the workers ----

    def _queue(self, kind: int, number: int, fields: sftp.Reader) -> None:
        name = fields.text()
        handle = self._handles.get(name)
        if handle is None:
            raise ValueError("no such handle")
        if kind == sftp.CLOSE:
            # No later request may name it; what came before is done first.
            del self._handles[name]
        job, waits = self._job(kind, number, handle, fields)
        # Only here jobs are added: a handle that is not busy stays so.
        if not waits and not handle.is_busy:
            self._send(_done(number, job))
            return
        changes = kind in (sftp.WRITE, sftp.FSETSTAT)
        self._room.acquire()
        with self._lock:
            self._writes += changes
            handle.jobs.append((number, job, changes))
            if handle.is_busy:
                return
            handle.is_busy = True
        if len(self._workers) < _WORKERS:
            self._start_worker()
        self._work.put(handle)

    def _job(
        self, kind: int, number: int, handle: _Handle, fields: sftp.Reader
    ) -> tuple[Job, bool]:
        """What a request of an open file asks for, to be called; whether it may have to wait."""
        if kind == sftp.CLOSE:
            return lambda: _close(handle), False
        if kind == sftp.READDIR:
            return lambda: self._read_directory(number, handle), False
        file = handle.file
        if file is None:
            raise ValueError("not the handle of a file")
        if kind == sftp.READ:
            offset, size = fields.u64(), min(fields.u32(), sftp.LONGEST_DATA)
            if not handle.is_busy and (data := file.read_at_once(size, offset)) is not None:
                return lambda: _data(number, data), False
            return lambda: _data(number, file.read(size, offset)), True
        if kind == sftp.WRITE:
            offset, data = fields.u64(), fields.text()
            return lambda: file.write(data, offset), False
        if kind == sftp.FSTAT:
            return lambda: sftp.packet(sftp.ATTRS, number, file.attributes()), False
        if kind == sftp.EXTENDED:
            return file.sync, True
        attributes = fields.attributes()
        return lambda: file.change(attributes), False

    def _start_worker(self) -> None:
        worker = threading.Thread(target=self._run_jobs, daemon=True, name="share")
        self._workers.append(worker)
        worker.start()

    def _run_jobs(self) -> None:
        while (handle := self._work.get()) is not None:
            while True:
                with self._lock:
                    if not handle.jobs:
                        handle.is_busy = False
                        break
                    number, job, changes = handle.jobs.popleft()
                answer = _done(number, job)
                if changes:
                    with self._idle:
                        self._writes -= 1
                        self._idle.notify_all()
                self._room.release()
                self._send(answer)

    def _read_directory(self, number: int, handle: _Handle) -> bytes:
        if handle.entries is None:
            raise ValueError("not the handle of a directory")
        entries: list[tuple[bytes, bytes]] = []
        size = 0
        for name, attributes in handle.entries:
            entries.append((name, attributes))
            size += len(name) + 40
            if len(entries) == _ENTRIES or size > _TEXT:
                break
        if not entries:
            return sftp.status(number, sftp.EOF)
        return sftp.packet(sftp.NAME, number, sftp.names(entries))

    # ---- what is done with paths ----

    def _open(self, number: int, fields: sftp.Reader) -> bytes:
        path, flags, attributes = fields.text(), fields.u32(), fields.attributes()
        file = self._tree.open(path, flags, 0o644 if attributes.mode is None else attributes.mode)
        return sftp.packet(sftp.HANDLE, number, sftp.text(self._add(_Handle(file=file))))

    def _open_directory(self, number: int, fields: sftp.Reader) -> bytes:
        handle = _Handle(entries=self._tree.entries(fields.text()))
        return sftp.packet(sftp.HANDLE, number, sftp.text(self._add(handle)))

    def _stat(self, number: int, fields: sftp.Reader) -> bytes:
        return sftp.packet(sftp.ATTRS, number, self._tree.attributes(fields.text()))

    def _change(self, _: int, fields: sftp.Reader) -> None:
        path = fields.text()
        self._tree.change(path, fields.attributes())

    def _remove(self, _: int, fields: sftp.Reader) -> None:
        self._tree.remove(fields.text())

    def _make_directory(self, _: int, fields: sftp.Reader) -> None:
        path, attributes = fields.text(), fields.attributes()
        mode = 0o755 if attributes.mode is None else attributes.mode
        self._tree.make_directory(path, mode)

    def _remove_directory(self, _: int, fields: sftp.Reader) -> None:
        self._tree.remove_directory(fields.text())

    def _real_path(self, number: int, fields: sftp.Reader) -> bytes:
        parts = [each for each in fields.text().split(b"/") if each not in (b"", b".")]
        if b".." in parts:
            raise ValueError("a path with '..'")
        return sftp.packet(sftp.NAME, number, sftp.names([(b"/" + b"/".join(parts), b"\0\0\0\0")]))

    def _rename(self, _: int, fields: sftp.Reader) -> None:
        self._tree.rename(fields.text(), fields.text(), replace=False)

    def _read_link(self, number: int, fields: sftp.Reader) -> bytes:
        target = self._tree.read_link(fields.text())
        return sftp.packet(sftp.NAME, number, sftp.names([(target, b"\0\0\0\0")]))

    def _symlink(self, _: int, fields: sftp.Reader) -> None:
        # The draft has them the other way round; OpenSSH and sshfs have the target first.
        target, path = fields.text(), fields.text()
        self._tree.symlink(target, path)

    def _replace(self, _: int, fields: sftp.Reader) -> None:
        try:
            self._tree.rename(fields.text(), fields.text(), replace=True)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            # Nothing says this to sshfs, and what is told as FAILURE it takes for another disk:
            # programs would copy into the directory that is there.
            raise PermissionError(errno.EACCES, error.strerror) from error

    def _link(self, _: int, fields: sftp.Reader) -> None:
        self._tree.link(fields.text(), fields.text())

    def _file_system(self, number: int, _: sftp.Reader) -> bytes:
        return sftp.packet(sftp.EXTENDED_REPLY, number, sftp.numbers(*self._tree.file_system()))

    def _limits(self, number: int, _: sftp.Reader) -> bytes:
        limits = (sftp.LONGEST_PACKET, sftp.LONGEST_DATA, sftp.LONGEST_DATA, sftp.MOST_HANDLES)
        return sftp.packet(sftp.EXTENDED_REPLY, number, sftp.numbers(*limits))


_ON_HANDLES = frozenset(
    (sftp.CLOSE, sftp.READ, sftp.WRITE, sftp.FSTAT, sftp.FSETSTAT, sftp.READDIR)
)

_ACTIONS: dict[int, Action] = {
    sftp.OPEN: Server._open,
    sftp.OPENDIR: Server._open_directory,
    sftp.LSTAT: Server._stat,
    # A link is the guest's to follow: its kernel asks for each step.
    sftp.STAT: Server._stat,
    sftp.SETSTAT: Server._change,
    sftp.REMOVE: Server._remove,
    sftp.MKDIR: Server._make_directory,
    sftp.RMDIR: Server._remove_directory,
    sftp.REALPATH: Server._real_path,
    sftp.RENAME: Server._rename,
    sftp.READLINK: Server._read_link,
    sftp.SYMLINK: Server._symlink,
}
_EXTENDED: dict[bytes, Action] = {
    b"posix-rename@openssh.com": Server._replace,
    b"hardlink@openssh.com": Server._link,
    b"statvfs@openssh.com": Server._file_system,
    b"fstatvfs@openssh.com": Server._file_system,
    b"limits@openssh.com": Server._limits,
}


def _done(number: int, job: Job) -> bytes:
    """Do it; what the request is answered."""
    try:
        return job() or sftp.status(number, sftp.OK)
    except Exception as error:
        return _failure(number, error)


def _data(number: int, data: bytes) -> bytes:
    if not data:
        return sftp.status(number, sftp.EOF)
    return sftp.packet(sftp.DATA, number, sftp.text(data))


def _failure(number: int, error: Exception) -> bytes:
    """What a request that failed is answered; the next one is served all the same."""
    if isinstance(error, OSError):
        return sftp.failure(number, error)
    if isinstance(error, ValueError):
        return sftp.status(number, sftp.BAD_MESSAGE, str(error))
    traceback.print_exception(error)
    return sftp.status(number, sftp.FAILURE)


def _close(handle: _Handle) -> None:
    if handle.file is not None:
        with contextlib.suppress(OSError):
            handle.file.close()
    if handle.entries is not None:
        handle.entries.close()
