"""docker's build checks: what is allowed in a Dockerfile, and still is rarely meant. Pure."""

from __future__ import annotations

import re

from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from wherry.builder.instructions import Dockerfile, Instruction, Stage

_SECRET = re.compile(
    r"(?i)(?:^|_)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)"
)
_NO_SECRET = re.compile(r"(?i)(?:^|_)public(?:_|$)")
_RESERVED = ("scratch", "context")
_TARGET_PLATFORM = ("$TARGETPLATFORM", "${TARGETPLATFORM}")


@value
class Finding:
    """What one check has to say of a line."""

    rule: str
    text: str
    line: int


def check(file: Dockerfile) -> list[Finding]:
    """What there is to say of a Dockerfile, by line, without what its directive leaves out."""
    skipped = _directive(file, "skip")
    if "all" in skipped:
        return []
    found = [one for one in _findings(file) if one.rule.lower() not in skipped]
    return sorted(found, key=lambda one: one.line)


def fails(file: Dockerfile) -> bool:
    """Whether the directive has a build fail of what there is to say."""
    return "true" in _directive(file, "error")


def _directive(file: Dockerfile, wanted: str) -> set[str]:
    """What `# check=skip=A,B;error=true` says for one of its keys."""
    for part in file.document.directives.get("check", "").split(";"):
        key, _, names = part.partition("=")
        if key.strip().lower() == wanted:
            return {name.strip().lower() for name in names.split(",")}
    return set()


def summary(found: list[Finding]) -> str:
    """What the end of a build says of them."""
    count = f"{len(found)} warning{'s' if len(found) > 1 else ''} found:"
    lines = [f" - {one.rule}: {one.text} (line {one.line})" for one in found]
    return "\n".join((count, *lines))


def _findings(file: Dockerfile) -> Iterator[Finding]:
    for number in file.document.empty_continuations:
        yield Finding(rule="NoEmptyContinuation", text="Empty continuation line", line=number)
    yield from _casing(file)
    names: set[str] = set()
    for stage in file.stages:
        if stage.name in names:
            text = f"Duplicate stage name {stage.name!r}, stage names should be unique"
            yield Finding(rule="DuplicateStageName", text=text, line=stage.origin.first)
        if stage.name in _RESERVED:
            text = f"Stage name should not use the same name as reserved stage {stage.name!r}"
            yield Finding(rule="ReservedStageName", text=text, line=stage.origin.first)
        names |= {stage.name} - {""}
        yield from _from(stage)
        yield from _directory_of(stage.instructions)
        yield from _once(stage.instructions)
        for instruction in stage.instructions:
            yield from _instruction(instruction)


def _from(stage: Stage) -> Iterator[Finding]:
    line, words = stage.origin.first, stage.origin.words
    if stage.name and words[2] != stage.name:
        text = f"Stage name '{words[2]}' should be lowercase"
        yield Finding(rule="StageNameCasing", text=text, line=line)
    keyword = stage.origin.text.split(None, 1)[0]
    if stage.name and words[1].isupper() != keyword.isupper():
        text = f"'{words[1]}' and '{keyword}' keywords' casing do not match"
        yield Finding(rule="FromAsCasing", text=text, line=line)
    if stage.platform in _TARGET_PLATFORM:
        text = (
            f"Setting platform to predefined {stage.platform} in FROM is redundant as this is the"
            " default behavior"
        )
        yield Finding(rule="RedundantTargetPlatform", text=text, line=line)
    elif stage.platform and not _may_be_constant(stage):
        text = f'FROM --platform flag should not use constant value "{stage.platform}"'
        yield Finding(rule="FromPlatformFlagConstDisallowed", text=text, line=line)


def _may_be_constant(stage: Stage) -> bool:
    """Whether the platform is a variable, or the stage's name tells of it."""
    return "$" in stage.platform or any(part in stage.name for part in stage.platform.split("/"))


def _directory_of(instructions: tuple[Instruction, ...]) -> Iterator[Finding]:
    """A first WORKDIR that depends on where the base image happens to be."""
    first = next((one for one in instructions if one.keyword == "WORKDIR"), None)
    if first is not None and not first.words[0].lstrip("\"'").startswith(("/", "$")):
        text = (
            f"Relative workdir {first.words[0]!r} can have unexpected results if the base image"
            " changes"
        )
        yield Finding(rule="WorkdirRelativePath", text=text, line=first.first)


def _ports(instruction: Instruction) -> Iterator[Finding]:
    for word in instruction.words:
        if ":" in word and "$" not in word:
            text = (
                "EXPOSE instruction should not define an IP address or host-port mapping, found"
                f" '{word}'"
            )
            yield Finding(rule="ExposeInvalidFormat", text=text, line=instruction.first)
        protocol = word.partition("/")[2]
        if "$" not in word and protocol != protocol.lower():
            text = f"Defined protocol '{word}' in EXPOSE instruction should be lowercase"
            yield Finding(rule="ExposeProtoCasing", text=text, line=instruction.first)


def _casing(file: Dockerfile) -> Iterator[Finding]:
    spellings = [line.spelling for line in file.document.lines]
    lower = sum(spelling.islower() for spelling in spellings)
    wanted = str.lower if lower > len(spellings) - lower else str.upper
    for line in file.document.lines:
        if line.spelling != wanted(line.spelling):
            text = (
                f"Command '{line.spelling}' should match the case of the command majority"
                f" ({'lowercase' if wanted is str.lower else 'uppercase'})"
            )
            yield Finding(rule="ConsistentInstructionCasing", text=text, line=line.first)


def _once(instructions: tuple[Instruction, ...]) -> Iterator[Finding]:
    """Of some instructions only the last counts."""
    last = {one.keyword: one for one in instructions}
    for one in instructions:
        if one.keyword in ("CMD", "ENTRYPOINT", "HEALTHCHECK") and one is not last[one.keyword]:
            text = (
                f"Multiple {one.keyword} instructions should not be used in the same stage"
                " because only the last one will be used"
            )
            yield Finding(rule="MultipleInstructionsDisallowed", text=text, line=one.first)


def _instruction(instruction: Instruction) -> Iterator[Finding]:
    keyword, line = instruction.keyword, instruction.first
    if keyword in ("CMD", "ENTRYPOINT") and instruction.words and not instruction.is_exec:
        text = (
            f"JSON arguments recommended for {keyword} to prevent unintended behavior related to"
            " OS signals"
        )
        yield Finding(rule="JSONArgsRecommended", text=text, line=line)
    elif keyword == "EXPOSE":
        yield from _ports(instruction)
    elif keyword == "MAINTAINER":
        text = "Maintainer instruction is deprecated in favor of using label"
        yield Finding(rule="MaintainerDeprecated", text=text, line=line)
    elif keyword in ("ENV", "LABEL") and "=" not in instruction.text.split(None, 2)[1]:
        text = (
            f'"{keyword} key=value" should be used instead of legacy "{keyword} key value" format'
        )
        yield Finding(rule="LegacyKeyValueFormat", text=text, line=line)
    if keyword in ("ARG", "ENV"):
        for name, _ in instruction.pairs:
            if _SECRET.search(name) and not _NO_SECRET.search(name):
                text = f'Do not use ARG or ENV instructions for sensitive data ({keyword} "{name}")'
                yield Finding(rule="SecretsUsedInArgOrEnv", text=text, line=line)
