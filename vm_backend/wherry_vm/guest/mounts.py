"""The host's directories, mounted in the guest: one sshfs each, on a virtio-serial port."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from subprocess import Popen
    from typing import Any

_PORTS = "/sys/class/virtio-ports"
_TABLE = "/proc/self/mounts"
_KIND = "fuse.sshfs"
_PATIENCE = 5


def port_device(name: str) -> str | None:
    """The device of the virtio-serial port called `name`; None where there is none."""
    return port_devices().get(name)


def port_devices() -> dict[str, str]:
    """The devices of all virtio-serial ports, by the names that the host has given them."""
    devices = {}
    for port in os.listdir(_PORTS) if os.path.isdir(_PORTS) else ():
        try:
            with open(os.path.join(_PORTS, port, "name"), encoding="ascii") as file:
                devices[file.read().strip()] = f"/dev/{port}"
        except FileNotFoundError:
            continue  # one that is just being plugged in or out
    return devices


class Mounts:
    """What is mounted; `table` is readable (POLLPRI) when that has changed."""

    def __init__(self) -> None:
        self.table = os.open(_TABLE, os.O_RDONLY | os.O_CLOEXEC)
        self._running: dict[int, tuple[str, Popen[bytes]]] = {}

    def mount(self, message: Mapping[str, Any]) -> int:
        """Start sshfs as the host asks; a descriptor that is readable when it has ended."""
        import subprocess

        target = str(message["target"])
        if target in self.targets():
            # The one of an sshfs that has ended.
            subprocess.run(["umount", "-l", target], check=False)
        os.makedirs(target, exist_ok=True)
        device = _wait_for_port(str(message["port"]))
        stream = os.open(device or os.devnull, os.O_RDWR | os.O_CLOEXEC)
        process = subprocess.Popen(
            ["sshfs", ":/", target, "-f", "-o", str(message["options"])],
            stdin=stream,
            stdout=stream,
            stderr=subprocess.PIPE,
        )
        os.close(stream)
        end = os.pidfd_open(process.pid)
        self._running[end] = (target, process)
        return end

    def ended(self, end: int) -> dict[str, Any]:
        """What to tell the host of a mount that is no more."""
        target, process = self._running.pop(end)
        os.close(end)
        assert process.stderr is not None
        said = process.stderr.read().decode(errors="replace").strip()
        code = process.wait()
        return {
            "event": "unmounted",
            "target": target,
            "error": said.rpartition("\n")[2] or f"sshfs ended with exit code {code}",
        }

    def targets(self) -> list[str]:
        """Where the host's directories are mounted now."""
        os.lseek(self.table, 0, os.SEEK_SET)
        table = b""
        while data := os.read(self.table, 1 << 16):
            table += data
        rows = [line.split(" ") for line in table.decode(errors="surrogateescape").splitlines()]
        return [_unescaped(row[1]) for row in rows if len(row) > 2 and row[2] == _KIND]


def _wait_for_port(name: str) -> str | None:
    """Its device; one that QEMU has just plugged in takes a moment to be seen."""
    deadline = time.monotonic() + _PATIENCE
    while (device := port_device(name)) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return device


def _unescaped(text: str) -> str:
    """proc(5): spaces and the like are \\040 and so on."""
    first, *parts = text.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in parts)
