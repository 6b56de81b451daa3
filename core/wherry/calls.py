"""What wherry.library asks for: carried out here, or in an interpreter of its own.

A container is started by a fork. The child of a program with threads has the locks that
the threads held, and nobody who ever lets go of them: such a program's calls are
carried out by a fresh interpreter, which takes some 50 ms more.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from wherry.errors import UsageError, WherryError, from_json, to_json
from wherry.lean import dump_json, load_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wherry.container.request import RunRequest
    from wherry.container.spec import CreateBody, ExecConfig

    Stdio = tuple[int, int, int]


class Calls:
    """Each takes and gives what JSON can say."""

    def __init__(self, stdio: Stdio) -> None:
        from wherry.backend import load_engine

        self._engine = load_engine()
        self._stdio = stdio

    def run(self, words: list[str]) -> int:
        body, request = _parse(words)
        return self._engine.containers.run(body, request, stdio=self._stdio)

    def create(self, words: list[str]) -> str:
        return self._engine.containers.create(*_parse(words))

    def start(self, container: str) -> None:
        self._engine.containers.start(container)

    def exec(self, container: str, config: ExecConfig) -> int:
        return self._engine.containers.exec(container, config, stdio=self._stdio)

    def inspect(self, container: str) -> dict[str, Any]:
        return self._engine.containers.inspect(container)

    def wait(self, container: str) -> int:
        return self._engine.containers.wait(container)

    def stop(self, container: str, timeout: int | None) -> None:
        self._engine.containers.stop(container, timeout)

    def kill(self, container: str, signal: str) -> None:
        self._engine.containers.kill(container, signal)

    def remove(self, container: str) -> None:
        self._engine.containers.remove(container, force=True, volumes=True)

    def copy(self, source: str, target: str) -> None:
        from wherry.cli.transfer import cp

        cp.function(**cp.parse(["--quiet", "--", source, target]))

    def pull(self, image: str, platform: str) -> str:
        from wherry.container.request import PullOptions

        options = PullOptions(platform=platform, policy="always", quiet=True)
        return self._engine.images.obtain(image, options).id


def call(name: str, *arguments: Any, stdio: Stdio = (0, 1, 2)) -> Any:
    """The result of that one of `Calls`. Raises what it raises."""
    import threading

    if sys.platform != "linux" or threading.active_count() == 1 or not sys.executable:
        return getattr(Calls(stdio), name)(*arguments)
    return _call_elsewhere(name, arguments, stdio)


def _call_elsewhere(name: str, arguments: Sequence[Any], stdio: Stdio) -> Any:
    import subprocess
    import tempfile

    program = f"import sys; sys.path[:] = {sys.path!r}; from wherry.calls import serve; serve"
    answer, theirs = os.pipe()
    with tempfile.TemporaryFile() as request, open(answer, "rb") as reader:
        request.write(dump_json({"name": name, "arguments": arguments}).encode())
        request.seek(0)
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", f"{program}({request.fileno()}, {theirs})"],
                stdin=stdio[0],
                stdout=stdio[1],
                stderr=stdio[2],
                pass_fds=(request.fileno(), theirs),
                # What a terminal's Ctrl-C means is for the caller to say.
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        try:
            said = reader.read()
        finally:
            process.kill()
            process.wait()
    if not said:
        raise WherryError(f"the interpreter that was to {name} ended without an answer")
    outcome = load_json(said)
    if "error" in outcome:
        raise from_json(outcome["error"])
    return outcome["result"]


def serve(request: int, answer: int) -> None:
    """What the fresh interpreter does."""
    for descriptor in (request, answer):
        os.set_inheritable(descriptor, False)
    with open(request, "rb") as file:
        wanted = load_json(file.read())
    try:
        outcome = {"result": getattr(Calls((0, 1, 2)), wanted["name"])(*wanted["arguments"])}
    except WherryError as error:
        outcome = {"error": to_json(error)}
    except Exception as error:
        outcome = {"error": to_json(WherryError(f"{type(error).__name__}: {error}"))}
    with open(answer, "wb") as file:
        file.write(dump_json(outcome).encode())
    os._exit(0)


def _parse(words: list[str]) -> tuple[CreateBody, RunRequest]:
    """The options of `wherry run` as its own parser reads them."""
    from wherry.cli.host import resolve
    from wherry.cli.run import prepare, run

    body, request = prepare(resolve(run.parse(words)), run)
    if request.detach or request.explain:
        raise UsageError(
            "detach and explain are for the command line",
            hint="wherry.Container runs in the background",
        )
    return body, request
