"""What others have written, on its way to a terminal: as text, never as orders to it.

An image's author, a registry or a container may have written it.
"""

from __future__ import annotations

import sys

# All control characters (C0, DEL, C1) but tab and newline.
_CONTROLS = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"
}


def harmless(text: str) -> str:
    """`text` without what would steer a terminal."""
    return text.translate(_CONTROLS)


def warn(line: str) -> None:
    """Tell a line of warning on standard error."""
    print(f"wherry: warning: {harmless(line)}", file=sys.stderr)


def shown(text: str) -> str:
    """`text` as it goes to standard output: harmless on a terminal, whole for a program."""
    return harmless(text) if sys.stdout.isatty() else text
