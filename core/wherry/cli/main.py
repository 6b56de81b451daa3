"""The command `wherry`: from its words to a function, and from its end to an exit code.

Every command has a line in `COMMANDS`; a command's module is imported when that
command is asked for. Errors are printed here and nowhere else.
"""

from __future__ import annotations

import errno
import os
import sys
from io import TextIOWrapper

from wherry.cli.each import complain
from wherry.cli.grammar import HELP, argument, command, option
from wherry.errors import UsageError, WherryError, as_ours

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wherry.cli.grammar import Declaration

    Table = dict[str, "str | Table"]

_CONTAINER_VERBS: Table = {
    "attach": "exec:attach",
    "commit": "transfer:commit",
    "cp": "transfer:cp",
    "create": "run:create",
    "diff": "container:diff",
    "exec": "exec:exec_",
    "export": "transfer:export",
    "kill": "lifecycle:kill",
    "logs": "container:logs",
    "pause": "lifecycle:pause",
    "port": "port:port",
    "port add": "port:add",
    "port rm": "port:rm",
    "rename": "lifecycle:rename",
    "restart": "lifecycle:restart",
    "rm": "lifecycle:rm",
    "run": "run:run",
    "start": "lifecycle:start",
    "stats": "stats:stats",
    "stop": "lifecycle:stop",
    "top": "container:top",
    "unpause": "lifecycle:unpause",
    "update": "update:update",
    "wait": "lifecycle:wait",
}

_IMAGE_VERBS: Table = {
    "build": "build:build",
    "history": "image:history",
    "import": "archive:import_",
    "load": "archive:load",
    "pull": "image:pull",
    "push": "image:push",
    "save": "archive:save",
    "tag": "image:tag",
}

COMMANDS: Table = {
    **_CONTAINER_VERBS,
    **_IMAGE_VERBS,
    "bootstrap": "bootstrap:bootstrap",
    "builder": {
        "build": "build:build",
        "du": "builder:du",
        "prune": "builder:prune",
    },
    "buildx": {
        "bake": "buildx:other",
        "build": "build:build",
        "create": "buildx:other",
        "du": "builder:du",
        "imagetools": "buildx:other",
        "inspect": "buildx:inspect",
        "ls": "buildx:ls",
        "prune": "builder:prune",
        "rm": "buildx:other",
        "stop": "buildx:other",
        "use": "buildx:use",
        "version": "buildx:version",
    },
    "completion": "completion:completion",
    "container": {
        **_CONTAINER_VERBS,
        "exists": "exists:container_exists",
        "get-archive": "files:get_archive",
        "put-archive": "files:put_archive",
        "stat-path": "files:stat_path",
        "inspect": "inspect:inspect_container",
        "list": "ps:ps",
        "ls": "ps:ps",
        "prune": "prune:prune_containers",
        "ps": "ps:ps",
        "remove": "lifecycle:rm",
    },
    "context": {
        "inspect": "context:inspect",
        "list": "context:ls",
        "ls": "context:ls",
        "show": "context:show",
        "use": "context:use",
    },
    "doctor": "doctor:doctor",
    "events": "system:events",
    "healthcheck": {
        "run": "healthcheck:run",
    },
    "image": {
        **_IMAGE_VERBS,
        "exists": "exists:image_exists",
        "inspect": "image:inspect",
        "list": "image:images",
        "ls": "image:images",
        "mount": "image_mount:mount",
        "prune": "image:prune",
        "remove": "image:rmi",
        "rm": "image:rmi",
        "tree": "image_tree:tree",
        "umount": "image_mount:unmount",
        "unmount": "image_mount:unmount",
    },
    "images": "image:images",
    "info": "system:info",
    "inspect": "inspect:inspect",
    "login": "registry:login",
    "logout": "registry:logout",
    "machine": {
        "bench": "machine:bench",
        "console": "machine:console",
        "init": "machine:init",
        "inspect": "machine:inspect",
        "list": "machine:ls",
        "logs": "machine:logs",
        "ls": "machine:ls",
        "remove": "machine:rm",
        "restart": "machine:restart",
        "rm": "machine:rm",
        "set": "machine:set_",
        "ssh": "machine:ssh",
        "start": "machine:start",
        "stop": "machine:stop",
    },
    "manifest": {
        "annotate": "manifest:annotate",
        "create": "manifest:create",
        "inspect": "manifest:inspect",
        "push": "manifest:push",
        "rm": "manifest:rm",
    },
    "network": {
        "connect": "network:connect",
        "create": "network:create",
        "disconnect": "network:disconnect",
        "exists": "exists:network_exists",
        "inspect": "network:inspect",
        "list": "network:ls",
        "ls": "network:ls",
        "prune": "network:prune",
        "remove": "network:rm",
        "rm": "network:rm",
    },
    "oci": "oci:oci",
    "ps": "ps:ps",
    "rmi": "image:rmi",
    "search": "registry:search",
    "secret": {
        "create": "secret:create",
        "inspect": "secret:inspect",
        "list": "secret:ls",
        "ls": "secret:ls",
        "remove": "secret:rm",
        "rm": "secret:rm",
    },
    "system": {
        "check": "check:check",
        "df": "system:df",
        "events": "system:events",
        "info": "system:info",
        "prune": "prune:prune_system",
        "reset": "reset:reset",
    },
    "unshare": "unshare:unshare",
    "version": "system:version",
    "volume": {
        "create": "volume:create",
        "exists": "exists:volume_exists",
        "export": "volume:export",
        "import": "volume:import_",
        "inspect": "volume:inspect",
        "list": "volume:ls",
        "ls": "volume:ls",
        "prune": "volume:prune",
        "remove": "volume:rm",
        "rm": "volume:rm",
    },
}
"""Each command's names, and the module and function that carry it out."""

GROUPS = {
    "builder": "Manage builds",
    "buildx": "Build images, with the words of docker's plugin",
    "container": "Manage containers",
    "context": "Manage contexts",
    "healthcheck": "Manage health checks",
    "image": "Manage images",
    "machine": "Manage the virtual machine that containers run in elsewhere than on Linux",
    "manifest": "Manage manifests of images in registries, and lists of them",
    "network": "Manage networks",
    "secret": "Manage secrets",
    "system": "Manage wherry",
    "volume": "Manage volumes",
}

LISTED = (
    "run",
    "exec",
    "ps",
    "build",
    "pull",
    "push",
    "images",
    "login",
    "logout",
    "version",
    "info",
)
"""What the main help shows first."""


# fmt: off
_OPTIONS = (
    option("--backend", choices=("linux", "vm"), metavar="string",
           help="Where containers run: linux (this kernel) or vm (env WHERRY_BACKEND)"),
    option("--config", metavar="string",
           help="Location of client config files (env DOCKER_CONFIG)"),
    option("-c", "--context", metavar="string", help="Name of the context: only default"),
    option("-D", "--debug", type=bool, help="Show where an error comes from"),
    option("-H", "--host", multiple=True, metavar="list", hidden=True),
    option("-l", "--log-level", choices=("debug", "info", "warn", "error", "fatal"),
           default="info", metavar="string", help="Set the logging level"),
    option("--tls", type=bool, hidden=True),
    option("--tlscacert", hidden=True),
    option("--tlscert", hidden=True),
    option("--tlskey", hidden=True),
    option("--tlsverify", type=bool, hidden=True),
    option("-v", "--version", type=bool, help="Print version information and quit"),
)
# fmt: on


_WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@command(
    *_OPTIONS,
    argument("words", nargs=-1, required=False),
    name="",
    interspersed=False,
    usage="[OPTIONS] COMMAND",
)
def wherry(words: tuple[str, ...], version: bool, **options: Any) -> int:
    """Containers with docker's words, on Linux, macOS and Windows"""
    if version:
        from wherry import __version__

        print(f"wherry version {__version__}")
        return 0
    _apply(**options)
    return run_command(words)


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the command line `argv`; the exit code."""
    _open_standard_streams()
    if "_WHERRY_COMPLETE" in os.environ:
        from wherry.cli.clickify import complete

        return complete()
    try:
        code = _dispatch(sys.argv[1:] if argv is None else list(argv))
        if sys.stdout is not None:
            # A full disk behind our output shows here, or never.
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough; a shell shows 128 + SIGPIPE.
        return 141
    except Exception as error:  # the one place where errors are printed
        if os.environ.get("WHERRY_DEBUG"):
            sys.excepthook(type(error), error, error.__traceback__)
        return print_error(error)
    return code


def run_command(words: Sequence[str]) -> int:
    """Carry out the command that `words` begin with."""
    found = find_command(words)
    if found is None:
        return 0
    spelled, declaration, rest = found
    values = declaration.parse(rest, spelled)
    if HELP in values:
        from wherry.cli.clickify import print_help

        return print_help(spelled.split())
    try:
        return declaration.function(**values)
    except WherryError as error:
        if error.exit_code is None:
            error.exit_code = declaration.failure
        raise


def find_command(words: Sequence[str]) -> tuple[str, Declaration, Sequence[str]] | None:
    """The command, as spelled, and what follows it; None where help was the answer."""
    if words and words[0] == "help" and find_entry(words[1:]) is not None:
        words = [*words[1:], "--help"]
    table = COMMANDS
    for at, word in enumerate(words):
        entry = table.get(word)
        # A container may be called `add`: `port add 80` is about that one.
        longer = " ".join(words[at : at + 2])
        if longer in table and len(words) > at + 3:
            found = table[longer]
            assert isinstance(found, str)
            return " ".join(words[: at + 2]), load(found), words[at + 2 :]
        if isinstance(entry, str):
            return " ".join(words[: at + 1]), load(entry), words[at + 1 :]
        if entry is None:
            if word in ("--help", "-h"):
                _print_help(words[:at])
                return None
            raise _unknown(words[: at + 1], table)
        table = entry
    _print_help(words, to_stderr=True)
    return None


def find_entry(words: Sequence[str]) -> str | Table | None:
    """What the table holds at `words`."""
    entry: str | Table | None = COMMANDS
    for word in words:
        entry = entry.get(word) if isinstance(entry, dict) else None
    return entry


def load(entry: str) -> Declaration:
    """The declaration that a line of the table names."""
    module, _, name = entry.partition(":")
    full = f"wherry.cli.{module}"
    __import__(full)
    declaration: Declaration = getattr(sys.modules[full], name)
    return declaration


def print_error(error: Exception) -> int:
    """Say what went wrong on one line, what to try on the next; the exit code."""
    code: int | None = 1
    hint = None
    if isinstance(error, MemoryError | RecursionError):
        error = as_ours(error)
    if isinstance(error, WherryError):
        message, hint, code = error.message, error.hint, error.exit_code
    elif isinstance(error, OSError):
        message = error.strerror or str(error)
        if error.filename is not None:
            message = f"{message}: {error.filename}"
        elif error.errno in _WRITE_ERRORS:
            message = f"cannot write: {message}"
    else:
        message = f"internal error: {type(error).__name__}: {error}"
        hint = "This is a mistake in wherry: WHERRY_DEBUG=1 shows where."
    complain(message, hint)
    return 1 if code is None else code


def _dispatch(words: list[str]) -> int:
    if words and words[0][:1] != "-":
        return run_command(words)
    values = wherry.parse(words)
    if HELP in values:
        _print_help(())
        return 0
    return wherry.function(**values)


def _apply(backend: str, config: str, context: str, debug: bool, host: Any, **_: Any) -> None:
    """Hand global options on: each has an environment variable, which all of wherry reads."""
    for name, text in (("WHERRY_BACKEND", backend), ("DOCKER_CONFIG", config)):
        if text:
            os.environ[name] = text
    if debug:
        os.environ["WHERRY_DEBUG"] = "1"
    if context not in ("", "default"):
        raise UsageError(f'context "{context}": not found: there is only "default"')
    if host:
        complain("--host means nothing here: wherry has no daemon to reach")


def _unknown(words: Sequence[str], table: Table) -> UsageError:
    from difflib import get_close_matches

    above = " ".join(("wherry", *words[:-1]))
    near = get_close_matches(words[-1], table, n=1)
    guess = f"Did you mean '{above} {near[0]}'? " if near else ""
    error = UsageError(
        f"unknown command: {above} {words[-1]}", hint=f"{guess}See '{above} --help'."
    )
    error.exit_code = 1
    return error


def _print_help(words: Sequence[str], *, to_stderr: bool = False) -> None:
    from wherry.cli.clickify import print_help

    print_help(words, to_stderr=to_stderr)


def _open_standard_streams() -> None:
    """Make sure that 0, 1 and 2 are open, so that no file of ours takes their place."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if isinstance(sys.stdout, TextIOWrapper):
        # A file name need not be UTF-8: what came in as bytes goes out as the same bytes.
        sys.stdout.reconfigure(errors="surrogateescape")
