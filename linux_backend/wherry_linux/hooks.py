"""Hooks of the runtime-spec: programs that run at fixed points of a container's life."""

from __future__ import annotations

import os
import select
import time

from wherry.errors import WherryError
from wherry.forked import start
from wherry.lean import dump_json
from wherry_linux import constants as c
from wherry_linux import trampoline
from wherry_linux.syscalls import close_range

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.oci.runtime_spec import Hook

_LONGEST_OUTPUT = 1 << 16


def run_hooks(hooks: list[Hook], kind: str, state: dict[str, Any]) -> None:
    """Run `hooks` in order, the container's state on their standard input.

    Raises WherryError at the first that fails or takes longer than its `timeout`.
    """
    text = dump_json(state).encode()
    for hook in hooks:
        _run(hook, f"{kind} hook {hook['path']}", text)


def _run(hook: Hook, name: str, text: bytes) -> None:
    given, feed = os.pipe()
    output, said = os.pipe()
    report, failed = os.pipe()
    child = start(lambda: _become(hook, given, said, failed))
    for descriptor in (given, said, failed):
        os.close(descriptor)
    try:
        # A state is smaller than what a pipe holds.
        _feed(feed, text)
        number = int.from_bytes(os.read(report, 4), "little")
        timeout = hook.get("timeout")
        answer = _read(output, timeout)
        status = _wait(child, 0 if answer is None else timeout)
    finally:
        os.close(output)
        os.close(report)
    if number:
        raise WherryError(f"cannot run {name}: {os.strerror(number)}")
    if status is None or answer is None:
        raise WherryError(f"{name} took longer than {timeout} s")
    if status:
        words = answer.decode(errors="replace").strip()
        raise WherryError(
            f"{name} failed with exit code {status}" + (f": {words}" if words else "")
        )


def _become(hook: Hook, given: int, said: int, failed: int) -> None:
    """In a forked child: the hook. It may be a program of the container's."""
    os.setsid()
    for target, source in ((0, given), (1, said), (2, said)):
        os.dup2(source, target)
    # What its caller has left open is none of its business.
    close_range(3, 0x7FFFFFFF, c.CLOSE_RANGE_CLOEXEC)
    step = trampoline.make(failed)
    os.set_inheritable(failed, True)
    variables = dict(entry.partition("=")[::2] for entry in hook.get("env") or [])
    os.execve(step, ["wherry", hook["path"], *(hook.get("args") or [hook["path"]])], variables)


def _feed(descriptor: int, text: bytes) -> None:
    try:
        os.set_blocking(descriptor, False)
        os.write(descriptor, text)
    except OSError:
        pass  # a hook need not read
    finally:
        os.close(descriptor)


def _read(descriptor: int, timeout: float | None) -> bytes | None:
    """What a hook says until it closes its output; None after `timeout` seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    answer = b""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        if not poll.poll(left):
            return None
        chunk = os.read(descriptor, _LONGEST_OUTPUT)
        if not chunk:
            return answer
        answer = (answer + chunk)[-_LONGEST_OUTPUT:]


def _wait(child: int, timeout: float | None) -> int | None:
    """The exit code of a hook; None where it had to be killed after `timeout` seconds."""
    process = os.pidfd_open(child)
    poll = select.poll()
    poll.register(process, select.POLLIN)
    ended = poll.poll(None if timeout is None else timeout * 1000)
    os.close(process)
    if not ended:
        os.kill(child, 9)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if ended else None
