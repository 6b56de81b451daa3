"""How the supervisor is started: another process of this interpreter, of no terminal's."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DETACHED_PROCESS = 0x8
_NEW_PROCESS_GROUP = 0x200
_NO_WINDOW = 0x08000000


def words(name: str) -> list[str]:
    """The command line: this interpreter, and the wherry that runs now."""
    import wherry
    import wherry_vm

    places = [os.path.dirname(package.__path__[0]) for package in (wherry, wherry_vm)]
    program = (
        f"import sys; sys.path[:0] = {places!r};"
        f" from wherry_vm.supervisor import main; sys.exit(main({name!r}))"
    )
    return [sys.executable, "-I", "-c", program]


def detached() -> dict[str, Any]:
    """What keeps the process from ending with the terminal it was started in."""
    if sys.platform == "win32":
        return {"creationflags": _NEW_PROCESS_GROUP | _NO_WINDOW}
    return {"start_new_session": True}
