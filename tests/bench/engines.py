"""The contestants. Each keeps everything in a directory of its own, and leaves nothing."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench import cgroups
from bench.measure import CannotMeasure, must
from support.memory import keepers, wait_settled
from support.waiting import Deadline, wait_readable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from support.accounts import Account


class Engine:
    """Something with docker's words."""

    name: ClassVar[str]
    pull_options: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[tuple[str, ...]] = ()
    """What `run` and `create` need here in addition."""
    build_options: tuple[str, ...] = ()

    def __init__(self, directory: str, account: Account, view: cgroups.View) -> None:
        os.makedirs(directory)
        self.view = view
        # What a command line starts with that root runs, elsewhere or as somebody else.
        self.prefix: list[str] = []
        self.directory = directory
        self.account = account
        self.environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": f"{directory}/home",
            "XDG_RUNTIME_DIR": f"{directory}/x",
            "LANG": "C.UTF-8",
            "TMPDIR": f"{directory}/tmp",
        }
        for name in ("home", "x", "tmp"):
            os.mkdir(f"{directory}/{name}", 0o700)
        for path in (directory, *(f"{directory}/{name}" for name in ("home", "x", "tmp"))):
            os.chown(path, account.uid, account.gid)

    def command(self) -> list[str]:
        """What every command line starts with."""
        raise NotImplementedError

    def __call__(self, *argv: str) -> None:
        """Run a command; raises CannotMeasure where it fails."""
        self._run(argv, subprocess.DEVNULL)

    def output(self, *argv: str) -> str:
        """What a command prints."""
        return self._run(argv, subprocess.PIPE).decode()

    def _run(self, argv: Sequence[str], stdout: int) -> bytes:
        other = self.account.uid != os.geteuid() and not self.prefix
        self.view.enter()
        return must(
            [*self.prefix, *self.command(), *argv],
            stdout=stdout,
            env=self.environment,
            cwd="/",
            user=self.account.uid if other else None,
            group=self.account.gid if other else None,
            extra_groups=[] if other else None,
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """While a daemon runs, where there is one."""
        yield

    def daemons(self) -> list[int]:
        """The processes that are there without any container."""
        return []

    def settle(self) -> None:
        """Wait until what keeps the containers has come to rest."""


class Wherry(Engine):
    name = "wherry"

    def command(self) -> list[str]:
        return list(self.account.command)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self.environment |= {"WHERRY_ROOT": f"{self.directory}/r", **self.account.environment}
        try:
            yield
        finally:
            # Its bridge stays when the last container has left it.
            with contextlib.suppress(CannotMeasure):
                self("system", "reset", "--force")

    def settle(self) -> None:
        wait_settled(f"{self.directory}/r", Deadline(30, "the monitors to settle"))


def _limits() -> tuple[str, ...]:
    """podman asks for more than the hard limit, which is an error without CAP_SYS_RESOURCE."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return f"--ulimit=nofile=1024:{files}", "--ulimit=nproc=4096:4096"


class Podman(Engine):
    name = "podman"
    pull_options = ("--tls-verify=false",)
    options = (f"--cgroup-parent=/{cgroups.GROUP}", *_limits())
    # The very group that a RUN is in: with others below it version 1 takes no rules for devices.
    build_options = (f"--cgroup-parent=/{cgroups.GROUP}/build", *_limits())

    def command(self) -> list[str]:
        state = [f"--root={self.directory}/root", f"--runroot={self.directory}/run"]
        own = [f"--tmpdir={self.directory}/libpod", "--cgroup-manager=cgroupfs"]
        return ["podman", *state, *own, "--storage-driver=overlay", "--log-level=error"]


class RootlessPodman(Podman):
    options = ("--cgroups=disabled", *_limits())
    build_options = _limits()


class Buildah(Podman):
    """What builds for a podman, of the images that it has."""

    name = "buildah"

    def __init__(self, podman: Podman) -> None:
        self.__dict__.update(podman.__dict__)
        self.build_options = podman.build_options

    def command(self) -> list[str]:
        state = [f"--root={self.directory}/root", f"--runroot={self.directory}/run"]
        return ["buildah", *state, "--storage-driver=overlay", "--log-level=error"]


class Docker(Engine):
    """With a daemon of its own, by default without a bridge and without firewall rules."""

    name = "docker"
    options = build_options = (f"--cgroup-parent=/{cgroups.GROUP}",)
    network: ClassVar[tuple[str, ...]] = ("--iptables=false", "--ip6tables=false", "--bridge=none")

    def command(self) -> list[str]:
        return ["docker", "--host", f"unix://{self.directory}/socket"]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        argv = [*self.prefix, "dockerd", *self.network]
        argv += [f"--host=unix://{self.directory}/socket", f"--pidfile={self.directory}/pid"]
        argv += [f"--data-root={self.directory}/root", f"--exec-root={self.directory}/run"]
        self.view.enter()
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=self.environment,
        )
        assert process.stderr is not None
        self._daemon = process.pid
        said = b""
        reader = threading.Thread(target=shutil.copyfileobj, args=(process.stderr, _Discard()))
        try:
            deadline = Deadline(60, "dockerd to listen")
            while b"API listen on" not in said:
                wait_readable(process.stderr.fileno(), deadline)
                chunk = os.read(process.stderr.fileno(), 65536)
                if not chunk:
                    last = said.decode(errors="replace").strip().splitlines() or ["no message"]
                    raise CannotMeasure(f"dockerd ended: {last[-1]}")
                said += chunk
            reader.start()
            yield
        finally:
            process.terminate()
            process.wait()
            if reader.ident is not None:
                reader.join()
            process.stderr.close()

    def daemons(self) -> list[int]:
        children = Path(f"/proc/{self._daemon}/task/{self._daemon}/children").read_text().split()
        return [self._daemon, *map(int, children)]


class BridgedDocker(Docker):
    """The same as it is by default, for a host of its own."""

    network = ()


class _Discard:
    def write(self, content: bytes) -> int:
        return len(content)


def crun_bundle(directory: str, rootfs: str, *, network: bool) -> str:
    """A bundle that runs `true`; `network` keeps the host's."""
    os.makedirs(directory)
    subprocess.run(["crun", "spec"], cwd=directory, check=True)
    config = Path(directory, "config.json")
    spec = json.loads(config.read_text())
    spec["root"] = {"path": rootfs, "readonly": False}
    spec["process"]["terminal"] = False
    spec["process"]["args"] = ["true"]
    spec["linux"]["cgroupsPath"] = f"/{cgroups.GROUP}/crun"
    if network:
        kept = [entry for entry in spec["linux"]["namespaces"] if entry["type"] != "network"]
        spec["linux"]["namespaces"] = kept
    config.write_text(json.dumps(spec))
    return directory


def bubblewrap(rootfs: str, *, network: bool) -> list[str]:
    argv = ["bwrap", "--unshare-all", *(["--share-net"] if network else [])]
    return [*argv, "--bind", rootfs, "/", "--proc", "/proc", "--dev", "/dev", "true"]


def clean_up(directory: str) -> None:
    """Remove what the contestants leave behind."""
    for pid in keepers(directory, "\0"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for target in reversed(mounts):
        if target.startswith(f"{directory}/"):
            subprocess.run(["umount", "--lazy", target], check=False, capture_output=True)
    cgroups.remove_groups()
    shutil.rmtree(directory, ignore_errors=True)
