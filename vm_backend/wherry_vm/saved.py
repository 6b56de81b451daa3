"""A machine's saved start: an emulated guest as it was when all of it was up but its disk.

To emulate a boot takes seconds; to load what it has led to, some tenths of one. So a start that
has to boot has the guest pause there, writes it down and lets it go on, and the next one
goes on from what was written. What no two starts may share the guest gets when it goes on: the
time, randomness, its disk (wherry_vm.guest.pausing). Nobody has logged in before, no command
has run, and the host has told it nothing.

    start.state   what QEMU wrote of the guest
    start.json    what it is a start of, and the file as it was then

It holds for this host's processors, this QEMU, its command line, image and keys, and a disk of
this size. Once the host has booted it is read through before it is believed, since a power
failure may have taken of it what its length does not tell. Whatever is wrong with it, the
machine boots.
"""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import threading
import time

from wherry.errors import CorruptState, MachineError, WherryError
from wherry.files import open_private, read_json, remove_file, write_json
from wherry_vm.disk import is_new
from wherry_vm.image import state_of
from wherry_vm.link import with_short_path
from wherry_vm.qemu.host import boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from wherry_vm.boot import Boot
    from wherry_vm.machines import Machine

_RECORD = {"origin!": list, "state!": list, "digest!": str, "boot!": str}
_SOCKET = "state.sock"
_PATIENCE = 20
"""Seconds without a byte of it."""
_RANDOM = 64
_CHUNK = 1 << 20
_LOOK = 0.005


def can_save(accelerator: str) -> bool:
    """Whether a start under this accelerator is saved.

    Others than emulation boot faster than this loads, and tie what they write to more than we
    know of; a port of 127.0.0.1 in the place of a UNIX socket would be anybody's.
    """
    return accelerator == "tcg" and hasattr(socket, "AF_UNIX")


class SavedStart:
    """The one of a machine, for a start that is told from others by `origin`, which is JSON."""

    def __init__(self, machine: Machine, origin: list[Any], contents: Iterable[str]) -> None:
        """`contents` are files that the guest reads before it pauses."""
        self._machine = machine
        self._state = machine.file("start.state")
        self._record = machine.file("start.json")
        size = os.stat(machine.file("data.img")).st_size
        self._noting: threading.Thread | None = None
        self._origin = [*origin, size, *map(_digest, contents)]

    def is_there(self) -> bool:
        """Whether there is one of just this start, whole."""
        try:
            known = read_json(self._record, _RECORD)
            if known["origin"] != self._origin or known["state"] != state_of(self._state):
                return False
            if known["boot"] and known["boot"] == boot_id():
                return True
            return known["digest"] == _digest(self._state) and self._note(
                known["state"], known["digest"]
            )
        except (OSError, CorruptState):
            return False

    def save(self, attempt: Boot) -> None:
        """Write a guest down that has paused, and let it go on. Raises MachineError where it
        does not; without a place to write to it does."""
        assert attempt.monitor is not None
        self.remove()
        listener, address = attempt.listen(_SOCKET)
        attempt.monitor.send_guest(address)
        with attempt.accept(listener, _PATIENCE) as stream:
            stream.settimeout(_PATIENCE)
            state = self._keep(stream)
        is_whole = _is_over(attempt) and bool(state)
        attempt.monitor.go_on()
        if is_whole:
            # To take its digest takes longer than the guest should wait.
            self._noting = threading.Thread(target=self._note_digest, args=(state,))
            self._noting.start()
        else:
            self.remove()

    def settle(self) -> None:
        """Wait until what was saved is noted."""
        if self._noting is not None:
            self._noting.join()

    def resume(self, attempt: Boot) -> None:
        """Have QEMU, which waits for it, go on from there. Raises MachineError."""
        assert attempt.monitor is not None
        assert hasattr(socket, "AF_UNIX")  # see `can_save`
        attempt.monitor.receive_guest(_SOCKET)
        try:
            with socket.socket(socket.AF_UNIX) as stream, open(self._state, "rb") as file:
                stream.settimeout(_PATIENCE)
                with_short_path(self._machine.run_directory, _SOCKET, stream.connect)
                stream.sendfile(file)
        except OSError as error:
            raise MachineError(f"QEMU does not take the saved start: {error}") from error
        if not _is_over(attempt):
            raise MachineError("QEMU has refused the saved start")
        attempt.monitor.go_on()

    def remove(self) -> None:
        """Have the next start boot."""
        remove_file(self._record)
        remove_file(self._state)

    def _keep(self, stream: socket.socket) -> list[int]:
        """Write all that QEMU sends; what the file is then, or [] where that could not be done."""
        buffer = memoryview(bytearray(_CHUNK))
        try:
            # The guest's keys are in it.
            with open(self._state, "wb", opener=open_private) as file:
                while count := stream.recv_into(buffer):
                    file.write(buffer[:count])
            return state_of(self._state)
        except OSError:
            return []

    def _note_digest(self, state: list[int]) -> None:
        """Note the file that `_keep` has written, or remove it."""
        if not ((digest := _digest(self._state)) and self._note(state, digest)):
            self.remove()

    def _note(self, state: list[int], digest: str) -> bool:
        """Write down what has been kept; whether that could be done."""
        known = {"origin": self._origin, "state": state, "digest": digest}
        try:
            write_json(self._record, {**known, "boot": boot_id()})
        except WherryError:
            return False
        return True


def word_to_go_on(machine: Machine) -> dict[str, Any]:
    """What a guest that has paused is told, and no two are told the same."""
    return {
        "op": "resume",
        "time": time.time(),
        "random": base64.b64encode(os.urandom(_RANDOM)).decode(),
        "disk": "new" if is_new(machine) else "used",
    }


def _is_over(attempt: Boot) -> bool:
    """Wait until QEMU has sent or taken the guest; whether it could. Raises MachineError."""
    assert attempt.monitor is not None
    deadline = time.monotonic() + _PATIENCE
    while (status := attempt.monitor.migration()) not in ("completed", "failed", "cancelled"):
        attempt.check()
        if time.monotonic() > deadline:
            raise MachineError("QEMU does not come to an end with the saved start")
        time.sleep(_LOOK)
    return status == "completed"


def _digest(path: str) -> str:
    import hashlib

    with contextlib.suppress(OSError), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    return ""
