"""docker with a daemon of its own, which keeps everything in one short directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from typing import TYPE_CHECKING

import pytest

from support.requirements import need_tool
from support.waiting import Deadline, wait_readable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Docker:
    """`docker(…)` asks the daemon; `close` ends it, and its containers with it."""

    def __init__(
        self,
        *options: str,
        enter: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`options` are dockerd's; `enter` is a command line that starts it somewhere else.

        Skips the test where dockerd does not run.
        """
        daemon, self._client = need_tool("dockerd"), need_tool("docker")
        self._place = tempfile.mkdtemp(prefix="wherry-")
        place = self._place
        self._process = subprocess.Popen(
            [
                *enter, daemon, f"--host=unix://{place}/socket", f"--pidfile={place}/pid",
                f"--data-root={place}/data", f"--exec-root={place}/run", *options,
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env=environment,
        )  # fmt: skip
        stderr = self._process.stderr
        assert stderr is not None
        said, deadline = b"", Deadline(60, "dockerd to listen")
        while b"API listen on" not in said:
            wait_readable(stderr.fileno(), deadline)
            chunk = os.read(stderr.fileno(), 65536)
            if not chunk:
                pytest.skip(f"dockerd cannot run here: {said.decode()[-300:]}")
            said += chunk
        self._reader = threading.Thread(target=stderr.read)
        self._reader.start()

    def __call__(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [self._client, "--host", f"unix://{self._place}/socket", *words],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert not check or result.returncode == 0, result.stderr
        return result

    def close(self) -> None:
        if found := self("ps", "-aq").stdout.split():
            self("rm", "--force", *found)
        self._process.terminate()
        self._process.wait()
        self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()
        shutil.rmtree(self._place, ignore_errors=True)
