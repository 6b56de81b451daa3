"""The guest's data disk, mounted at /data: images and containers are on it.

One that is blank is made an ext4 first, or one that the host says nobody has used yet; one
that has grown is grown into. What holds something else is left alone.
"""

from __future__ import annotations

import os

from wherry.errors import KernelError
from wherry_linux.constants import MS_BIND, MS_NOATIME
from wherry_linux.syscalls import mount

_SERIAL = "wherry-data"
_PLACE = "/data"
_PARTS = (("/data/wherry", "/var/lib/wherry", 0o711), ("/data/tmp", "/var/tmp", 0o1777))
_TOLD = "/sys/firmware/qemu_fw_cfg/by_name/opt/org.wherry/disk/raw"
_FIRST = 1 << 16
"""How many bytes of a disk are looked at before it is taken for a blank one."""

# Its superblock is at 1024: the number of blocks, and the magic.
_BLOCKS_AT, _MAGIC_AT = 1028, 1080
_MAGIC = b"\x53\xef"
_BLOCK = 4096
_SPARE = 1 << 20
_MAKE = (
    "mkfs.ext4", "-q", "-F", "-b", str(_BLOCK), "-m", "0", "-L", "wherry-data",
    "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard",
)  # fmt: skip


class _Failed(Exception):
    """A program that could not do it, and what it said."""


def mount_disk(*, is_new: bool) -> str:
    """Mount it; "mounted", "none" where there is none, or what is wrong with it."""
    if os.path.ismount(_PLACE):
        return "mounted"
    disk = _find()
    if disk is None:
        return "none"
    try:
        return _mount(f"/dev/{disk}", _size(disk), is_new or _is_told_new())
    except (KernelError, OSError, _Failed) as error:
        return str(error) or type(error).__name__


def _mount(device: str, size: int, is_new: bool) -> str:
    if not _is_ext4(first := _read(device)):
        if not is_new and any(first):
            return f"{device} holds something that is not ours"
        _run(*_MAKE, device)
        first = _read(device)
    os.makedirs(_PLACE, exist_ok=True)
    try:
        _mount_ext4(device)
    except KernelError:
        _run("e2fsck", "-y", device, allowed=1)
        _mount_ext4(device)
    blocks = int.from_bytes(first[_BLOCKS_AT : _BLOCKS_AT + 4], "little")
    if blocks * _BLOCK + _SPARE < size:
        _run("resize2fs", device)
    for place, target, mode in _PARTS:
        if not os.path.isdir(place):
            os.mkdir(place)
            os.chmod(place, mode)
        mount(place, target, "", MS_BIND)
    return "mounted"


def _mount_ext4(device: str) -> None:
    mount(device, _PLACE, "ext4", MS_NOATIME, "discard")


def _find() -> str | None:
    """The disk with our serial."""
    for name in os.listdir("/sys/block"):
        try:
            with open(f"/sys/block/{name}/serial", encoding="ascii") as file:
                if file.read().strip() == _SERIAL:
                    return name
        except OSError:
            continue
    return None


def _size(disk: str) -> int:
    with open(f"/sys/block/{disk}/size", encoding="ascii") as file:
        return 512 * int(file.read())


def _is_told_new() -> bool:
    """Whether the host has said so when the guest booted."""
    try:
        with open(_TOLD, "rb") as file:
            return file.read().strip() == b"new"
    except OSError:
        return False


def _read(device: str) -> bytes:
    with open(device, "rb", buffering=0) as file:
        return file.read(_FIRST)


def _is_ext4(first: bytes) -> bool:
    return first[_MAGIC_AT : _MAGIC_AT + 2] == _MAGIC


def _run(*words: str, allowed: int = 0) -> None:
    import subprocess

    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode > allowed:
        said = (done.stderr or done.stdout).strip().partition("\n")[0]
        raise _Failed(said or f"{words[0]} ended with exit code {done.returncode}")
