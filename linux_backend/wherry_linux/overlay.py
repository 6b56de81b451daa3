"""overlayfs as mount(2) takes it: all of its directories in one string."""

from __future__ import annotations

import errno
import os

from wherry.errors import KernelError
from wherry_linux.syscalls import mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry_linux.mounts import Options


def mount_overlay(options: Options, target: str) -> None:
    """Mount an overlay whose options may be longer than the page that mount(2) takes."""
    data = options.data
    opened: list[int] = []
    try:
        if len(data) >= 4000:
            data = _through_descriptors(data, opened)
        mount("overlay", target, "overlay", options.flags, data)
    except KernelError as error:
        if error.errno == errno.EINVAL:
            error.hint = (
                "overlayfs cannot write where this is: another overlay, NFS or FAT;"
                " WHERRY_ROOT moves wherry's data to a file system like ext4, xfs or tmpfs"
            )
        raise
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _through_descriptors(data: str, opened: list[int]) -> str:
    """`data` with each lower directory named by a short path to an open descriptor."""
    shortened = []
    for option in split(data, ","):
        name, _, value = option.partition("=")
        if name == "lowerdir":
            paths = []
            for path in split(value, ":"):
                opened.append(os.open(unescape(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
                paths.append(f"/proc/self/fd/{opened[-1]}")
            option = f"lowerdir={':'.join(paths)}"
        shortened.append(option)
    return ",".join(shortened)


def unescape(text: str) -> str:
    """The path that `wherry.container.overlay.escape` has written."""
    return "\\".join(part.replace("\\", "") for part in text.split("\\\\"))


def split(text: str, separator: str) -> list[str]:
    """`text` at the separators that no backslash precedes."""
    parts: list[str] = []
    for part in text.split(separator):
        if parts and (len(parts[-1]) - len(parts[-1].rstrip("\\"))) % 2:
            parts[-1] += separator + part
        else:
            parts.append(part)
    return parts
