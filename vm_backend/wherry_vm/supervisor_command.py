"""How the supervisor, of no terminal, and other commands of this wherry's are started."""

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
    return _python(f"from wherry_vm.supervisor import main; sys.exit(main({name!r}))")


def wherry(*argv: str) -> list[str]:
    """The command line of another command of the wherry that runs now."""
    return [*_python("from wherry.__main__ import main; main()"), *argv]


def _python(statements: str) -> list[str]:
    import wherry
    import wherry_vm

    places = [os.path.dirname(package.__path__[0]) for package in (wherry, wherry_vm)]
    return [sys.executable, "-I", "-c", f"import sys; sys.path[:0] = {places!r}; {statements}"]


def detached() -> dict[str, Any]:
    """What keeps the process from ending with the terminal it was started in."""
    if sys.platform == "win32":
        return {"creationflags": _NEW_PROCESS_GROUP | _NO_WINDOW}
    return {"start_new_session": True}
