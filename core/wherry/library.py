"""wherry as a library: containers from Python, by the command line's own way.

    import wherry

    result = wherry.run("debian", ["cat"], input=b"hello", check=True)
    assert result.stdout == b"hello"

    with wherry.Container("postgres", publish=["5432"], env=["POSTGRES_PASSWORD=x"]) as db:
        db.exec(["pg_isready"], check=True)
        db.copy_in("schema.sql", "/tmp/")

Options are those of `wherry run`, with underscores: `volume=["/src:/src:ro"]`,
`network="none"`, `read_only=True`, `memory="1g"`. What cannot be done raises a
`wherry.errors.WherryError`.

A container is started by a fork of this process, which a program with threads should
not do while they hold locks: start containers before threads.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from wherry.errors import UsageError, WherryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from wherry.cli.grammar import Declaration
    from wherry.container.request import RunRequest
    from wherry.container.spec import CreateBody, ExecConfig
    from wherry.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a command in a container ended."""

    args: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes

    def check(self) -> Result:
        """This result. Raises CommandFailed where the exit code is not 0."""
        if self.returncode != 0:
            raise CommandFailed(self)
        return self

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.stdout.decode(errors="replace")


class CommandFailed(WherryError):
    """A command that had to succeed did not; `result` is how it ended."""

    def __init__(self, result: Result) -> None:
        said = result.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        command = " ".join(result.args) or "the container's command"
        super().__init__(
            f"{command} failed with exit code {result.returncode}" + (f": {said}" if said else "")
        )
        self.result = result


def run(
    image: str,
    command: Sequence[str] = (),
    *,
    input: bytes | None = None,  # noqa: A002
    check: bool = False,
    **options: Any,
) -> Result:
    """Run a command in a new container, wait for it, and remove the container.

    `input` is its standard input; without it that is empty. With `check` an exit code
    other than 0 raises CommandFailed. Raises WherryError where the container cannot be
    started.
    """
    options.setdefault("rm", True)
    if input is not None:
        options["interactive"] = True
    engine = _engine()
    body, request = _parse(image, command, options)
    with _Streams(input) as streams:
        returncode = engine.containers.run(body, request, stdio=streams.stdio)
        result = streams.result(command, returncode)
    return result.check() if check else result


class Container:
    """A container that lives as long as a `with` block."""

    def __init__(self, image: str, command: Sequence[str] = (), **options: Any) -> None:
        """Nothing happens before the block is entered."""
        self._image = image
        self._command = command
        self._options = options
        self._engine = _engine()
        self.id = ""

    def __enter__(self) -> Container:
        body, request = _parse(self._image, self._command, self._options)
        self.id = self._engine.containers.create(body, request)
        try:
            self._engine.containers.start(self.id)
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    @property
    def name(self) -> str:
        """The name that it was given or that was made up."""
        return str(self.inspect()["Name"]).removeprefix("/")

    @property
    def is_running(self) -> bool:
        """Whether its first process runs."""
        return bool(self.inspect()["State"]["Running"])

    @property
    def ports(self) -> dict[str, list[tuple[str, int]]]:
        """The host's addresses and ports of each published port, such as "80/tcp"."""
        published = self.inspect()["NetworkSettings"]["Ports"]
        return {
            port: [(binding["HostIp"], int(binding["HostPort"])) for binding in bindings or ()]
            for port, bindings in published.items()
        }

    def inspect(self) -> dict[str, Any]:
        """What `wherry inspect` shows."""
        document: dict[str, Any] = self._engine.containers.inspect(self.id)
        return document

    def exec(
        self,
        command: Sequence[str],
        *,
        input: bytes | None = None,  # noqa: A002
        check: bool = False,
        env: Mapping[str, str] | None = None,
        user: str = "",
        workdir: str = "",
    ) -> Result:
        """Run one more command in it, and wait for that."""
        config: ExecConfig = {
            "AttachStdin": input is not None,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": False,
            "Cmd": list(command),
            "Env": [f"{name}={value}" for name, value in (env or {}).items()],
            "Privileged": False,
            "User": user,
            "WorkingDir": workdir,
        }
        with _Streams(input) as streams:
            returncode = self._engine.containers.exec(self.id, config, stdio=streams.stdio)
            result = streams.result(command, returncode)
        return result.check() if check else result

    def logs(self, *, follow: bool = False, tail: int = -1) -> Iterator[str]:
        """What it has written, a line at a time, both streams in their order; -1: all of it."""
        for record in self._engine.containers.logs(self.id, follow=follow, tail=tail):
            yield record["log"]

    def wait(self) -> int:
        """Wait until it has ended; its exit code."""
        return self._engine.containers.wait(self.id)

    def stop(self, timeout: int | None = None) -> None:
        """Ask it to end, and make it end after `timeout` seconds."""
        self._engine.containers.stop(self.id, timeout)

    def kill(self, signal: str = "KILL") -> None:
        """Send a signal to its first process."""
        self._engine.containers.kill(self.id, signal)

    def copy_in(self, source: str | os.PathLike[str], target: str) -> None:
        """Copy a file or directory of this machine into it, as `wherry cp` does."""
        self._copy(os.fspath(source), f"{self.id}:{target}")

    def copy_out(self, source: str, target: str | os.PathLike[str]) -> None:
        """Copy a file or directory of it to this machine, as `wherry cp` does."""
        self._copy(f"{self.id}:{source}", os.fspath(target))

    def _copy(self, source: str, target: str) -> None:
        from wherry.cli.transfer import cp

        if code := cp.function(**cp.parse([source, target, "--quiet"])):
            raise WherryError(f"cannot copy {source} to {target} (exit code {code})")

    def remove(self) -> None:
        """Remove it with its anonymous volumes, whether it runs or not."""
        if self.id:
            self._engine.containers.remove(self.id, force=True, volumes=True)
            self.id = ""


class _Streams:
    """The three streams of one command, as unnamed files: no thread has to pump."""

    def __init__(self, content: bytes | None) -> None:
        self._content = content
        self._files: list[IO[bytes]] = []

    def __enter__(self) -> _Streams:
        stdin: IO[bytes]
        if self._content is None:
            stdin = open(os.devnull, "rb")
        else:
            stdin = tempfile.TemporaryFile()
            stdin.write(self._content)
            stdin.seek(0)
        self._files = [stdin, tempfile.TemporaryFile(), tempfile.TemporaryFile()]
        return self

    @property
    def stdio(self) -> tuple[int, int, int]:
        stdin, stdout, stderr = (file.fileno() for file in self._files)
        return stdin, stdout, stderr

    def result(self, command: Sequence[str], returncode: int) -> Result:
        """What has been written to the streams."""
        texts = []
        for file in self._files[1:]:
            file.seek(0)
            texts.append(file.read())
        return Result(args=tuple(command), returncode=returncode, stdout=texts[0], stderr=texts[1])

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()


def _engine() -> Engine:
    from wherry.backend import load_engine

    return load_engine()


def _parse(
    image: str, command: Sequence[str], options: Mapping[str, Any]
) -> tuple[CreateBody, RunRequest]:
    """The options of `wherry run` as its own parser reads them."""
    from wherry.cli.host import resolve
    from wherry.cli.run import prepare
    from wherry.cli.run import run as declaration

    values = declaration.parse(_words(declaration, image, command, options))
    return prepare(resolve(values), declaration)


def _words(
    declaration: Declaration, image: str, command: Sequence[str], options: Mapping[str, Any]
) -> list[str]:
    known = {option.name: option for option in declaration.options}
    words = []
    for name, given in options.items():
        if name not in known:
            raise UsageError(f"unknown option {name}", hint="the options are those of `wherry run`")
        flag = known[name].long
        for value in given if isinstance(given, (list, tuple)) else (given,):
            if value is None:
                continue
            text = str(value).lower() if isinstance(value, bool) else str(value)
            words.append(f"{flag}={text}")
    return [*words, "--", image, *command]
