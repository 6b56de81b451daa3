"""podman over a store of its own, with `wherry oci` as its runtime."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from support.accounts import current_account
from support.cli import Cli
from support.requirements import need_tool

if TYPE_CHECKING:
    from support.oci import Oci

# podman's own limits may be more than this machine's root may give.
CONFIGURATION = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "wherry-oci"
runtime_supports_json = ["wherry-oci"]
runtime_supports_nocgroup = ["wherry-oci"]
[engine.runtimes]
wherry-oci = ["{runtime}"]
"""


class Podman:
    """podman, and the image `busybox` that has the bundle's root."""

    def __init__(self, oci: Oci) -> None:
        program = need_tool("podman")
        runtime = oci.script("wherry-oci", f'#!/bin/sh\nexec {sys.executable} -m wherry oci "$@"\n')
        configuration = oci.base / "containers.conf"
        configuration.write_text(CONFIGURATION.format(runtime=runtime))
        self.environment = {**oci.environment, "CONTAINERS_CONF": str(configuration)}
        self._store = oci.base / "store"
        self._short = tempfile.mkdtemp(prefix="wherry-")  # podman takes no more than 50 characters
        self.command = [program, "--root", str(self._store), "--runroot", self._short]
        self("import", shutil.make_archive(str(oci.base / "root"), "tar", oci.rootfs), "busybox")

    def __call__(
        self, *words: str, check: bool = True, **options: object
    ) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(  # type: ignore[call-overload]
            [*self.command, *words], capture_output=True, text=True, env=self.environment,
            timeout=60, check=False, **options,
        )  # fmt: skip
        assert not check or result.returncode == 0, result.stderr
        answer: subprocess.CompletedProcess[str] = result
        return answer

    def cli(self) -> Cli:
        """The same as a command that a terminal can be put around."""
        account = replace(current_account(), command=tuple(self.command))
        return Cli(account, self.environment, str(self._store))

    def close(self) -> None:
        """Remove everything."""
        self("pod", "rm", "--all", "--force", "--time", "0")
        self("rm", "--all", "--force", "--time", "0")
        self("rmi", "--all", "--force")
        for mounted in ("overlay", ""):
            subprocess.run(
                ["umount", self._store / mounted], stderr=subprocess.DEVNULL, check=False
            )
        shutil.rmtree(self._short, ignore_errors=True)
        # podman looks after the groups of its cgroup version alone.
        for top in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
            for directory in (*Path(top).glob("libpod_parent/*"), Path(top, "libpod_parent")):
                with contextlib.suppress(OSError):
                    os.rmdir(directory)
