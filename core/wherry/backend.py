"""Where a command is carried out: the seam between the command line and a Linux kernel."""

from __future__ import annotations

import os
import sys

from wherry.errors import Unsupported, UsageError
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol

    from wherry.engine import Engine

    class Backend(Protocol):
        """Something that can carry out commands."""

        def execute(self, command: Command) -> int:
            """Carry out `command`; its exit code."""

        def engine(self) -> Engine:
            """The engine itself. Raises Unsupported where it is on another system."""


_NOTHING: Mapping[str, bytes] = {}


@value
class Command:
    """A parsed command: how it is said to another wherry, and how it is done here.

    `argv` is written from parsed values, never copied from what was typed, so that
    nothing in it depends on this host.
    """

    argv: tuple[str, ...]
    action: Callable[[Engine], int]
    # What another wherry's standard input is: this one's (0), bytes, something to read, which
    # may answer what it is asked for with `ask`; None for a command that reads none, and
    # leaves what is typed meanwhile to whoever comes next.
    stdin: Any = None
    # The file of this host that another wherry's standard output becomes, once it is whole.
    output: str = ""
    # This host's files that the command may read and write: what its options name.
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    # `argv` once more, with each path of this host that a container is to see put through a
    # function: where another wherry finds it. None for a command that names no such path.
    placed: Callable[[Callable[[str], str]], tuple[str, ...]] | None = None
    # The contents of secrets that are this host's, by name.
    secrets: Mapping[str, bytes] = _NOTHING
    # Whether it only tells what there is: it asks this host nothing, and says nothing before its
    # end. Another wherry need not carry what it says while it runs.
    brief: bool = False
    # Whether the command has something to tell where images and containers cannot be kept.
    works_without_places: bool = False
    # What is done here where the containers are elsewhere, in the place of `argv` alone: it is
    # given a function that has another wherry carry out words, and tells the exit code.
    elsewhere: Callable[[Callable[..., int]], int] | None = None


# The only place where core names the packages that build on it.
_BACKENDS = {"linux": "wherry_linux.backend", "vm": "wherry_vm.backend"}
_OCI = "wherry_linux.oci"
_MACHINES = "wherry_vm.verbs"


def load_backend(name: str | None = None) -> Backend:
    """The backend called `name`, or that of WHERRY_BACKEND, or this system's own."""
    chosen = name or os.environ.get("WHERRY_BACKEND") or default_backend()
    module = _BACKENDS.get(chosen)
    if module is None:
        raise UsageError(f"unknown backend {chosen!r}", hint="WHERRY_BACKEND is linux or vm")
    __import__(module)
    backend: Backend = sys.modules[module].load()
    return backend


def load_oci() -> Callable[..., int]:
    """What carries out `wherry oci`: a function of its words and options."""
    if sys.platform != "linux":
        raise Unsupported(
            f"wherry oci is for Linux: this is {sys.platform}",
            hint="`wherry run` runs containers here",
        )
    __import__(_OCI)
    main: Callable[..., int] = sys.modules[_OCI].main
    return main


def load_machines() -> Any:
    """What carries out `wherry machine`."""
    __import__(_MACHINES)
    return sys.modules[_MACHINES]


def default_backend() -> str:
    """What serves on this system when nothing is asked for."""
    return "linux" if sys.platform == "linux" else "vm"


def execute(command: Command) -> int:
    """Carry out `command` on the backend in force; its exit code."""
    return load_backend().execute(command)


def load_engine() -> Engine:
    """The engine of the backend in force, for Python programs."""
    return load_backend().engine()
