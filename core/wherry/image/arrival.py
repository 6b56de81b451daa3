"""Layers that are read while they arrive: so that unpacking need not wait for the whole.

The process that downloads says in shared memory how much of each layer is in the store,
and wakes the reader through a pipe. The reader may be a thread, or a child that was
forked before the download began (rootless, files are unpacked in a user namespace). It
reads the file itself, so neither side slows the other down.

What is read is not verified yet. Who unpacks it must check the layer's diff id before
the result can be seen by others.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import threading
from typing import TYPE_CHECKING

from wherry.errors import CorruptState, RegistryError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import BinaryIO

    from wherry.image.store import ImageStore
    from wherry.oci.image_spec import Descriptor

_COUNT = struct.Struct("=q")
_FAILED = -1
# For each layer: how many bytes are in the store, and how many have been read of them.
_PER_LAYER = 2 * _COUNT.size


class ArrivingLayer:
    """One layer, whole or on its way."""

    def __init__(
        self, arrivals: Arrivals, position: int, descriptor: Descriptor, diff_id: str
    ) -> None:
        self.descriptor = descriptor
        self.diff_id = diff_id
        self._arrivals = arrivals
        self._position = position

    def open(self) -> LayerSource:
        """The layer's bytes as the registry has them, from the first on."""
        return LayerSource(self._arrivals, self._position, self.descriptor)


class LayerSource:
    """A binary file to read from, which waits for what is not here yet."""

    def __init__(self, arrivals: Arrivals, position: int, descriptor: Descriptor) -> None:
        self._arrivals = arrivals
        self._position = position
        self._digest = descriptor["digest"]
        self._size = descriptor["size"]
        self._offset = 0
        self._file: BinaryIO | None = None
        arrivals.begin()

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, empty at the end only. Raises where the layer does not arrive."""
        if self._offset >= self._size:
            return b""
        content = b""
        while not content:
            # Nothing to read of what was here a moment ago: it is dropped, and we are to hear so.
            wanted = self._arrivals.wait_for(self._position, self._offset) - self._offset
            if self._file is None:
                self._file = self._arrivals.open_blob(self._digest)
            content = self._file.read(wanted if size < 0 else min(size, wanted))
        self._offset += len(content)
        self._arrivals.note_read(self._position, self._offset)
        return content

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> LayerSource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Arrivals:
    """How much of each layer is here: told by one process, waited for by the same or its child.

    One thread at a time may wait for one layer.
    """

    def __init__(self, store: ImageStore, layers: Sequence[tuple[Descriptor, str]]) -> None:
        self._store = store
        self._creator = os.getpid()
        self._has_writers = True
        self._table = mmap.mmap(-1, max(1, len(layers) * _PER_LAYER))
        self._pipes = [os.pipe() for _ in layers]
        self._begun_read, self._begun_write = os.pipe()
        if sys.platform != "win32":
            for _, writer in self._pipes:
                # A wake-up that finds the pipe full is not needed: others are in it.
                os.set_blocking(writer, False)
        self._lock = threading.Lock()
        # Whether a layer did not come as it began.
        self.has_failed = False
        self._positions = {
            descriptor["digest"]: position for position, (descriptor, _) in enumerate(layers)
        }
        self.layers = [
            ArrivingLayer(self, position, descriptor, diff_id)
            for position, (descriptor, diff_id) in enumerate(layers)
        ]

    # --- the side that downloads --------------------------------------------------

    def tell(self, digest: str, available: int) -> None:
        """So many bytes of a layer are in the store."""
        position = self._positions[digest]
        with self._lock:
            if self._available(position) != _FAILED:
                self._set(position, 0, available)
                self._wake(position)

    def fail(self, digest: str | None = None) -> None:
        """A layer, or all of them, will not come as it began."""
        chosen = self._positions.values() if digest is None else [self._positions[digest]]
        with self._lock:
            self.has_failed = True
            for position in chosen:
                self._set(position, 0, _FAILED)
                self._wake(position)

    def has_been_read(self, digest: str) -> int:
        """How many bytes of a layer the other side has taken."""
        return self._get(self._positions[digest], 1)

    def wait_for_reader(self) -> None:
        """Return once the other side has opened a layer, or `begin` was called for it."""
        os.read(self._begun_read, 1)

    def __enter__(self) -> Arrivals:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pipe in (*self._pipes, (self._begun_read, self._begun_write)):
            for descriptor in pipe:
                os.close(descriptor)
        self._table.close()

    # --- the side that reads ------------------------------------------------------

    def begin(self) -> None:
        """Tell that reading begins, so that from now on threads may be started."""
        self._let_go_of_writers()
        os.write(self._begun_write, b"1")

    def wait_for(self, position: int, offset: int) -> int:
        """How many bytes are here, more than `offset`."""
        self._let_go_of_writers()
        while True:
            available = self._available(position)
            if available > offset:
                return available
            if available == _FAILED or not os.read(self._pipes[position][0], 4096):
                raise RegistryError("a layer did not arrive")

    def _let_go_of_writers(self) -> None:
        """In a child: else it would never see that the process that downloads is gone."""
        if os.getpid() != self._creator and self._has_writers:
            self._has_writers = False
            for _, writer in self._pipes:
                os.close(writer)

    def note_read(self, position: int, offset: int) -> None:
        self._set(position, 1, offset)

    def open_blob(self, digest: str) -> BinaryIO:
        """A layer's file, which is renamed when it is whole."""
        places = (self._store.partial_path(digest), self._store.blob_path(digest))
        for place in places:
            try:
                return open(place, "rb", buffering=0)
            except FileNotFoundError:
                continue
        raise CorruptState(f"layer {digest} was removed while it was read")

    # --- shared memory ------------------------------------------------------------

    def _available(self, position: int) -> int:
        return self._get(position, 0)

    def _get(self, position: int, field: int) -> int:
        at = position * _PER_LAYER + field * _COUNT.size
        count: int = _COUNT.unpack_from(self._table, at)[0]
        return count

    def _set(self, position: int, field: int, count: int) -> None:
        _COUNT.pack_into(self._table, position * _PER_LAYER + field * _COUNT.size, count)

    def _wake(self, position: int) -> None:
        try:
            os.write(self._pipes[position][1], b"1")
        except BlockingIOError:
            pass
