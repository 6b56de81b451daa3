"""COPY, ADD and WORKDIR as steps of a stage."""

from __future__ import annotations

import os
import stat

from wherry.builder import config as configs
from wherry.builder import remotes, repositories, sources
from wherry.builder.copying import (
    Placement,
    copy_changes,
    missing_directory,
    read_mode,
)
from wherry.builder.errors import DockerfileError
from wherry.builder.ignore import Ignore
from wherry.builder.layers import Layers, Scratch, pack
from wherry.builder.parser import is_heredoc
from wherry.builder.remembered import Remembered
from wherry.builder.sources import Part
from wherry.builder.tree import DIRECTORY, Tree, digest
from wherry.builder.words import expand
from wherry.container.users import lookup_user
from wherry.errors import NotFound, UsageError
from wherry.image.assembly import Workspace
from wherry.values import replace, value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from wherry.builder.build import Build
    from wherry.builder.copying import Base
    from wherry.builder.instructions import Instruction
    from wherry.builder.remotes import Fetched
    from wherry.builder.stage import StageBuild, Steps
    from wherry.image.difference import Change


@value
class Copy:
    """One COPY or ADD, with everything replaced."""

    target: str
    chown: str
    chmod: str
    parents: bool
    exclude: tuple[str, ...]
    # The texts of heredocs by name.
    files: tuple[tuple[str, str], ...]
    # What is fetched.
    remotes: tuple[str, ...]
    checksum: str
    keep_git: bool
    unpack: str
    # Whether its layer stands on nothing.
    link: bool
    # Whether more than one source was named.
    several: bool

    def facts(self) -> list[Any]:
        """What decides what becomes of the files."""
        return ["COPY", self.target, self.chown, self.chmod, self.parents, list(self.exclude)]

    def sources(self) -> list[Any]:
        """Where files come from, but for those of a context or of layers."""
        return [self.files, self.remotes, self.checksum, self.keep_git, self.unpack]


def steps(stage: StageBuild, instruction: Instruction) -> Steps:
    """Copy files into the stage."""
    from wherry.builder.stage import Step

    build, name = stage.build, stage.called(instruction.text)
    instruction = stage.expanded(instruction)
    *words, target = instruction.words
    copy = _copy(stage, instruction, words, target)
    patterns = tuple(word for word in words if not is_heredoc(word) and word not in copy.remotes)
    parts: list[Part] = []
    if patterns:
        source = yield from sources.find_source(
            stage, instruction.flag("from"), patterns, instruction
        )
        unpacks = instruction.keyword == "ADD" and copy.unpack != "false"
        parts.append(Part(source=source, patterns=patterns, unpacks=unpacks))
    # `--link` makes the layer beside what is below, so that it outlives that.
    layers = Layers() if copy.link else stage.layers
    chain = layers.diff_ids
    from_layers = [part.source.diff_ids for part in parts if part.source.diff_ids is not None]
    # The same layers hold the same files: these need no look at them.
    is_plain = from_layers and not copy.files and not copy.remotes
    alias = stage.key([*copy.facts(), patterns, from_layers], chain) if is_plain else ""
    asked = [*copy.facts(), *copy.sources(), patterns, from_layers or instruction.flag("from")]

    def work() -> dict[str, Any]:
        with Workspace(build.engine.image_store) as workspace:
            here = [*parts, *texts(copy, workspace)]
            facts = [*copy.facts(), contents(build, copy, here)]

            def key(brought: Sequence[str]) -> str:
                return stage.key([*facts, list(brought)], chain)

            if not stage.ignores_cache:
                known = [remotes.known(build.cache, url, copy) for url in copy.remotes]
                if all(known) and (record := build.cached(key(known))):
                    return record
            come = fetched(build, copy, workspace)
            every = [*here, *(each.part for each in come)]
            brought = [each.content for each in come]
            # What is copied, whatever is below.
            copied = stage.key(["copied", *facts, brought], ())
            return build.carry_out(
                key(brought),
                name,
                lambda: _make(
                    stage,
                    layers.diff_ids,
                    lambda base, scratch: _changes(build, copy, every, base, scratch),
                    copied,
                ),
                always=stage.ignores_cache,
                also=alias,
                turn=copied,
            )

    record = yield Step(
        name=name,
        look=(lambda: build.cached(alias)) if alias and not stage.ignores_cache else None,
        work=work,
        instruction=instruction,
        identity=stage.identity(stage.key(asked, chain)),
    )
    stage.add_layer(instruction.text, record)


def _make(
    stage: StageBuild,
    diff_ids: Sequence[str],
    changes: Callable[[Base, Scratch], Iterator[Change]],
    copied: str,
) -> dict[str, Any]:
    """Make the layer of a copy, if it is not here; `copied` is the key of what is copied.

    What a layer holds is read to find it: only if the same was copied before, on whatever.
    """
    build = stage.build

    def key(outline: str) -> str:
        return stage.key(["outline", outline], ())

    is_known = build.cache.find_own(copied) is not None
    packed = pack(
        build.engine,
        diff_ids,
        changes,
        latest=build.latest,
        contents=Remembered(),
        known=(lambda outline: build.cache.find_own(key(outline))) if is_known else None,
    )
    outline = packed["outline"]
    return {**packed, "own": [copied, key(outline)] if outline else []}


def _are_files(words: Sequence[str], urls: Sequence[str]) -> bool:
    return list(words) == list(urls) and not any(map(repositories.is_repository, urls))


def _copy(stage: StageBuild, instruction: Instruction, words: list[str], target: str) -> Copy:
    is_add = instruction.keyword == "ADD"
    known = stage.variables()
    files = tuple(
        (each.name, expand(each.text, known) if each.expand else each.text)
        for each in instruction.heredocs
    )
    urls = tuple(word for word in words if is_add and remotes.is_remote(word))
    if instruction.flag("checksum") and not _are_files(words, urls):
        raise DockerfileError(
            "checksum can't be specified for sources that are no files of http or https",
            instruction.first,
            instruction.last,
            hint="the fragment of a repository's URL can be a commit",
        )
    chown, chmod = instruction.flag("chown"), instruction.flag("chmod")
    if chmod:
        read_mode(chmod)
    return Copy(
        target=stage.path(target),
        chown=chown,
        chmod=chmod,
        parents=instruction.is_set("parents"),
        exclude=instruction.flags.get("exclude", ()),
        files=files,
        remotes=urls,
        checksum=instruction.flag("checksum"),
        keep_git=instruction.is_set("keep-git-dir"),
        unpack=instruction.flag("unpack"),
        link=instruction.is_set("link") and (not chown or _is_numeric(chown)),
        several=len(words) > 1,
    )


def texts(copy: Copy, workspace: Workspace) -> list[Part]:
    """What comes from heredocs, put into a directory of ours."""
    if not copy.files:
        return []
    place = _directory(workspace, "texts")
    names = sources.write_files(place, copy.files)
    return [Part(source=sources.DirectorySource(place), patterns=tuple(names))]


def fetched(build: Build, copy: Copy, workspace: Workspace) -> list[Fetched]:
    """What comes from elsewhere."""
    return [
        remotes.fetch(build.cache, url, copy, _directory(workspace, f"fetched{number}"))
        for number, url in enumerate(copy.remotes)
    ]


def _directory(workspace: Workspace, name: str) -> str:
    path = workspace.path(name)
    os.mkdir(path)
    return path


def contents(build: Build, copy: Copy, parts: Sequence[Part]) -> list[list[Any]]:
    """What the files are that are copied, for a cache key."""
    exclude = exclusions(copy)
    runtime = build.engine.runtime

    def read() -> list[list[Any]]:
        found: list[list[Any]] = []
        for number, part in enumerate(parts):
            tree = part.source.open(runtime, scratch.place(f"read{number}"), exclude)
            with_owners = part.source.has_owners and not copy.chown
            selected = tree.select(part.patterns)
            found.append([digest(tree, selected, with_owners=with_owners), part.unpacks])
        return found

    with Scratch(runtime) as scratch:
        if all(part.source.diff_ids is None for part in parts):
            return read()
        answer: list[list[Any]] = runtime.unshared(read, mounts=True)
        return answer


def exclusions(copy: Copy) -> Ignore | None:
    """What `--exclude` leaves out."""
    try:
        return Ignore(copy.exclude) if copy.exclude else None
    except ValueError as error:
        raise UsageError(str(error)) from error


def _changes(
    build: Build, copy: Copy, parts: Sequence[Part], base: Base, scratch: Scratch
) -> Iterator[Change]:
    """The changes of all parts; in the namespaces that the layer is made in."""
    owner = owner_of(base, copy.chown) if copy.chown else None
    runtime = build.engine.runtime
    for number, part in enumerate(parts):
        tree = part.source.open(runtime, scratch.place(f"source{number}"), exclusions(copy))
        placement = Placement(
            target=copy.target,
            owner=owner or (None if part.source.has_owners else (0, 0)),
            mode=read_mode(copy.chmod) if copy.chmod else None,
            moment=build.latest,
            parents=copy.parents,
            several=copy.several,
        )
        plain: list[tuple[str, str]] = []
        for position, (called, path) in enumerate(tree.select(part.patterns)):
            place = f"{number}.{position}"
            unpacked = part.unpacks and _unpacked(tree, path, lambda: scratch.place(place))  # noqa: B023
            if not unpacked:
                plain.append((called, path))
                continue
            inside = Tree(runtime, os.open(unpacked, DIRECTORY))
            into = replace(
                placement, target=f"{copy.target.rstrip('/')}/", owner=owner, parents=False
            )
            yield from copy_changes(base, inside, [("", "")], into)
        yield from copy_changes(base, tree, plain, placement)


def _unpacked(tree: Tree, path: str, place: Callable[[], str]) -> str:
    """The directory that a file was unpacked into; "" for one that is no archive."""
    parent, name = tree.open_parent(path)
    try:
        if not stat.S_ISREG(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            return ""
        file = f"/proc/self/fd/{parent}/{name}"
        if not sources.is_archive(file):
            return ""
        directory = place()
        sources.unpack_archive(file, directory)
        return directory
    finally:
        os.close(parent)


def owner_of(base: Base, text: str) -> tuple[int, int]:
    """The ids that `--chown` means in the image."""
    if _is_numeric(text):
        name, _, group = text.partition(":")
        return lookup_user(f"{name}:{group or name}", "", "")
    return lookup_user(text, base.read("etc/passwd"), base.read("etc/group"))


def _is_numeric(owner: str) -> bool:
    """Whether no file of the image is asked what ids `--chown` means."""
    name, _, group = owner.partition(":")
    return name.isdecimal() and (group or name).isdecimal()


def workdir_steps(stage: StageBuild, instruction: Instruction) -> Steps:
    """Go to a directory, and make it if it is not there."""
    build = stage.build
    path = configs.working_directory(stage.config, instruction.words[0])
    stage.config["WorkingDir"] = path
    name = stage.called(instruction.text)
    layers = stage.layers
    user = stage.config.get("User") or ""

    def changes(base: Base, _: Scratch) -> Iterator[Change]:
        placement = Placement(target=path, owner=_of_user(base, user), moment=build.latest)
        return missing_directory(base, path.strip("/"), placement)

    def work() -> dict[str, Any]:
        return pack(build.engine, layers.diff_ids, changes, latest=build.latest)

    facts = ["WORKDIR", path, *filter(None, [user])]
    record = yield stage.cached_step(name, facts, work, instruction)
    stage.add_layer(f"WORKDIR {path}", record)


def _of_user(base: Base, user: str) -> tuple[int, int]:
    """The ids of the user that a directory is made for; root's for one whom nobody knows."""
    try:
        return owner_of(base, user) if user else (0, 0)
    except NotFound:
        return 0, 0
