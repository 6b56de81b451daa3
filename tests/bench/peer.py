"""The machine's peer: a Debian with systemd, sshd and podman under the same QEMU.

It is built of Debian's packages once, kept in the user's cache, and booted with an overlay
of its disk: kernel and initramfs directly, as ours are. Commands reach it by OpenSSH's
client and one connection that they share.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import CannotMeasure, must
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

SUITE = "trixie"
_PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "udev", "openssh-server",
    "podman", "crun", "netavark", "aardvark-dns", "nftables", "iproute2",
    "linux-image-cloud-{architecture}", "initramfs-tools", "kmod", "ca-certificates",
)  # fmt: skip
_FILES = {
    "etc/hostname": "peer\n",
    "etc/hosts": "127.0.0.1 localhost peer\n",
    "etc/fstab": "/dev/vda / ext4 defaults,discard 0 1\n",
    "etc/resolv.conf": "nameserver 10.0.2.3\n",
    "etc/systemd/network/80-qemu.network": (
        "[Match]\nDriver=virtio_net\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n"
    ),
}
_LINKS = {
    "etc/systemd/system/default.target": "/usr/lib/systemd/system/multi-user.target",
    "etc/systemd/system/multi-user.target.wants/systemd-networkd.service": (
        "/usr/lib/systemd/system/systemd-networkd.service"
    ),
}
_DISK = "6G"
_BOOT, _SHUTDOWN, _LOGIN, _BUILDING = 240, 120, 60, 900
"""Seconds to wait at the longest."""


def build() -> Path:
    """The directory with the peer's kernel, initramfs, disk and key. Raises CannotMeasure."""
    recipe = repr((SUITE, _PACKAGES, _FILES, _LINKS, _DISK))
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    place = Path(home, "wherry-bench", f"peer-{sha256(recipe.encode()).hexdigest()[:12]}")
    if not place.exists():
        need("mmdebstrap", "mke2fs", "qemu-img", "ssh", "ssh-keygen")
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as draft:
            print("- building the machine's peer, which is kept for the next time", flush=True)
            _build(Path(draft))
            shutil.rmtree(Path(draft, "root"))
            Path(draft, "files").rename(place)
    return place


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            raise CannotMeasure(f"{program} is not installed")


def _build(draft: Path) -> None:
    root, files = draft / "root", draft / "files"
    files.mkdir()
    architecture = _said("dpkg", "--print-architecture")
    names = ",".join(each.format(architecture=architecture) for each in _PACKAGES)
    packages = f"--include={names}"
    _do("mmdebstrap", "--quiet", "--variant=minbase", packages, SUITE, str(root), _mirror())
    for name, text in _FILES.items():
        path = root / name
        path.unlink(missing_ok=True)
        path.write_text(text)
    for name, target in _LINKS.items():
        path = root / name
        path.unlink(missing_ok=True)
        path.symlink_to(target)
    _do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(files / "key"))
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    shutil.copy(files / "key.pub", root / "root/.ssh/authorized_keys")
    for name, pattern in (("kernel", "vmlinuz-*"), ("initramfs", "initrd.img-*")):
        shutil.copy(next((root / "boot").glob(pattern)), files / name)
    disk = str(files / "disk.ext4")
    _do("mke2fs", "-q", "-t", "ext4", "-d", str(root), disk, _DISK)


def _mirror() -> str:
    """Where the guest's packages come from, too."""
    from wherry_vmimage.request import Request, sources_of, target_of
    from wherry_vmimage.sources import AptConfig

    given = os.environ.get("WHERRY_DEBIAN_MIRROR", "")
    request = Request(name=f"debian:{SUITE}", mirror=given)
    return sources_of(request, target_of(request), AptConfig.of_host())[0].uri


class Peer:
    """The peer with a disk of its own in `directory`; `machine` are QEMU's words for it."""

    name = "podman in Debian"

    def __init__(self, directory: str, machine: Sequence[str]) -> None:
        self._files = build()
        self._directory = directory
        os.makedirs(directory)
        self._machine = machine
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        base, overlay = self._files / "disk.ext4", f"{directory}/disk.qcow2"
        _do("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(base), overlay)

    def start(self) -> None:
        """Start QEMU; the first command waits until the guest answers."""
        assert self._process is None
        with open(f"{self._directory}/errors", "wb") as errors:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=errors, stderr=errors
            )

    def wait(self) -> None:
        """Log in, on a connection that stays. Raises CannotMeasure."""
        try:
            wait_until(self._is_there, Deadline(_BOOT, "the peer's sshd"))
        except TimeoutError as error:
            raise CannotMeasure(str(error)) from error

    def _is_there(self) -> bool:
        process = self._process
        if process is None or process.poll() is not None:
            raise CannotMeasure(Path(self._directory, "errors").read_text() or "QEMU ended")
        if not self._speaks():
            return False
        options = ("-o", "ControlMaster=yes", "-o", "ControlPersist=yes", "-f", "-N")
        with contextlib.suppress(CannotMeasure):
            must(self._ssh(*options), stderr=subprocess.DEVNULL, timeout=_LOGIN)
            return True
        return False

    def _speaks(self) -> bool:
        """Whether its sshd greets: QEMU accepts connections before there is one."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=0.5) as stream:
                return stream.recv(4) == b"SSH-"
        except OSError:
            return False

    def __call__(self, *argv: str, given: bytes = b"") -> None:
        """Run a command in it. Raises CannotMeasure where it fails."""
        command = [*self._ssh("-o", "ControlMaster=no"), shlex.join(argv)]
        must(command, input=given, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        """Shut it down, so that its disk is whole."""
        if self._process is None:
            return
        with contextlib.suppress(CannotMeasure):
            self("systemctl", "poweroff")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_SHUTDOWN)
        self.kill()

    def kill(self) -> None:
        """End it at once, and the connection to it."""
        if self._process is not None:
            with contextlib.suppress(CannotMeasure):
                must(self._ssh("-O", "exit"), timeout=_LOGIN)
            self._process.kill()
            self._process.wait()
            self._process = None

    def _ssh(self, *options: str) -> list[str]:
        return [
            "ssh", "-F", "none", "-i", str(self._files / "key"), "-p", str(self._port),
            "-o", f"UserKnownHostsFile={self._directory}/known", "-o", "BatchMode=yes",
            "-o", "StrictHostKeyChecking=accept-new", "-o", "ConnectTimeout=30",
            "-o", "ServerAliveInterval=30", "-o", "LogLevel=ERROR",
            "-S", f"{self._directory}/ssh", *options, "root@127.0.0.1",
        ]  # fmt: skip

    def _command(self) -> list[str]:
        drive = f"if=none,id=root,format=qcow2,file={self._directory}/disk.qcow2,discard=unmap"
        forward = f"user,id=net,hostfwd=tcp:127.0.0.1:{self._port}-:22"
        return [
            *self._machine, "-display", "none", "-no-reboot", "-nodefaults",
            "-kernel", str(self._files / "kernel"), "-initrd", str(self._files / "initramfs"),
            "-append", "root=/dev/vda rw quiet console=ttyS0 mitigations=off",
            "-serial", f"file:{self._directory}/console",
            "-drive", drive, "-device", "virtio-blk-pci,drive=root",
            "-netdev", forward, "-device", "virtio-net-pci,netdev=net,romfile=",
            "-device", "virtio-rng-pci",
        ]  # fmt: skip


def _do(*argv: str) -> None:
    must(argv, stdout=subprocess.DEVNULL, timeout=_BUILDING)


def _said(*argv: str) -> str:
    return must(argv, stdout=subprocess.PIPE).decode().strip()
