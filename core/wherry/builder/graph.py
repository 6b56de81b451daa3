"""Which stages a build needs. Pure."""

from __future__ import annotations

from wherry.builder.errors import DockerfileError
from wherry.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wherry.builder.instructions import Stage


def find_stage(stages: Sequence[Stage], name: str, *, before: int | None = None) -> int | None:
    """The number of the stage that `name` means: its name, in any case, or its number."""
    end = len(stages) if before is None else before
    wanted = name.lower()
    for stage in reversed(stages[:end]):
        if stage.name and stage.name == wanted:
            return stage.index
    if name.isdecimal() and int(name) < end:
        return int(name)
    return None


def target_stage(stages: Sequence[Stage], target: str) -> int:
    """The number of the stage that `--target` names; the last without it. Raises NotFound."""
    if not target:
        return len(stages) - 1
    found = find_stage(stages, target)
    if found is None:
        names = [stage.name for stage in stages if stage.name]
        hint = f"the stages are {', '.join(names)}" if names else "no stage has a name"
        raise NotFound(f'target stage "{target}" could not be found', hint=hint)
    return found


def needed(
    stages: Sequence[Stage], target: int, base_of: Callable[[Stage], int | None]
) -> list[int]:
    """The numbers of the stages that `target` is made of, itself among them, in order."""
    found: set[int] = set()
    waiting = [target]
    while waiting:
        index = waiting.pop()
        if index in found:
            continue
        found.add(index)
        stage = stages[index]
        sources = [base_of(stage), *(find_stage(stages, name, before=index)
                                     for name in sources_of(stage))]  # fmt: skip
        waiting += [one for one in sources if one is not None]
    return sorted(found)


def sources_of(stage: Stage) -> list[str]:
    """What the instructions of a stage take files from, by name."""
    names = []
    for instruction in stage.instructions:
        if instruction.flag("from"):
            names.append(instruction.flag("from"))
        for mount in instruction.flags.get("mount", ()):
            for part in mount.split(","):
                key, _, name = part.partition("=")
                if key.strip() == "from" and name:
                    names.append(name)
    return names


def check_sources(stages: Sequence[Stage], chosen: Sequence[int]) -> None:
    """Refuse a stage that takes from itself or from one that comes later."""
    for index in chosen:
        for instruction in stages[index].instructions:
            name = instruction.flag("from")
            if name.isdecimal() and int(name) >= index:
                raise DockerfileError(
                    f"invalid from flag value {name}: refers to a stage that is not before",
                    instruction.first,
                    instruction.last,
                )
