"""`wherry oci` over a state directory of its own, and a bundle made by hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from support.requirements import need_tool

if TYPE_CHECKING:
    from pathlib import Path

_APPLETS = (
    "cat", "echo", "grep", "hostname", "id", "ls", "mkdir", "mount", "readlink", "rm", "sh",
    "sleep", "stat", "stty", "test", "touch", "tr", "true", "tty", "uname",
)  # fmt: skip


class Oci:
    """`wherry oci`, and the bundle that its containers are made from."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.bundle = base / "bundle"
        self.rootfs = self.bundle / "rootfs"
        self.state = base / "state"
        self.environment = {**os.environ, "WHERRY_ROOT": str(base / "world")}
        for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
            (self.rootfs / name).mkdir(parents=True)
        shutil.copy(need_tool("busybox"), self.rootfs / "bin/busybox")
        for name in _APPLETS:
            (self.rootfs / "bin" / name).symlink_to("busybox")
        self("spec", "--bundle", str(self.bundle))
        self.spec: dict[str, Any] = json.loads((self.bundle / "config.json").read_text())
        self.spec["process"]["terminal"] = False

    def __call__(
        self, *words: str, check: bool = True, pass_fds: tuple[int, ...] = (), **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Call the runtime with `words`."""
        argv = [sys.executable, "-m", "wherry", "oci", "--root", str(self.state), *words]
        # Files, not pipes: a container that goes on would keep a pipe open.
        with (self.base / "out").open("w+") as out, (self.base / "err").open("w+") as err:
            result = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=self.environment,
                pass_fds=pass_fds,
                timeout=60,
                check=False,
                **options,
            )
            out.seek(0)
            err.seek(0)
            done = subprocess.CompletedProcess[str](argv, result.returncode, out.read(), err.read())
        assert not check or done.returncode == 0, done.stderr
        return done

    def write(self) -> None:
        """Put the spec into the bundle."""
        (self.bundle / "config.json").write_text(json.dumps(self.spec))

    def run(
        self, *args: str, check: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run `args` in a container of the bundle, in the foreground."""
        self.spec["process"]["args"] = list(args)
        self.write()
        return self(
            "run", "--bundle", str(self.bundle), *options.pop("options", ()), "c1",
            check=check, **options,
        )  # fmt: skip

    def create(self, container_id: str, *args: str) -> None:
        """Create a container of the bundle that is to run `args`."""
        self.spec["process"]["args"] = list(args)
        self.write()
        self("create", "--bundle", str(self.bundle), container_id)

    def status(self, container_id: str) -> str:
        """The status that `state` shows."""
        return str(json.loads(self("state", container_id).stdout)["status"])

    def script(self, name: str, text: str) -> str:
        """An executable of the host; its path."""
        path = self.base / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)
