"""What the options before the command set."""

from __future__ import annotations

import os
import sys

from wherry import paths
from wherry.errors import WherryError
from wherry.lean import dump_json
from wherry_linux.runtime import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LEVELS = ("debug", "info", "warning", "error")


class Session:
    """One call of the runtime."""

    def __init__(
        self,
        *,
        root: str = "",
        log: str = "",
        log_format: str = "text",
        debug: bool = False,
        systemd_cgroup: bool = False,
        **_: Any,
    ) -> None:
        self.runtime = Runtime(os.path.abspath(root) if root else paths.oci_root())
        self.systemd_cgroup = systemd_cgroup
        self._log = log
        self._format = log_format
        self._least = _LEVELS.index("debug" if debug else "info")

    def warn(self, message: str) -> None:
        """Say what could not be done as asked, where it does not end the command."""
        if self._log:
            self.log("warning", message)
        else:
            print(f"wherry: {message}", file=sys.stderr)

    def log(self, level: str, message: str) -> None:
        """Add a line to the log that the caller asked for, in the words that engines parse."""
        if not self._log or _LEVELS.index(level) < self._least:
            return
        import time

        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._format == "json":
            line = dump_json({"level": level, "msg": message, "time": now})
        else:
            quoted = dump_json(message)
            line = f'time="{now}" level={level} msg={quoted}'
        try:
            with open(self._log, "a") as file:
                file.write(line + "\n")
        except OSError as error:
            raise WherryError(f"cannot write log {self._log}: {error.strerror}") from error
