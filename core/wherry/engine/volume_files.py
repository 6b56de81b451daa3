"""`volume export` and `volume import`: the files of a volume as a tar stream."""

from __future__ import annotations

import errno
import os

from wherry.container.archive import open_below, pack_to, unpack
from wherry.errors import KernelError, NotFound, Unsupported, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.runtime import Runtime
    from wherry.volume.store import Volume

_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)


def write_files(volume: Volume, runtime: Runtime, writer: int) -> None:
    """Write the volume's files to a descriptor. Raises BrokenPipeError where nobody reads."""

    def write() -> None:
        top = _open(volume)
        try:
            pack_to(writer, top, ".", ".", f"cannot export volume {volume.name}")
        finally:
            os.close(top)

    try:
        runtime.unshared(write)
    except KernelError as error:
        if error.errno == errno.EPIPE:
            raise BrokenPipeError(errno.EPIPE, error.message) from error
        raise


def read_files(volume: Volume, runtime: Runtime, reader: int) -> None:
    """Put the files of a tar stream into the volume, over those that are there."""

    def read() -> None:
        top = _open(volume)
        try:
            with open(reader, "rb", closefd=False) as source:
                unpack(source, lambda below: open_below(top, below), keep_ids=True)
        finally:
            os.close(top)

    runtime.unshared(read)


def _open(volume: Volume) -> int:
    if volume.files is None:
        raise Unsupported(
            f"volume {volume.name} is a file system of its own, which is mounted in containers only"
        )
    try:
        return os.open(volume.files, _DIRECTORY)
    except FileNotFoundError as error:
        raise NotFound(f"the files of volume {volume.name} are gone: {volume.files}") from error
    except OSError as error:
        raise WherryError(f"cannot open volume {volume.name}: {error.strerror}") from error
