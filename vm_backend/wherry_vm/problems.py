"""What goes wrong in the guest: its runner's standard error, in the supervisor's log."""

from __future__ import annotations

import sys

from wherry.harmless import harmless

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MOST = 1 << 18
"""Characters that a guest, which is not trusted, may have written in one run of its machine."""


class Problems:
    """Writes what the guest's agent tells of to our own standard error."""

    def __init__(self) -> None:
        self._left = _MOST

    def hear(self, message: dict[str, Any]) -> None:
        """Take a message of the guest's, if it is about that."""
        if message.get("event") != "problem" or not self._left:
            return
        text = str(message["text"])[: self._left]
        self._left -= len(text)
        for line in text.splitlines():
            print(f"guest: {harmless(line)}", file=sys.stderr, flush=True)
