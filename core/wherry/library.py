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

`env`, `label` and their like take a dict as well. docs/library.md is the manual.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from wherry.calls import call
from wherry.errors import NotFound, UsageError, WherryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from wherry.container.spec import ExecConfig

# What kills a container when its time is up.
_KILLED = 137


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


class TimedOut(WherryError):
    """A command took too long and was ended; `result` has what it had written by then."""

    def __init__(self, result: Result, seconds: float) -> None:
        command = " ".join(result.args) or "the container's command"
        super().__init__(f"{command} did not end within {seconds:g} s")
        self.result = result


def run(
    image: str,
    command: Sequence[str] = (),
    *,
    input: bytes | str | None = None,  # noqa: A002
    check: bool = False,
    timeout: int | None = None,
    **options: Any,
) -> Result:
    """Run a command in a new container, wait for it, and remove the container.

    `input` is its standard input; without it that is empty. With `check` an exit code
    other than 0 raises CommandFailed; a container that runs for `timeout` seconds is
    ended, which raises TimedOut. Raises WherryError where it cannot be started.
    """
    if timeout is not None and timeout < 1:
        raise UsageError(f"invalid timeout {timeout}: it takes a second at least")
    options = {"rm": True, "quiet": True, "timeout": timeout, **options}
    if input is not None:
        options["interactive"] = True
    with tempfile.TemporaryDirectory(prefix="wherry-") as directory, _Streams(input) as streams:
        # Whoever is interrupted while waiting leaves no container that goes on.
        cid_file = options.setdefault("cidfile", f"{directory}/id")
        begun = time.monotonic()
        try:
            returncode = call("run", _words(image, command, options), stdio=streams.stdio)
        except WherryError:
            raise
        except BaseException:
            _end(cid_file)
            raise
        result = streams.result(command, returncode)
        if timeout and returncode == _KILLED and time.monotonic() - begun >= timeout:
            raise TimedOut(result, timeout)
    return result.check() if check else result


def _end(cid_file: str) -> None:
    try:
        with open(cid_file) as file:
            call("remove", file.read().strip())
    except (FileNotFoundError, NotFound):
        pass


def pull(image: str, *, platform: str = "") -> str:
    """Bring an image up to date with its registry; its id."""
    pulled: str = call("pull", image, platform)
    return pulled


class Container:
    """A container that lives as long as a `with` block."""

    def __init__(self, image: str, command: Sequence[str] = (), **options: Any) -> None:
        """Nothing happens before the block is entered."""
        self._words = _words(image, command, {"quiet": True, **options})
        self.id = ""

    def __enter__(self) -> Container:
        self.id = call("create", self._words)
        try:
            call("start", self.id)
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
        document: dict[str, Any] = call("inspect", self.id)
        return document

    def exec(
        self,
        command: Sequence[str],
        *,
        input: bytes | str | None = None,  # noqa: A002
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
            returncode = call("exec", self.id, config, stdio=streams.stdio)
            result = streams.result(command, returncode)
        return result.check() if check else result

    def logs(self, *, follow: bool = False, tail: int = -1) -> Iterator[str]:
        """What it has written, a line at a time, both streams in their order; -1: all of it."""
        from wherry.backend import load_engine

        for record in load_engine().containers.logs(self.id, follow=follow, tail=tail):
            yield record["log"]

    def wait(self) -> int:
        """Wait until it has ended; its exit code."""
        code: int = call("wait", self.id)
        return code

    def stop(self, timeout: int | None = None) -> None:
        """Ask it to end, and make it end after `timeout` seconds."""
        call("stop", self.id, timeout)

    def kill(self, signal: str = "KILL") -> None:
        """Send a signal to its first process."""
        call("kill", self.id, signal)

    def copy_in(self, source: str | os.PathLike[str], target: str) -> None:
        """Copy a file or directory of this machine into it, as `wherry cp` does."""
        call("copy", _host_path(source), f"{self.id}:{target}")

    def copy_out(self, source: str, target: str | os.PathLike[str]) -> None:
        """Copy a file or directory of it to this machine, as `wherry cp` does."""
        call("copy", f"{self.id}:{source}", _host_path(target))

    def remove(self) -> None:
        """Remove it with its anonymous volumes, whether it runs or not."""
        if self.id:
            try:
                call("remove", self.id)
            except NotFound:
                pass  # with `rm`, or by another hand
            self.id = ""


def _host_path(path: str | os.PathLike[str]) -> str:
    """A path as `wherry cp` takes it for one of this machine, and not for a stream."""
    text = os.fspath(path)
    return text if os.path.isabs(text) else os.path.join(".", text)


class _Streams:
    """The three streams of one command, as unnamed files: no thread has to pump."""

    def __init__(self, content: bytes | str | None) -> None:
        self._content = content.encode() if isinstance(content, str) else content
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


def _words(image: str, command: Sequence[str], options: Mapping[str, Any]) -> list[str]:
    """The words of `wherry run` that say the same. Raises UsageError."""
    from wherry.cli.run import run as declaration

    if isinstance(command, str):
        raise UsageError("the command is a list of words", hint='["sh", "-c", "…"] has a shell')
    known = {option.name: option for option in declaration.options}
    words = []
    for name, given in options.items():
        if name not in known:
            raise UsageError(f"unknown option {name}", hint="the options are those of `wherry run`")
        words += [f"{known[name].long}={text}" for text in _texts(given)]
    return [*words, "--", image, *command]


def _texts(given: Any) -> list[str]:
    """An option's values as the command line has them."""
    if given is None:
        return []
    if isinstance(given, Mapping):
        return [f"{key}={value}" for key, value in given.items()]
    if isinstance(given, (list, tuple)):
        return [str(value) for value in given]
    return [str(given).lower() if isinstance(given, bool) else str(given)]
