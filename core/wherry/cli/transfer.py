"""Commands that carry files out of containers and into them: cp, export, commit."""

from __future__ import annotations

import os
import sys

from wherry.backend import Command, execute
from wherry.cli.grammar import argument, command, option
from wherry.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wherry.engine import Engine
    from wherry.engine.copy import Files


def split_argument(text: str) -> tuple[str, str]:
    """An argument of `cp`: (container, path), with "" as the container for a path of the host.

    A host path with a colon is told apart by what it begins with: `/`, `./` or a drive.
    """
    container, colon, path = text.partition(":")
    if not colon or os.path.isabs(text) or container.startswith(".") or "/" in container:
        return "", text
    return container, path


@command(
    option("-a", "--archive", type=bool, help="Archive mode (copy all uid/gid information)"),
    option("-L", "--follow-link", type=bool, help="Always follow symbol link in SRC_PATH"),
    option("-q", "--quiet", type=bool, help="Suppress progress output during copy"),
    argument("source"),
    argument("destination"),
    usage="[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n"
    "        wherry cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    examples="""\
  $ wherry cp web:/etc/nginx/nginx.conf .              a file out of a container
  $ wherry cp site/. web:/usr/share/nginx/html         what a directory holds, into one
  $ wherry cp web:/var/log - | tar -t                  as a tar stream
""",
)
def cp(source: str, destination: str, archive: bool, follow_link: bool, quiet: bool) -> int:
    """Copy files/folders between a container and the local filesystem

    What comes out of a container belongs to whoever copies it, and is no longer setuid,
    setgid or capable of anything, unless --archive keeps the owner.
    """
    from_container, from_path = split_argument(source)
    to_container, to_path = split_argument(destination)
    if from_container and to_container:
        raise UsageError("copying between containers is not supported")
    if not from_container and not to_container:
        raise UsageError("must specify at least one container source")
    if not (from_path and to_path):
        raise UsageError("neither the source nor the destination of cp may be empty")

    def action(engine: Engine) -> int:
        from wherry.engine.container_files import ContainerFiles

        container = engine.containers.find(from_container or to_container)
        return _copy(ContainerFiles(container, engine.runtime))

    def elsewhere(forward: Callable[..., int]) -> int:
        from wherry.engine.files_elsewhere import FilesElsewhere

        return _copy(FilesElsewhere(from_container or to_container, forward))

    def _copy(files: Files) -> int:
        from wherry.engine import copy

        if destination == "-":
            copy.copy_to_stream(files, from_path, _stdout(), follow=follow_link)
        elif source == "-":
            copy.copy_from_stream(files, to_path, sys.stdin.fileno())
        elif from_container:
            size = copy.copy_out(files, from_path, to_path, keep_ids=archive, follow=follow_link)
            _tell(size, os.path.abspath(to_path), quiet)
        else:
            size = copy.copy_in(files, from_path, to_path, keep_ids=archive, follow=follow_link)
            _tell(size, destination, quiet)
        return 0

    argv = cp.argv(
        source=source,
        destination=destination,
        archive=archive,
        follow_link=follow_link,
        quiet=quiet,
    )
    return execute(Command(argv=argv, action=action, elsewhere=elsewhere))


def _stdout() -> int:
    """Standard output for bytes: what is printed already goes before them."""
    sys.stdout.flush()
    return sys.stdout.fileno()


def _tell(size: int, where: str, quiet: bool) -> None:
    if not quiet and sys.stderr is not None and sys.stderr.isatty():
        from wherry.human import human_size

        print(f"Successfully copied {human_size(size)} to {where}", file=sys.stderr)


@command(
    option("-o", "--output", help="Write to a file, instead of STDOUT"),
    argument("container"),
    examples="""\
  $ wherry export -o web.tar web
""",
)
def export(container: str, output: str) -> int:
    """Export a container's filesystem as a tar archive"""
    if not output and sys.stdout.isatty():
        raise UsageError("cowardly refusing to save to a terminal. Use the -o flag or redirect")

    def action(engine: Engine) -> int:
        from wherry.engine.container_files import ContainerFiles
        from wherry.engine.copy import export_to_stream

        files = ContainerFiles(engine.containers.find(container), engine.runtime)
        if not output:
            export_to_stream(files, _stdout())
            return 0
        from wherry.files import Draft

        with Draft(output) as descriptor:
            files.export(descriptor)
        return 0

    argv = export.argv(container=container)
    return execute(Command(argv=argv, action=action, output=output))


@command(
    option("-a", "--author", help='Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")'),
    option(
        "-c",
        "--change",
        multiple=True,
        metavar="list",
        help="Apply Dockerfile instruction to the created image",
    ),
    option("-m", "--message", help="Commit message"),
    option("-p", "--pause", type=bool, default=True, help="Pause container during commit"),
    argument("container"),
    argument("repository", required=False),
    usage="[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    examples="""\
  $ wherry commit -c 'CMD ["nginx"]' web web:patched
""",
)
def commit(
    container: str,
    repository: str,
    author: str,
    change: tuple[str, ...],
    message: str,
    pause: bool,
) -> int:
    """Create a new image from a container's changes"""

    def action(engine: Engine) -> int:
        from wherry.engine.snapshot import CommitOptions

        options = CommitOptions(author=author, message=message, changes=change, pause=pause)
        print(engine.containers.commit(container, repository, options))
        return 0

    argv = commit.argv(
        container=container,
        repository=repository,
        author=author,
        change=change,
        message=message,
        pause=pause,
    )
    return execute(Command(argv=argv, action=action))
