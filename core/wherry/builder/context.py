"""A build's context: the files that COPY and ADD may take, wherever they come from."""

from __future__ import annotations

import os

from wherry.builder.ignore import Ignore, read_ignore
from wherry.errors import NotFound, UsageError

_NAMES = ("Dockerfile", "Containerfile")


class Context:
    """A directory of this host; what its ignore file names does not exist."""

    def __init__(self, directory: str, ignore: Ignore | None = None) -> None:
        """`directory` is "" for a context without files."""
        self.directory = directory
        self.ignore = ignore or Ignore(())


def find_dockerfile(directory: str, path: str) -> tuple[str, str]:
    """The Dockerfile of a context, and what it is called; `path` is what -f says. Raises."""
    if path:
        return _existing(path), os.path.basename(path)
    for name in _NAMES:
        found = os.path.join(directory, name)
        if os.path.exists(found):
            return found, name
    raise NotFound("failed to read dockerfile: open Dockerfile: no such file or directory")


def _existing(path: str) -> str:
    if not os.path.exists(path):
        raise NotFound(
            f"failed to read dockerfile: open {os.path.basename(path)}: no such file or directory"
        )
    return path


def read_text(path: str) -> str:
    """The text of a Dockerfile or an ignore file."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"failed to read dockerfile: open {path}: {reason}") from error


def local_context(directory: str, dockerfile: str) -> Context:
    """The context of a directory, with the ignore file of the Dockerfile or its own."""
    for path in (f"{dockerfile}.dockerignore", os.path.join(directory, ".dockerignore")):
        if dockerfile and os.path.isfile(path):
            try:
                return Context(directory, read_ignore(read_text(path)))
            except ValueError as error:
                raise UsageError(f"{path}: {error}") from error
    return Context(directory)
