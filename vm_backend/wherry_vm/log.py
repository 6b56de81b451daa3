"""What the supervisor says, in supervisor.log: on a disk that may be full."""

from __future__ import annotations

import contextlib
import os
import sys


class Log:
    """Standard error, which no machine ends for: what cannot be written is not said."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            os.write(2, text.encode(errors="backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Nothing waits to be written."""


def log_what_is_said() -> None:
    """Have this process's errors and warnings be written as far as there is room."""
    sys.stderr = Log()
