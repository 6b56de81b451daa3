"""The files of a container that is on another system, by way of the wherry there.

`cp` decides here where a copy goes, as it does for a container that is here; what it has to
know of the container, and the archives, come from `container stat-path`, `get-archive` and
`put-archive` (wherry.cli.files).
"""

from __future__ import annotations

from wherry.engine.copy import Files, Source
from wherry.errors import WherryError, from_json
from wherry.lean import load_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class FilesElsewhere(Files):
    """Those of container `name`; `forward` has another wherry carry out words."""

    def __init__(self, name: str, forward: Callable[..., int]) -> None:
        self.name = name
        self._forward = forward

    def stat(self, path: str) -> dict[str, Any]:
        answer = load_json(self._answer(("container", "stat-path", self.name, path)))
        if "error" in answer:
            raise from_json(answer["error"])
        found: dict[str, Any] = answer
        return found

    def read(self, source: Source, called: str, writer: int) -> None:
        words = ("container", "get-archive", f"--called={called}", f"--member={source.name}")
        self._carry((*words, self.name, source.parent), stdout=writer)

    def write(self, path: str, reader: int, *, keep_ids: bool) -> None:
        words = ("container", "put-archive", f"--keep-ids={'true' if keep_ids else 'false'}")
        with open(reader, "rb", buffering=0, closefd=False) as stream:
            self._carry((*words, self.name, path), stdin=stream)

    def _answer(self, words: tuple[str, ...]) -> bytes:
        """What the words write."""
        from tempfile import TemporaryFile

        with TemporaryFile() as file:
            self._carry(words, stdout=file.fileno())
            file.seek(0)
            return file.read()

    def _carry(self, words: tuple[str, ...], **streams: Any) -> None:
        """Raises what the other wherry complained of."""
        from tempfile import TemporaryFile

        with TemporaryFile() as complaints:
            code = self._forward(words, stderr=complaints.fileno(), **streams)
            complaints.seek(0)
            said = complaints.read().decode(errors="replace").strip()
        if code:
            message, _, hint = said.removeprefix("wherry: ").partition("\n")
            raise WherryError(
                message or f"it ended with exit code {code}", hint=hint.strip() or None
            )
