"""A guest under QEMU's emulation, for the tests of what is in it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.ports import free_port
from support.requirements import need_tool
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from types import TracebackType

PROGRAMS = {
    "amd64": ("qemu-system-x86_64", "-machine", "q35,accel=tcg,vmport=off", "-cpu", "max"),
    "arm64": ("qemu-system-aarch64", "-machine", "virt,accel=tcg", "-cpu", "cortex-a72"),
}
_SECONDS = 180


@dataclass
class Answer:
    """What a command in the guest said."""

    code: int
    output: str
    errors: str


class RunningGuest:
    """A machine with the guest in `image`; ready when it is entered."""

    def __init__(self, image: Path, data: Path) -> None:
        self._image = image
        self._data = data
        self._manifest: dict[str, Any] = json.loads((image / "manifest.json").read_text())
        # A socket must have a short path.
        self._directory = tempfile.TemporaryDirectory(prefix="guest-")
        self._base = Path(self._directory.name)
        self.ready: dict[str, Any] = {}
        self.seconds = 0.0

    def __enter__(self) -> RunningGuest:
        self._make_keys()
        self._port = free_port()
        if not self._data.exists():
            with self._data.open("wb") as file:
                file.truncate(8 << 30)
        started = time.monotonic()
        with (self._base / "errors").open("wb") as errors:
            self._process = subprocess.Popen(self._command(), stderr=errors)
        # Without somebody at the other end of it the guest powers off.
        self._events = self._connect("events")
        with self._events.makefile() as lines:
            while self.ready.get("event") != "ready":
                self.ready = json.loads(self._line(lines.readline))
        self.seconds = time.monotonic() - started
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._events.close()
        self._directory.cleanup()

    def __call__(self, command: str, *, input: bytes = b"") -> Answer:  # noqa: A002
        """Run a command line in the guest over SSH."""
        result = subprocess.run(
            [
                need_tool("ssh"), "-i", str(self._base / "key"), "-p", str(self._port),
                "-o", f"UserKnownHostsFile={self._base / 'known'}", "-o", "IdentitiesOnly=yes",
                "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-F", "none",
                "root@127.0.0.1", command,
            ],
            input=input,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )  # fmt: skip
        return Answer(result.returncode, result.stdout.decode(), result.stderr.decode())

    def tell(self, **message: Any) -> None:
        """Say something on the event channel (wherry_vm.events)."""
        self._events.sendall(json.dumps(message).encode() + b"\n")

    def wait_off(self) -> int:
        return self._process.wait(_SECONDS)

    def console(self) -> str:
        return (self._base / "console").read_text(errors="replace")

    def _line(self, read: Any) -> str:
        try:
            line: str = read()
        except TimeoutError:
            line = ""
        if not line:
            raise TimeoutError(f"the guest said nothing; its console: {self.console()[-2000:]}")
        return line

    def _connect(self, name: str) -> socket.socket:
        if sys.platform == "win32":
            raise NotImplementedError
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_SECONDS)
        deadline = Deadline(60, f"QEMU's socket {name}")

        def connected() -> bool:
            if self._process.poll() is not None:
                raise ChildProcessError((self._base / "errors").read_text())
            return connection.connect_ex(str(self._base / name)) == 0

        wait_until(connected, deadline)
        return connection

    def _make_keys(self) -> None:
        for name in ("key", "host"):
            subprocess.run(
                [need_tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", self._base / name],
                check=True,
            )

    def _command(self) -> list[str]:
        program, *machine = PROGRAMS[self._manifest["architecture"]]
        (self._base / "known").write_text(
            f"[127.0.0.1]:{self._port} {(self._base / 'host.pub').read_text()}"
        )
        line = self._manifest["command_line"]
        command = [
            need_tool(program), *machine, "-m", "512", "-smp", "1", "-nodefaults",
            "-no-user-config", "-display", "none", "-no-reboot",
            "-kernel", str(self._image / "kernel"), "-initrd", str(self._image / "initramfs"),
            "-append", " ".join(line["always"] + line["emulated"]),
            "-serial", f"file:{self._base / 'console'}",
            "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
            "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self._port}-:22",
            "-device", "virtio-net-pci,netdev=net,romfile=",
        ]  # fmt: skip
        disks = (("root", self._image / "root.erofs", "on"), ("data", self._data, "off"))
        for name, path, readonly in disks:
            drive = f"if=none,id={name},format=raw,file={path},readonly={readonly},discard=unmap"
            command += ["-drive", drive]
            command += ["-device", f"virtio-blk-pci,drive={name},serial=wherry-{name}"]
        events = self._base / "events"
        command += ["-chardev", f"socket,id=events,path={events},server=on,wait=off"]
        command += ["-device", "virtserialport,chardev=events,name=org.wherry.events"]
        for name, file in (("authorized_keys", "key.pub"), ("host_key", "host")):
            command += ["-fw_cfg", f"name=opt/org.wherry/{name},file={self._base / file}"]
        return command


def can_boot(architecture: str) -> bool:
    """Whether QEMU for this architecture is here."""
    return any(
        os.access(os.path.join(directory, PROGRAMS[architecture][0]), os.X_OK)
        for directory in os.get_exec_path()
    )
