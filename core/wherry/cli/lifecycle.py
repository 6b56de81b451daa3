"""Commands that change what containers do: start, stop, restart, kill, rm, and their kin."""

from __future__ import annotations

from wherry.backend import Command, execute
from wherry.cli import common
from wherry.cli.each import for_each
from wherry.cli.grammar import argument, command, option
from wherry.container.signals import read_signal
from wherry.errors import NotFound, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wherry.engine import Engine

_CONTAINERS = argument("container", nargs=-1)
_CONTAINERS_OR_ALL = argument("container", nargs=-1, required=False)
_SIGNAL = option("-s", "--signal", metavar="string", help="Signal to send to the container")
_TIMEOUT = option(
    "-t",
    "--timeout",
    type=int,
    default=None,
    aliases=("--time",),
    help="Seconds to wait before killing the container",
)
_ALL_RUNNING = option("-a", "--all", type=bool, help="All running containers")


def _chosen(
    engine: Engine, names: Sequence[str], everything: bool, *, stopped: bool = False
) -> Sequence[str]:
    """The containers that a command is about: those named, or with --all every one."""
    if not everything:
        return names
    summaries = engine.containers.summaries(all=stopped)
    return [str(summary["Id"]) for summary in summaries]


def _require_names(spelled: str, names: Sequence[str], everything: bool) -> None:
    """docker's error for no names, which --all stands for."""
    if bool(names) == everything:
        reason = "takes names or --all, not both" if names else "requires at least 1 argument"
        error = UsageError(f"'wherry {spelled}' {reason}", hint=f"See 'wherry {spelled} --help'.")
        error.exit_code = 1
        raise error


@command(
    option("-a", "--attach", type=bool, help="Attach STDOUT/STDERR and forward signals"),
    option("--all", type=bool, help="All containers that do not run"),
    common.DETACH_KEYS,
    option("-i", "--interactive", type=bool, help="Attach container's STDIN"),
    _CONTAINERS_OR_ALL,
    usage="[OPTIONS] CONTAINER [CONTAINER...]",
    examples="""\
  $ wherry start -ai box                               with its streams here
""",
)
def start(
    container: tuple[str, ...],
    attach: bool,
    all: bool,  # noqa: A002
    detach_keys: str,
    interactive: bool,
) -> int:
    """Start one or more stopped containers"""
    _require_names("start", container, all)
    attached = attach or interactive
    if attached and (all or len(container) > 1):
        raise UsageError("you cannot start and attach multiple containers at once")
    keys = common.detach_keys(detach_keys) if attached else ""

    def action(engine: Engine) -> int:
        if attached:
            return engine.containers.start_attached(
                container[0], stdin=interactive, detach_keys=keys
            )
        names = _stopped(engine) if all else container
        return for_each(names, engine.containers.start)

    argv = start.argv(
        container=container, attach=attach, all=all, detach_keys=keys, interactive=interactive
    )
    return execute(Command(argv=argv, action=action, stdin=0 if interactive else None))


def _stopped(engine: Engine) -> list[str]:
    summaries = engine.containers.summaries(all=True)
    return [str(each["Id"]) for each in summaries if each["State"] in ("created", "exited")]


@command(
    _ALL_RUNNING,
    _SIGNAL,
    _TIMEOUT,
    _CONTAINERS_OR_ALL,
    usage="[OPTIONS] CONTAINER [CONTAINER...]",
    examples="""\
  $ wherry stop -t 30 web                              half a minute to end by itself
""",
)
def stop(container: tuple[str, ...], all: bool, signal: str, timeout: int | None) -> int:  # noqa: A002
    """Stop one or more running containers"""
    _require_names("stop", container, all)
    if signal:
        read_signal(signal)
    return execute(
        Command(
            argv=stop.argv(container=container, all=all, signal=signal, timeout=timeout),
            action=lambda engine: for_each(
                _chosen(engine, container, all),
                lambda name: engine.containers.stop(name, timeout=timeout, signal=signal),
                together=True,
            ),
        )
    )


@command(
    _SIGNAL,
    _TIMEOUT,
    _CONTAINERS,
)
def restart(container: tuple[str, ...], signal: str, timeout: int | None) -> int:
    """Restart one or more containers"""
    if signal:
        read_signal(signal)
    return execute(
        Command(
            argv=restart.argv(container=container, signal=signal, timeout=timeout),
            action=lambda engine: for_each(
                container,
                lambda name: engine.containers.restart(name, timeout=timeout, signal=signal),
                together=True,
            ),
        )
    )


@command(
    _ALL_RUNNING,
    option("-s", "--signal", default="KILL", help="Signal to send to the container"),
    _CONTAINERS_OR_ALL,
    usage="[OPTIONS] CONTAINER [CONTAINER...]",
    examples="""\
  $ wherry kill -s HUP web                             have it read its configuration again
""",
)
def kill(container: tuple[str, ...], all: bool, signal: str) -> int:  # noqa: A002
    """Kill one or more running containers"""
    _require_names("kill", container, all)
    read_signal(signal)
    return execute(
        Command(
            argv=kill.argv(container=container, all=all, signal=signal),
            action=lambda engine: for_each(
                _chosen(engine, container, all),
                lambda name: engine.containers.kill(name, signal),
            ),
        )
    )


@command(
    option("-a", "--all", type=bool, help="All containers, running or not with --force"),
    option("-f", "--force", type=bool, help="Force the removal of a running container"),
    option("-l", "--link", type=bool, help="Remove the specified link"),
    option("-v", "--volumes", type=bool,
           help="Remove anonymous volumes associated with the container"),
    _CONTAINERS_OR_ALL,
    usage="[OPTIONS] CONTAINER [CONTAINER...]",
    examples="""\
  $ wherry rm -f web                                   running or not
  $ wherry rm -fv web                                  with its anonymous volumes
""",
)  # fmt: skip
def rm(
    container: tuple[str, ...],
    all: bool,  # noqa: A002
    force: bool,
    link: bool,
    volumes: bool,
) -> int:
    """Remove one or more containers"""
    _require_names("rm", container, all)
    if link:
        raise UsageError("links cannot be removed: a link ends with the container that has it")

    def action(engine: Engine) -> int:
        return for_each(
            _chosen(engine, container, all, stopped=True),
            lambda name: engine.containers.remove(name, force=force, volumes=volumes),
            together=force,
            # What --force is to make true is true of a container that is not there.
            tolerate=NotFound if force else (),
        )

    argv = rm.argv(container=container, all=all, force=force, volumes=volumes)
    return execute(Command(argv=argv, action=action))


@command(_CONTAINERS)
def pause(container: tuple[str, ...]) -> int:
    """Pause all processes within one or more containers"""
    return execute(
        Command(
            argv=pause.argv(container=container),
            action=lambda engine: for_each(container, engine.containers.pause),
        )
    )


@command(_CONTAINERS)
def unpause(container: tuple[str, ...]) -> int:
    """Unpause all processes within one or more containers"""
    return execute(
        Command(
            argv=unpause.argv(container=container),
            action=lambda engine: for_each(container, engine.containers.unpause),
        )
    )


@command(argument("container"), argument("new_name", metavar="NEW_NAME"))
def rename(container: str, new_name: str) -> int:
    """Rename a container"""

    def action(engine: Engine) -> int:
        engine.containers.rename(container, new_name)
        return 0

    argv = rename.argv(container=container, new_name=new_name)
    return execute(Command(argv=argv, action=action))


@command(_CONTAINERS)
def wait(container: tuple[str, ...]) -> int:
    """Block until one or more containers stop, then print their exit codes"""
    return execute(
        Command(
            argv=wait.argv(container=container),
            action=lambda engine: for_each(
                container,
                lambda name: print(engine.containers.wait(name), flush=True),
                echo=False,
            ),
        )
    )
