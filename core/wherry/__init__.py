"""wherry: one container command, with docker's words, on Linux, macOS and Windows.

As a library: `wherry.run`, `wherry.Container` (see wherry.library).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.errors import WherryError
    from wherry.library import CommandFailed, Container, Result, TimedOut, pull, run

__version__ = "0.1.0"

__all__ = ["CommandFailed", "Container", "Result", "TimedOut", "WherryError", "pull", "run"]


def __getattr__(name: str) -> object:
    """The library's names, imported when first used: the command does not pay for them."""
    if name == "WherryError":
        from wherry.errors import WherryError

        return WherryError
    if name in __all__:
        from wherry import library

        return getattr(library, name)
    raise AttributeError(f"module 'wherry' has no attribute {name!r}")
