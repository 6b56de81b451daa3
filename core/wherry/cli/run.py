"""`wherry run` and `wherry create`."""

from __future__ import annotations

from wherry.backend import Command, execute
from wherry.cli import options
from wherry.cli.each import complain
from wherry.cli.grammar import argument, command
from wherry.cli.host import (
    check_terminal,
    console_size,
    elsewhere,
    read_secrets,
    resolve,
    with_paths,
)
from wherry.container.create import create_body
from wherry.container.request import RunRequest, pull_options
from wherry.errors import UsageError
from wherry.names import check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.grammar import Declaration
    from wherry.container.spec import CreateBody

_ARGUMENTS = (argument("image"), argument("command", nargs=-1, required=False, metavar="COMMAND"))
_USAGE = "[OPTIONS] IMAGE [COMMAND] [ARG...]"


@command(
    *options.CREATE,
    *options.RUN,
    *_ARGUMENTS,
    usage=_USAGE,
    interspersed=False,
    failure=125,
    examples="""\
  $ wherry run -it --rm debian bash                    a shell, and nothing left of it
  $ wherry run -d --name web -p 8080:80 nginx          a server in the background
  $ wherry run --rm -v "$PWD:/src" -w /src gcc make    a tool on the files that are here
  $ echo hello | wherry run -i --rm alpine cat         standard input and output are pipes
  $ wherry run --explain debian                        namespaces, ids, mounts, limits, …
""",
)
def run(**values: Any) -> int:
    """Create and run a new container from an image"""
    values = resolve(values)
    body, request = prepare(values, run)
    if not request.detach and not request.explain:
        check_terminal(values["tty"], bool(body["AttachStdin"]))
    return execute(
        Command(
            argv=run.argv(**elsewhere(values)),
            action=lambda engine: engine.containers.run(body, request),
            stdin=0 if body["AttachStdin"] and not request.explain else None,
            **_host_side(values, request, run),
        )
    )


@command(
    *options.CREATE,
    *_ARGUMENTS,
    usage=_USAGE,
    interspersed=False,
    examples="""\
  $ wherry create --name job -v data:/data debian sort /data/in
  $ wherry start -a job
""",
)
def create(**values: Any) -> int:
    """Create a new container"""
    values = resolve(values)
    body, request = prepare(values, create)

    def action(engine: Any) -> int:
        print(engine.containers.create(body, request))
        return 0

    return execute(
        Command(
            argv=create.argv(**elsewhere(values)),
            action=action,
            **_host_side(values, request, create),
        )
    )


def _host_side(
    values: dict[str, Any], request: RunRequest, declaration: Declaration
) -> dict[str, Any]:
    """What of the command stays on the host it was typed on."""
    return {
        "placed": lambda place: declaration.argv(**with_paths(elsewhere(values), place)),
        "reads": (values["authfile"],) if values["authfile"] else (),
        "writes": (values["cidfile"],) if values["cidfile"] else (),
        "secrets": request.secrets,
    }


def prepare(values: dict[str, Any], declaration: Declaration) -> tuple[CreateBody, RunRequest]:
    """What the engine is asked for. Raises UsageError."""
    _warn_of_ignored(values, declaration)
    if values["pull"] not in ("always", "missing", "never"):
        raise UsageError(
            f"invalid pull option: '{values['pull']}': "
            'must be one of "always", "missing" or "never"'
        )
    name = check_name(values["name"]) if values["name"] else ""
    if values["replace"] and not name:
        raise UsageError("cannot replace a container without --name being set")
    body = create_body(values)
    secrets: dict[str, bytes] = {}
    if values["secret"]:
        mounts, secrets = read_secrets(values["secret"])
        body.setdefault("Wherry", {})["Secrets"] = mounts
    if values["tty"] and (size := console_size()):
        body["HostConfig"]["ConsoleSize"] = size
    return body, RunRequest(
        name=name,
        pull=pull_options(
            values, platform=values["platform"], policy=values["pull"], quiet=values["quiet"]
        ),
        replace=values["replace"],
        cid_file=values["cidfile"],
        secrets=secrets,
        explain=values.get("explain", ""),
        detach=values.get("detach", False),
        detach_keys=values.get("detach_keys", ""),
        sig_proxy=values.get("sig_proxy", True),
    )


def _warn_of_ignored(values: dict[str, Any], declaration: Declaration) -> None:
    """One line for each option that was given and does nothing."""
    for each in declaration.options:
        if each.name in options.IGNORED and values[each.name] != each.default:
            complain(f"{each.long} does nothing: {options.IGNORED[each.name]}")
