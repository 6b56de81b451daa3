"""The command under test, as a user runs it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from support.accounts import Account

_PASSED_ON = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "WHERRY_DEBIAN_MIRROR",
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a command ended: its exit code and what it wrote, as text and as bytes."""

    argv: tuple[str, ...]
    returncode: int
    output: bytes
    errors: bytes

    @property
    def stdout(self) -> str:
        return self.output.decode(errors="surrogateescape")

    @property
    def stderr(self) -> str:
        return self.errors.decode(errors="surrogateescape")

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()


class CommandFailed(AssertionError):
    """A command that had to succeed did not."""

    def __init__(self, result: Result) -> None:
        super().__init__(
            f"wherry {' '.join(result.argv)}\nexit code {result.returncode}\n"
            f"--- stdout\n{result.stdout}\n--- stderr\n{result.stderr}"
        )
        self.result = result


class Cli:
    """`wherry(…)` runs the installed command in a world of its own and waits for it."""

    def __init__(self, account: Account, environment: Mapping[str, str], directory: str) -> None:
        """`directory` is where the command starts; it belongs to the account."""
        self.account = account
        self.directory = directory
        self.environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            "USER": account.name,
            "LOGNAME": account.name,
            **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            **account.environment,
            **environment,
        }

    def __call__(
        self,
        *argv: str,
        input: str | bytes | None = None,  # noqa: A002
        check: bool = True,
        timeout: float = 120,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> Result:
        """Run `wherry ARGV…`; raises CommandFailed where `check` and it fails.

        Without `input` stdin is empty.
        """
        process = self.start(
            *argv,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            env=env,
            cwd=cwd,
        )
        content = input.encode() if isinstance(input, str) else input
        try:
            output, errors = process.communicate(content, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            process.kill()
            output, errors = process.communicate()
            raise AssertionError(
                f"wherry {' '.join(argv)} did not end within {timeout:g} s\n"
                f"--- stdout\n{output!r}\n--- stderr\n{errors!r}"
            ) from error
        result = Result(argv=argv, returncode=process.returncode, output=output, errors=errors)
        if check and result.returncode != 0:
            raise CommandFailed(result)
        return result

    def start(
        self,
        *argv: str,
        stdin: int | IO[bytes] = subprocess.PIPE,
        stdout: int | IO[bytes] = subprocess.PIPE,
        stderr: int | IO[bytes] = subprocess.PIPE,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        new_session: bool = False,
    ) -> subprocess.Popen[bytes]:
        """Start `wherry ARGV…` and return at once; the caller waits for it."""
        return self.spawn(
            [*self.account.command, *argv],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=env,
            cwd=cwd,
            new_session=new_session,
        )

    def spawn(
        self,
        argv: list[str],
        *,
        stdin: int | IO[bytes] = subprocess.PIPE,
        stdout: int | IO[bytes] = subprocess.PIPE,
        stderr: int | IO[bytes] = subprocess.PIPE,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        new_session: bool = False,
    ) -> subprocess.Popen[bytes]:
        """Start any program as this account, with the environment of this world."""
        other = self.account.uid != os.geteuid()
        return subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={**self.environment, **(env or {})},
            cwd=cwd or self.directory,
            user=self.account.uid if other else None,
            group=self.account.gid if other else None,
            extra_groups=[] if other else None,
            start_new_session=new_session,
        )
