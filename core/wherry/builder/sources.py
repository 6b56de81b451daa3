"""Where COPY, ADD and `RUN --mount` take files from: directories, stages, images.

A source is found while a stage is followed; it is opened in the process of the step.
"""

from __future__ import annotations

import os
import posixpath
import sys

from wherry.builder.base import image_steps
from wherry.builder.context import Context
from wherry.builder.layers import open_layers
from wherry.builder.stage import Needs, Step
from wherry.builder.tree import DIRECTORY, Tree
from wherry.errors import Unsupported, UsageError, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from typing import Any

    from wherry.builder.ignore import Ignore
    from wherry.builder.stage import StageBuild
    from wherry.runtime import Runtime


class Source:
    """A tree of files."""

    # Whether its owners are those of an image, and so what copies keep.
    has_owners = False
    # The layers that it is made of; None for another kind of source.
    diff_ids: tuple[str, ...] | None = None

    def open(self, runtime: Runtime, place: str, exclude: Ignore | None = None) -> Tree:
        """The tree, without what is excluded; `place` is an empty directory to mount on.

        Only within `unshared(mounts=True)`, where it has layers.
        """
        raise NotImplementedError


class DirectorySource(Source):
    """A directory of this host."""

    def __init__(
        self, directory: str, ignore: Ignore | None = None, *, owners: bool = False
    ) -> None:
        self.directory = directory
        self._ignore = ignore
        self.has_owners = owners

    def open(self, runtime: Runtime, place: str, exclude: Ignore | None = None) -> Tree:  # noqa: ARG002
        return Tree(runtime, os.open(self.directory, DIRECTORY), self._ignore, exclude)


class LayersSource(Source):
    """What a stage or an image is made of."""

    has_owners = True

    def __init__(self, diff_ids: tuple[str, ...]) -> None:
        self.diff_ids = diff_ids

    def open(self, runtime: Runtime, place: str, exclude: Ignore | None = None) -> Tree:
        assert self.diff_ids is not None
        return Tree(runtime, open_layers(runtime, self.diff_ids, place), None, exclude)


def find_source(
    stage: StageBuild, name: str, patterns: Sequence[str]
) -> Generator[Step | Needs, Any, Source]:
    """What `--from=NAME` means, with what `patterns` take from it; "" is the context."""
    build = stage.build
    given = build.request.contexts.get(name, "") if name else build.request.context
    if isinstance(given, Context):
        return (yield from _context_source(given, patterns))
    index = build.stage_named(name, before=stage.stage.index)
    if index is not None:
        yield Needs(index=index)
        return LayersSource(build.stages[index].layers.diff_ids)
    if build.stage_named(name) is not None and not given:
        raise UsageError(f"cannot copy from stage {name!r}, it needs to be defined before current"
                         f" stage {stage.stage.name or stage.stage.index!r}")  # fmt: skip
    image = yield from image_steps(build, name, str(build.platform))
    return LayersSource(image.diff_ids)


def _context_source(
    context: Context, patterns: Sequence[str]
) -> Generator[Step | Needs, Any, Source]:
    if not context.directory:
        raise UsageError(
            "there is no context to take files from", hint="the Dockerfile came alone, by `-`"
        )
    if context.lacks(patterns):
        yield Step(
            name="[internal] load build context",
            work=lambda: context.load(patterns),
        )
        context.loaded()
    return DirectorySource(context.directory, context.ignore)


# ---- what ADD brings ----


def is_remote(text: str) -> bool:
    """Whether a source of ADD is fetched from somewhere."""
    return text.startswith(("http://", "https://", "git://", "git@", "ssh://"))


def is_repository(text: str) -> bool:
    """Whether it is a git repository."""
    bare = text.partition("#")[0].partition("?")[0]
    return text.startswith(("git://", "git@", "ssh://")) or (
        text.startswith(("http://", "https://")) and bare.endswith(".git")
    )


def download(url: str, directory: str, checksum: str) -> str:
    """Fetch a file into a directory; its name there. Raises WherryError."""
    from hashlib import new
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.parse import unquote, urlsplit
    from urllib.request import Request, urlopen

    name = posixpath.basename(unquote(urlsplit(url).path)) or "index"
    if name in (".", "..") or "\0" in name:
        name = "index"
    path = f"{directory}/{name}"
    algorithm, colon, _ = checksum.partition(":")
    if checksum and (not colon or algorithm not in ("sha256", "sha384", "sha512")):
        raise UsageError(f"invalid checksum {checksum!r}: it is ALGORITHM:DIGEST")
    found = new(algorithm or "sha256")
    try:
        with urlopen(Request(url, headers={"User-Agent": "wherry"}), timeout=60) as response:
            modified = response.headers.get("Last-Modified")
            with open(path, "wb") as file:
                while data := response.read(1 << 20):
                    found.update(data)
                    file.write(data)
            if response.length:
                raise WherryError(f"cannot fetch {url}: it ends {response.length} bytes early")
    except HTTPError as error:
        raise WherryError(f"cannot fetch {url}: invalid response status {error.code}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise WherryError(f"cannot fetch {url}: {getattr(error, 'reason', error)}") from error
    if checksum and f"{algorithm}:{found.hexdigest()}" != checksum:
        raise WherryError(
            f"digest mismatch {algorithm}:{found.hexdigest()}: {checksum}",
        )
    os.chmod(path, 0o600)
    _date(path, modified)
    return name


def _date(path: str, modified: str | None) -> None:
    """Give a file the time that its server says; the epoch where it says none."""
    from email.utils import parsedate_to_datetime

    moment = 0.0
    if modified:
        try:
            moment = parsedate_to_datetime(modified).timestamp()
        except ValueError:
            pass
    os.utime(path, (moment, moment))


def clone(url: str, directory: str, *, keep_git: bool = False) -> str:
    """Check a git repository out; the directory that is meant, below `directory`.

    `URL#REF:SUBDIRECTORY`, or `URL?ref=…&subdir=…`.
    """
    import shutil
    import subprocess

    address, ref, subdirectory = split_repository(url)
    if shutil.which("git") is None:
        raise Unsupported(f"cannot fetch {url}: git is not installed")
    tree = f"{directory}/tree"
    # Lines end as they do in the repository, whatever this system's custom is.
    settings = ("core.hooksPath=/dev/null", "init.defaultBranch=main", "core.autocrlf=false")
    quiet = ["git", *(word for setting in settings for word in ("-c", setting))]
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1"}

    def git(*words: str) -> None:
        done = subprocess.run(
            [*quiet, *words],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            reason = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise WherryError(f"failed to fetch remote {url}: {reason[-1]}")

    git("init", "-q", *([] if keep_git else [f"--separate-git-dir={directory}/git"]), tree)
    git("-C", tree, "remote", "add", "origin", "--", address)
    git("-C", tree, "fetch", "-q", "--depth=1", "--", "origin", ref or "HEAD")
    git("-C", tree, "checkout", "-q", "FETCH_HEAD")
    git("-C", tree, "submodule", "update", "-q", "--init", "--recursive", "--depth=1")
    if not keep_git:
        os.unlink(f"{tree}/.git")  # a file that tells where it is
    found = os.path.realpath(f"{tree}/{subdirectory}")
    top = os.path.join(os.path.realpath(tree), "")
    if not os.path.join(found, "").startswith(top) or not os.path.isdir(found):
        raise UsageError(f"failed to fetch remote {url}: no directory {subdirectory!r} in it")
    return found


def split_repository(url: str) -> tuple[str, str, str]:
    """The address, the ref and the directory that a repository's URL says."""
    from urllib.parse import parse_qs

    address, _, fragment = url.partition("#")
    ref, _, subdirectory = fragment.partition(":")
    bare, mark, query = address.partition("?")
    if mark:
        asked = parse_qs(query)
        ref = next(
            (asked[key][-1] for key in ("ref", "tag", "branch", "commit") if key in asked), ref
        )
        subdirectory = asked.get("subdir", [subdirectory])[-1]
        address = bare
    if ref.startswith("-") or address.startswith("-"):
        raise UsageError(f"invalid repository {url!r}")
    return address, ref, subdirectory.strip("/")


def unpack_archive(path: str, directory: str) -> None:
    """Unpack a tar archive, compressed or not, into an empty directory."""
    if sys.platform == "linux":
        from wherry.image.decompress import Decompressor
        from wherry.image.unpack import Unpacker

        with Decompressor(open(path, "rb", buffering=0)) as content:
            Unpacker(directory).unpack(content.read)
        return
    raise Unsupported("archives are unpacked on Linux only")


def is_archive(path: str) -> bool:
    """Whether a file is a tar archive, as its first header tells."""
    from wherry.image.decompress import decompressed
    from wherry.image.tar import TarReader

    with open(path, "rb", buffering=0) as file:
        try:
            pieces = decompressed(file.read)
            return next(iter(TarReader(lambda _: next(pieces, b""))), None) is not None
        except WherryError:
            return False


def write_files(directory: str, files: Sequence[tuple[str, str]]) -> list[str]:
    """Put texts into a directory, as COPY has them from heredocs; their names."""
    names = []
    for name, text in files:
        called = posixpath.basename(name) or name
        path = f"{directory}/{called}"
        with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text)
        os.chmod(path, 0o644)
        os.utime(path, (0, 0))
        names.append(called)
    return names
