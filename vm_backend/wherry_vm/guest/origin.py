"""What a command in the guest asks of its host: see wherry.origin.

Each command has a UNIX socket of its own, in a directory that root alone can enter, and a
directory with what the host's docker configuration says, in memory like all of /run.
"""

from __future__ import annotations

import os
from binascii import a2b_base64

from wherry_vm.guest.questions import Questions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Origin:
    """The place where one command asks, and what it is told of its host."""

    def __init__(self, directory: str) -> None:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        # A server's own: a process has one command.
        self.directory = os.path.join(directory, str(os.getpid()))
        _remove(self.directory)
        os.mkdir(self.directory, 0o700)
        self.path = os.path.join(self.directory, "socket")
        self.questions = Questions(self.path)

    def environment(self, configuration: Mapping[str, str]) -> dict[str, str]:
        """What tells a command where to ask, and where its configuration is."""
        place = os.path.join(self.directory, "configuration")
        for name, content in configuration.items():
            path = os.path.join(place, *_parts(name))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(a2b_base64(content))
        return {"WHERRY_ORIGIN": self.path, "DOCKER_CONFIG": place}

    def close(self) -> None:
        """Forget it all."""
        self.questions.close()
        _remove(self.directory)


def _remove(directory: str) -> None:
    """Remove a directory with all that is in it; without effect where it is not there."""
    for place, directories, names in os.walk(directory, topdown=False):
        for name in names:
            os.unlink(os.path.join(place, name))
        for name in directories:
            os.rmdir(os.path.join(place, name))
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        pass


def _parts(name: str) -> list[str]:
    """A name below the directory. Raises ValueError for one that leads elsewhere."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"no name of a configuration file: {name!r}")
    return parts
