"""What `cp` asks of the wherry where the container is: docker's archive endpoints, as commands.

They are said by `wherry.engine.files_elsewhere`, and are no part of the command line that
people type.
"""

from __future__ import annotations

import sys

from wherry.backend import Command, execute
from wherry.cli.grammar import argument, command, option
from wherry.errors import WherryError, to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.engine import Engine
    from wherry.engine.container_files import ContainerFiles

_ARGUMENTS = (argument("container"), argument("path"))


@command(*_ARGUMENTS, name="container stat-path", hidden=True)
def stat_path(container: str, path: str) -> int:
    """Write what is at a path of a container as JSON, or {"error": …}"""

    def action(engine: Engine) -> int:
        from wherry.lean import dump_json

        try:
            answer = _files(engine, container).stat(path)
        except WherryError as error:
            answer = {"error": to_json(error)}
        print(dump_json(answer))
        return 0

    return execute(Command(argv=stat_path.argv(container=container, path=path), action=action))


@command(
    option("--called", help="What it is called in the archive"),
    option("--member", help="The file in the directory; . for what is in it"),
    *_ARGUMENTS,
    name="container get-archive",
    hidden=True,
)
def get_archive(container: str, path: str, called: str, member: str) -> int:
    """Write a file or directory of a container as a tar stream"""

    def action(engine: Engine) -> int:
        from wherry.engine.copy import Source

        source = Source(parent=path, name=member, is_dir=False, called=called)
        sys.stdout.flush()
        _files(engine, container).read(source, called, sys.stdout.fileno())
        return 0

    argv = get_archive.argv(container=container, path=path, called=called, member=member)
    return execute(Command(argv=argv, action=action))


@command(
    option("--keep-ids", type=bool, help="Owners are those of the archive"),
    *_ARGUMENTS,
    name="container put-archive",
    hidden=True,
)
def put_archive(container: str, path: str, keep_ids: bool) -> int:
    """Unpack a tar stream in a directory of a container"""

    def action(engine: Engine) -> int:
        _files(engine, container).write(path, sys.stdin.fileno(), keep_ids=keep_ids)
        return 0

    argv = put_archive.argv(container=container, path=path, keep_ids=keep_ids)
    return execute(Command(argv=argv, action=action, stdin=0))


def _files(engine: Engine, container: str) -> ContainerFiles:
    from wherry.engine.container_files import ContainerFiles

    return ContainerFiles(engine.containers.find(container), engine.runtime)
