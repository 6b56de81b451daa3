"""`--change`: instructions of a Dockerfile that change an image's config and run nothing."""

from __future__ import annotations

from wherry.builder import config as configs
from wherry.builder.instructions import read_instruction
from wherry.builder.parser import parse
from wherry.builder.words import WordError
from wherry.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_TAKEN = (
    "CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "STOPSIGNAL", "USER",
    "VOLUME", "WORKDIR",
)  # fmt: skip


def apply_changes(config: dict[str, Any], texts: Iterable[str]) -> dict[str, Any]:
    """An image's `config` with each instruction carried out on it. Raises UsageError."""
    changed = dict(config)
    cmd_is_own = False
    for text in texts:
        document = parse(text)
        for line in document.lines:
            if line.keyword not in _TAKEN:
                raise UsageError(
                    f"{line.spelling} is not a valid change command",
                    hint=f"--change takes {', '.join(_TAKEN)}",
                )
            known = configs.environment(changed)
            try:
                instruction = configs.expanded(read_instruction(line), known, document.escape)
            except WordError as error:
                raise UsageError(f"failed to process {line.text!r}: {error}") from error
            if line.keyword == "WORKDIR":
                directory = configs.working_directory(changed, instruction.words[0])
                changed["WorkingDir"] = directory
            else:
                configs.apply(changed, instruction, cmd_is_own=cmd_is_own)
            cmd_is_own = cmd_is_own or line.keyword == "CMD"
    return changed
