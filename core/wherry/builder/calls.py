"""What `--call` tells of a Dockerfile in the place of building it: checks, outline, targets."""

from __future__ import annotations

from wherry.builder import graph
from wherry.builder.checks import check
from wherry.builder.errors import DockerfileError, excerpt, placed
from wherry.builder.instructions import read_dockerfile
from wherry.builder.mounts import read_mounts
from wherry.builder.words import process_word
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from wherry.builder.instructions import Dockerfile, Instruction, Stage
    from wherry.builder.request import BuildRequest


def call(request: BuildRequest, method: str) -> int:
    """Print what is asked for, "check", "outline" or "targets"; the exit code."""
    try:
        return _call(read_dockerfile(request.dockerfile), request, method)
    except DockerfileError as error:
        print(excerpt(request.dockerfile, request.dockerfile_name, error.first, error.last))
        failed = WherryError(f"failed to solve: {error.message}", hint=error.hint)
        failed.exit_code = 1
        raise failed from error


def _call(file: Dockerfile, request: BuildRequest, method: str) -> int:
    if method == "check":
        return _check(file, request)
    if method == "targets":
        _table([("TARGET", "DESCRIPTION"), *_targets(file)])
        return 0
    _outline(file, request.target)
    return 0


def _check(file: Dockerfile, request: BuildRequest) -> int:
    found = check(file)
    for one in found:
        print(f"WARNING: {one.rule}\n{one.text}")
        print(excerpt(request.dockerfile, request.dockerfile_name, one.line, one.line), end="\n\n")
    if not found:
        print("Check complete, no warnings found.")
        return 0
    count = "1 warning has" if len(found) == 1 else f"{len(found)} warnings have"
    print(f"Check complete, {count} been found!")
    return 1


def _targets(file: Dockerfile) -> Iterator[tuple[str, str]]:
    last = file.stages[-1]
    for stage in file.stages:
        if stage.name or stage is last:
            default = "(default)" if stage is last else ""
            yield f"{stage.name} {default}".strip(), _comment(file, stage.name, stage.origin)


def _outline(file: Dockerfile, target: str) -> None:
    index = graph.target_stage(file.stages, target)
    stage = file.stages[index]
    print(f"TARGET:      {stage.name or 'default'}")
    if description := _comment(file, stage.name, stage.origin):
        print(f"DESCRIPTION: {description}")
    chosen = graph.needed(
        file.stages, index, lambda one: graph.find_stage(file.stages, one.base, before=one.index)
    )
    stages = [file.stages[each] for each in chosen]
    arguments = list(_arguments(file, stages))
    if arguments:
        print()
        _table([("BUILD ARG", "VALUE", "DESCRIPTION"), *arguments])
    known = {name: default for name, default, _ in arguments}
    for kind, title in (("secret", "SECRET"), ("ssh", "SSH")):
        if wanted := _wanted(stages, kind, known):
            print()
            _table([(title, "REQUIRED"), *sorted(wanted.items())])


def _arguments(file: Dockerfile, stages: Sequence[Stage]) -> Iterator[tuple[str, str, str]]:
    """The arguments that these stages know: name, default and description."""
    found: dict[str, tuple[str, str, str]] = {}
    declared = [one for stage in stages for one in stage.instructions if one.keyword == "ARG"]
    for instruction in (*file.globals, *declared):
        for name, default in instruction.pairs:
            _, before, told = found.get(name, ("", "", ""))
            described = _comment(file, name, instruction) or told
            found[name] = (name, before if default is None else default, described)
    yield from found.values()


def _wanted(stages: Sequence[Stage], kind: str, known: Mapping[str, str]) -> dict[str, str]:
    """The ids of the mounts of this type, and whether they have to be given."""
    found: dict[str, str] = {}
    for stage in stages:
        for instruction in stage.instructions:
            with placed(instruction):
                mounts = read_mounts(instruction, lambda text: process_word(text, known), "/")
            for mount in mounts:
                if mount.kind == kind:
                    found[mount.id] = "true" if mount.required else found.get(mount.id, "")
    return found


def _comment(file: Dockerfile, name: str, instruction: Instruction) -> str:
    """What the comment above an instruction says of `name`, with which it begins."""
    lines = file.text.splitlines()
    above = lines[instruction.first - 2].strip() if instruction.first > 1 else ""
    words = above.removeprefix("#").split(None, 1)
    if above.startswith("#") and len(words) == 2 and words[0].lower() == name.lower():
        return words[1]
    return ""


def _table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("   ".join(cells).rstrip())
