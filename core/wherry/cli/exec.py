"""`wherry exec` and `wherry attach`: one more process in a container, or the first one."""

from __future__ import annotations

import os

from wherry.backend import Command, execute
from wherry.cli import common
from wherry.cli.grammar import argument, command, option
from wherry.cli.host import check_terminal, console_size
from wherry.cli.options import read_env
from wherry.container.env import merge_env, read_env_file, resolve_env

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.container.spec import ExecConfig


@command(
    option("-d", "--detach", type=bool, help="Detached mode: run command in the background"),
    common.DETACH_KEYS,
    option("-e", "--env", multiple=True, metavar="list", convert=read_env,
           help="Set environment variables"),
    option("--env-file", multiple=True, metavar="list",
           help="Read in a file of environment variables"),
    option("-i", "--interactive", type=bool, help="Keep STDIN open even if not attached"),
    option("--privileged", type=bool, help="Give extended privileges to the command"),
    option("-t", "--tty", type=bool, help="Allocate a pseudo-TTY"),
    option("-u", "--user", help="Username or UID (format: <name|uid>[:<group|gid>])"),
    option("-w", "--workdir", help="Working directory inside the container"),
    argument("container"),
    argument("command", nargs=-1),
    name="exec",
    usage="[OPTIONS] CONTAINER COMMAND [ARG...]",
    interspersed=False,
    examples="""\
  $ wherry exec -it web sh                             a shell in a running container
  $ wherry exec -i db pg_restore -d app < dump         a pipe into it
  $ wherry exec -u root -w /etc web cat shadow         as another user, elsewhere
""",
)  # fmt: skip
def exec_(
    container: str,
    command: tuple[str, ...],
    detach: bool,
    detach_keys: str,
    env: tuple[str, ...],
    env_file: tuple[str, ...],
    interactive: bool,
    privileged: bool,
    tty: bool,
    user: str,
    workdir: str,
) -> int:
    """Execute a command in a running container"""
    here = os.environ
    files = (read_env_file(path, here) for path in env_file)
    variables = merge_env(*files, resolve_env(env, here))
    if not detach:
        check_terminal(tty, interactive)
    keys = common.detach_keys(detach_keys) if tty and not detach else ""
    config: ExecConfig = {
        "AttachStdin": interactive and not detach,
        "AttachStdout": not detach,
        "AttachStderr": not detach,
        "Tty": tty,
        "Cmd": list(command),
        "Env": variables,
        "Privileged": privileged,
        "User": user,
        "WorkingDir": workdir,
    }
    if tty and (size := console_size()):
        config["ConsoleSize"] = size
    argv = exec_.argv(
        container=container,
        command=command,
        detach=detach,
        detach_keys=keys,
        env=tuple(variables),
        interactive=interactive,
        privileged=privileged,
        tty=tty,
        user=user,
        workdir=workdir,
    )
    return execute(
        Command(
            argv=argv,
            action=lambda engine: engine.containers.exec(
                container, config, detach=detach, detach_keys=keys
            ),
            stdin=0 if config["AttachStdin"] else None,
        )
    )


@command(
    common.DETACH_KEYS,
    option("--no-stdin", type=bool, help="Do not attach STDIN"),
    common.SIG_PROXY,
    argument("container"),
)
def attach(container: str, detach_keys: str, no_stdin: bool, sig_proxy: bool) -> int:
    """Attach local standard input, output, and error streams to a running container"""
    keys = common.detach_keys(detach_keys)
    argv = attach.argv(
        container=container, detach_keys=keys, no_stdin=no_stdin, sig_proxy=sig_proxy
    )
    return execute(
        Command(
            argv=argv,
            action=lambda engine: engine.containers.attach(
                container, stdin=not no_stdin, detach_keys=keys, sig_proxy=sig_proxy
            ),
            stdin=None if no_stdin else 0,
        )
    )
