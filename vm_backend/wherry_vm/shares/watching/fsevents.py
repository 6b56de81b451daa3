"""Watching directories on macOS: File System Events, CoreServices/FSEvents.h."""

from __future__ import annotations

import ctypes
import os
import sys
import threading

from wherry_vm.shares.watching import Change

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry_vm.shares.watching import Tell

assert sys.platform == "darwin"

_CoreServices = ctypes.CDLL("/System/Library/Frameworks/CoreServices.framework/CoreServices")
_CoreFoundation = ctypes.CDLL("/System/Library/Frameworks/CoreFoundation.framework/CoreFoundation")

_UTF8 = 0x08000100  # kCFStringEncodingUTF8
_SINCE_NOW = 0xFFFFFFFFFFFFFFFF
_NO_DEFER, _WATCH_ROOT, _FILE_EVENTS = 0x2, 0x4, 0x10

_CREATED, _REMOVED, _RENAMED, _MODIFIED = 0x100, 0x200, 0x800, 0x1000
_ATTRIBUTES = 0x400 | 0x4000 | 0x8000  # of the inode, its owner, extended
_IS_DIRECTORY = 0x20000
_LATENCY = 0.02

_pointer, _text, _size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
_CALLBACK = ctypes.CFUNCTYPE(
    None, _pointer, _pointer, _size, ctypes.POINTER(_text), ctypes.POINTER(ctypes.c_uint32),
    ctypes.POINTER(ctypes.c_uint64),
)  # fmt: skip


def _function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(library, name)
    function.restype, function.argtypes = result, arguments
    return function


_new_string = _function(
    _CoreFoundation, "CFStringCreateWithCString", _pointer, _pointer, _text, ctypes.c_uint32
)
_new_array = _function(
    _CoreFoundation, "CFArrayCreate", _pointer, _pointer, ctypes.POINTER(_pointer),
    ctypes.c_long, _pointer,
)  # fmt: skip
_release = _function(_CoreFoundation, "CFRelease", None, _pointer)
_this_loop = _function(_CoreFoundation, "CFRunLoopGetCurrent", _pointer)
_run_loop = _function(_CoreFoundation, "CFRunLoopRun", None)
_stop_loop = _function(_CoreFoundation, "CFRunLoopStop", None, _pointer)
_new_stream = _function(
    _CoreServices, "FSEventStreamCreate", _pointer, _pointer, _CALLBACK, _pointer, _pointer,
    ctypes.c_uint64, ctypes.c_double, ctypes.c_uint32,
)  # fmt: skip
_schedule = _function(
    _CoreServices, "FSEventStreamScheduleWithRunLoop", None, _pointer, _pointer, _pointer
)
_start = _function(_CoreServices, "FSEventStreamStart", ctypes.c_bool, _pointer)
_flush = _function(_CoreServices, "FSEventStreamFlushSync", None, _pointer)
_stop = _function(_CoreServices, "FSEventStreamStop", None, _pointer)
_invalidate = _function(_CoreServices, "FSEventStreamInvalidate", None, _pointer)
_release_stream = _function(_CoreServices, "FSEventStreamRelease", None, _pointer)


class FSEventsWatcher:
    """See `wherry_vm.shares.watching.Watcher`. One stream, made anew for other directories."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._stream: int | None = None
        self._loop: int | None = None
        self._callback = _CALLBACK(self._hear)

    def watch(self, directories: set[str]) -> None:
        with self._lock:
            self._end()
            if directories:
                ready = threading.Event()
                threading.Thread(
                    target=self._run, args=(sorted(directories), ready), daemon=True, name="watch"
                ).start()
                ready.wait()

    def settle(self) -> None:
        with self._lock:
            if self._stream is not None:
                _flush(self._stream)

    def close(self) -> None:
        with self._lock:
            self._end()

    def _run(self, directories: list[str], ready: threading.Event) -> None:
        """A run loop, for as long as these directories are watched."""
        strings = [_new_string(None, os.fsencode(each), _UTF8) for each in directories]
        paths = _new_array(None, (_pointer * len(strings))(*strings), len(strings), None)
        flags = _NO_DEFER | _WATCH_ROOT | _FILE_EVENTS
        stream = _new_stream(None, self._callback, None, paths, _SINCE_NOW, _LATENCY, flags)
        mode = _pointer.in_dll(_CoreFoundation, "kCFRunLoopDefaultMode")
        self._loop = _this_loop()
        _schedule(stream, self._loop, mode)
        _start(stream)
        self._stream = stream
        ready.set()
        _run_loop()
        _stop(stream)
        _invalidate(stream)
        _release_stream(stream)
        _release(paths)
        for each in strings:
            _release(each)

    def _end(self) -> None:
        loop, self._loop, self._stream = self._loop, None, None
        if loop is not None:
            _stop_loop(loop)

    def _hear(self, _: Any, __: Any, count: int, paths: Any, flags: Any, ___: Any) -> None:
        self._tell([change(os.fsdecode(paths[each]), flags[each]) for each in range(count)])


def change(path: str, flags: int) -> Change:
    """What an event says. Several things that happened to a file are one event."""
    is_directory = bool(flags & _IS_DIRECTORY)
    if flags & (_CREATED | _REMOVED | _RENAMED):
        # Which of them was the last one is not told.
        return Change(path, "created" if os.path.lexists(path) else "deleted", is_directory)
    kind = "attributes" if flags & _ATTRIBUTES and not flags & _MODIFIED else "modified"
    return Change(path, kind, is_directory)
