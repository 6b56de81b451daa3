"""Images in and out of files: load, save and import."""

from __future__ import annotations

import os
import sys

from wherry.backend import Command, execute
from wherry.cli.grammar import argument, command, option
from wherry.errors import UsageError, WherryError, reason_of
from wherry.files import Draft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

    from wherry.engine import Engine

_PLATFORM = "only the given platform variant (os/arch[/variant])"


@command(
    option("-i", "--input", help="Read from tar archive file, instead of STDIN"),
    option("--platform", help=f"Load {_PLATFORM}"),
    option("-q", "--quiet", type=bool, help="Suppress the load output"),
    examples="""\
  $ wherry load -i images.tar
  $ wherry load < images.tar.zst                       plain, or compressed with gzip or zstd
""",
)
def load(input: str, platform: str, quiet: bool) -> int:  # noqa: A002
    """Load an image from a tar archive or STDIN"""
    if not input and os.isatty(0):
        raise UsageError(
            "requested load from stdin, but stdin is empty",
            hint="Give it a file: wherry load -i FILE",
        )
    source = _open_input(input)

    def action(engine: Engine) -> int:
        with source:
            loaded = engine.images.load(source.read, platform=platform)
        for image in loaded:
            for reference in image.references:
                from wherry.image.reference import parse_reference

                print(f"Loaded image: {parse_reference(reference).familiar()}")
            if not image.references:
                print(f"Loaded image ID: {image.id}")
        return 0

    argv = load.argv(platform=platform, quiet=quiet)
    return execute(Command(argv=argv, action=action, stdin=source))


def _open_input(path: str) -> BinaryIO:
    if not path:
        return open(0, "rb", buffering=0, closefd=False)
    try:
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise UsageError(f"open {path}: {os.strerror(error.errno or 0).lower()}") from error


@command(
    option("-o", "--output", help="Write to a file, instead of STDOUT"),
    option("--platform", help=f"Save {_PLATFORM}"),
    argument("image", nargs=-1),
    examples="""\
  $ wherry save -o images.tar debian app:1.2           several images in one archive
  $ wherry save app | ssh host wherry load             to another machine, without a registry
""",
)
def save(image: tuple[str, ...], output: str, platform: str) -> int:
    """Save one or more images to a tar archive (streamed to STDOUT by default)"""
    if not output and sys.stdout is not None and sys.stdout.isatty():
        raise UsageError("cowardly refusing to save to a terminal. Use the -o flag or redirect")

    def action(engine: Engine) -> int:
        if not output:
            _save(engine, 1)
            return 0
        with Draft(output) as descriptor:
            _save(engine, descriptor)
        return 0

    def _save(engine: Engine, descriptor: int) -> None:
        with open(descriptor, "wb", closefd=False) as stream:
            engine.images.save(image, stream.write, platform=platform)

    argv = save.argv(image=image, platform=platform)
    return execute(Command(argv=argv, action=action, output=output))


@command(
    option("-c", "--change", multiple=True, metavar="list",
           help="Apply Dockerfile instruction to the created image"),
    option("-m", "--message", help="Set commit message for imported image"),
    option("--platform", help="Set platform of the image (os/arch[/variant])"),
    argument("source", metavar="file|URL|-"),
    argument("repository", required=False, metavar="REPOSITORY[:TAG]"),
    name="import",
    examples="""\
  $ wherry import rootfs.tar.gz base:1
  $ wherry import -c 'CMD ["sh"]' - base:1 < rootfs.tar
""",
)  # fmt: skip
def import_(
    source: str, repository: str, change: tuple[str, ...], message: str, platform: str
) -> int:
    """Import the contents from a tarball to create a filesystem image"""
    stream = open_source(source)
    message = message or f"Imported from {source}"

    def action(engine: Engine) -> int:
        with stream:
            image_id = engine.images.import_tree(
                stream.read,
                repository,
                changes=change,
                message=message,
                platform=platform,
            )
        print(image_id)
        return 0

    argv = import_.argv(
        source="-", repository=repository, change=change, message=message, platform=platform
    )
    return execute(Command(argv=argv, action=action, stdin=stream))


def open_source(source: str) -> BinaryIO:
    """The bytes of a file, of standard input, or of what a web server has."""
    if source == "-":
        return _open_input("")
    if not source.startswith(("http://", "https://")):
        return _open_input(source)
    from urllib.request import urlopen

    try:
        return _Download(source, urlopen(source, timeout=60))  # type: ignore[return-value]
    except OSError as error:  # URLError is one
        raise WherryError(f"cannot fetch {source}: {reason_of(error)}") from error


class _Download:
    """What a web server sends, with errors of ours where it ends too early."""

    def __init__(self, source: str, response: Any) -> None:
        self._source = source
        self._response = response
        self._left = response.length

    def read(self, size: int = -1) -> bytes:
        from http.client import HTTPException

        try:
            content: bytes = self._response.read(size)
        except (OSError, HTTPException) as error:
            raise WherryError(f"cannot fetch {self._source}: {reason_of(error)}") from error
        if self._left is not None:
            self._left -= len(content)
            if not content and size and self._left:
                raise WherryError(f"cannot fetch {self._source}: it ends {self._left} bytes early")
        return content

    def __enter__(self) -> _Download:
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()
