"""Watching directories on Windows: ReadDirectoryChangesW, a thread for each."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import threading

from wherry_vm.shares.watching import Change

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry_vm.shares.watching import Tell

assert sys.platform == "win32"

from ctypes import wintypes  # noqa: E402 - there is none elsewhere

_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_kernel32.CreateFileW.restype = wintypes.HANDLE
_kernel32.CreateFileW.argtypes = (
    wintypes.LPCWSTR, wintypes.DWORD, wintypes.DWORD, wintypes.LPVOID, wintypes.DWORD,
    wintypes.DWORD, wintypes.HANDLE,
)  # fmt: skip
_kernel32.ReadDirectoryChangesW.argtypes = (
    wintypes.HANDLE, wintypes.LPVOID, wintypes.DWORD, wintypes.BOOL, wintypes.DWORD,
    wintypes.LPVOID, wintypes.LPVOID, wintypes.LPVOID,
)  # fmt: skip
_kernel32.CancelIoEx.argtypes = (wintypes.HANDLE, wintypes.LPVOID)
_kernel32.CloseHandle.argtypes = (wintypes.HANDLE,)

_INVALID = wintypes.HANDLE(-1).value
_LIST_DIRECTORY, _SHARE_ALL, _OPEN_EXISTING, _BACKUP_SEMANTICS = 0x1, 0x7, 3, 0x02000000
# File and directory names, attributes, size, last write, creation, security.
_FILTER = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x40 | 0x100
_KINDS = {1: "created", 2: "deleted", 3: "modified", 4: "deleted", 5: "created"}
# More than 64 KiB are refused for directories of the network.
_SIZE = 1 << 16


class WindowsWatcher:
    """See `wherry_vm.shares.watching.Watcher`."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._handles: dict[str, int] = {}

    def watch(self, directories: set[str]) -> None:
        for gone in self._handles.keys() - directories:
            handle = self._handles.pop(gone)
            _kernel32.CancelIoEx(handle, None)
        for new in directories - self._handles.keys():
            handle = _kernel32.CreateFileW(
                new, _LIST_DIRECTORY, _SHARE_ALL, None, _OPEN_EXISTING, _BACKUP_SEMANTICS, None
            )
            if handle != _INVALID:
                self._handles[new] = handle
                threading.Thread(
                    target=self._run, args=(new, handle), daemon=True, name="watch"
                ).start()

    def settle(self) -> None:
        """Nothing tells what is still on its way."""

    def close(self) -> None:
        self.watch(set())

    def _run(self, directory: str, handle: int) -> None:
        buffer = ctypes.create_string_buffer(_SIZE)
        size = wintypes.DWORD()
        while _kernel32.ReadDirectoryChangesW(
            handle, buffer, _SIZE, True, _FILTER, ctypes.byref(size), None, None
        ):
            # No bytes where there were more changes than room.
            if changes := parse(directory, buffer.raw[: size.value]):
                self._tell(changes)
        _kernel32.CloseHandle(handle)


def parse(directory: str, data: bytes) -> list[Change]:
    """The records of FILE_NOTIFY_INFORMATION."""
    changes = []
    offset = 0
    while offset + 12 <= len(data):
        following, action, size = struct.unpack_from("<III", data, offset)
        name = data[offset + 12 : offset + 12 + size].decode("utf-16-le", "surrogatepass")
        path = f"{directory}\\{name}"
        if action in _KINDS:
            changes.append(Change(path, _KINDS[action], os.path.isdir(path)))
        if not following:
            break
        offset += following
    return changes
