"""What a build tells programs: a JSON object for each thing that happens, as BuildKit has it."""

from __future__ import annotations

from base64 import b64encode

from wherry.builder.progress import Progress
from wherry.lean import dump_json, sha256
from wherry.timestamps import now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO


class RawProgress(Progress):
    """Lines of JSON: `vertexes` are steps, and `logs` what they print."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._vertexes: dict[int, dict[str, Any]] = {}

    def begun(self, number: int, name: str) -> None:
        digest = f"sha256:{sha256(f'{number} {name}'.encode()).hexdigest()}"
        self._tell(number, digest=digest, name=name, started=now())

    def line(self, number: int, seconds: float, text: str) -> None:  # noqa: ARG002
        data = b64encode(f"{text}\n".encode()).decode()
        vertex = self._vertexes[number]["digest"]
        self._say({"logs": [{"vertex": vertex, "stream": 1, "data": data, "timestamp": now()}]})

    def done(self, number: int, seconds: float, *, is_cached: bool) -> None:  # noqa: ARG002
        self._tell(number, completed=now(), **({"cached": True} if is_cached else {}))

    def failed(self, number: int, reason: str) -> None:
        self._tell(number, completed=now(), error=reason)

    def canceled(self, number: int) -> None:
        self.failed(number, "context canceled")

    def _tell(self, number: int, **news: Any) -> None:
        self._vertexes[number] = {**self._vertexes.get(number, {}), **news}
        self._say({"vertexes": [self._vertexes[number]]})

    def _say(self, message: dict[str, Any]) -> None:
        self._stream.write(f"{dump_json(message)}\n")
        self._stream.flush()
