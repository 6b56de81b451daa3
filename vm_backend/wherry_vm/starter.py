"""How a command gets to a machine's supervisor, which it starts where none runs."""

from __future__ import annotations

import os
import sys
import time

from wherry import __version__
from wherry.container.wire import CONTROL, Parser, control
from wherry.errors import MachineError, from_json
from wherry.lean import load_json
from wherry_vm.link import Link, connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry_vm.machines import Machine


_PATIENCE = 120
"""Seconds for a supervisor that is ending, or has not begun to listen, to be done with it."""
_PAUSE = 0.2
_MOST_ENDS = 3


class Ended(MachineError):
    """The supervisor has ended, and not answered."""


class Mute(MachineError):
    """The supervisor does not answer in time."""


def join(
    machine: Machine,
    operation: str,
    report: Callable[[str], None],
    meanwhile: Callable[[], object] = lambda: None,
) -> Link:
    """A connection on which `operation`, command or wait, has been joined.

    `report` is told what a start is at; `meanwhile` is done while the answer is on its way.
    Raises MachineError, and what keeps it from starting.
    """
    deadline = time.monotonic() + _PATIENCE
    ends = 0
    request = _request(operation)
    while True:
        link = connect(machine.run_directory)
        if link is None:
            start_supervisor(machine)
            link = connect(machine.run_directory)
        if link is not None:
            try:
                answer = ask(link, request, ("joined", "ending"), report, meanwhile=meanwhile)
                if answer["event"] == "joined":
                    return link
                link.close()
                # Whoever is there next has been started for us, or by somebody who is as good.
                request.pop("version", None)
            except Ended:
                # It was killed, or ended before it heard us.
                link.close()
                ends += 1
                if ends == _MOST_ENDS:
                    raise
            except BaseException:
                link.close()
                raise
        if time.monotonic() > deadline:
            raise MachineError(
                f"machine {machine.name} is held by a supervisor that does not listen",
                hint=f"wherry machine stop --force {machine.name}",
            )
        time.sleep(_PAUSE)


def _request(operation: str) -> dict[str, Any]:
    """The request to join; whom this command trusts, its machine trusts from then on."""
    path = os.environ.get("SSL_CERT_FILE")
    trusted = {"authorities": os.path.abspath(path)} if path else {}
    return {"op": operation, "version": __version__, **trusted}


def ask(
    link: Link,
    request: dict[str, Any],
    answers: tuple[str, ...],
    report: Callable[[str], None] = lambda _: None,
    patience: float = 0,
    meanwhile: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Send a request, and wait for one of the events `answers`. Raises what is told instead.

    With `patience`, in seconds, nothing is received from the link after that. `meanwhile` is
    done while the answer is on its way.
    """
    if patience:
        link.expect_within(patience)
    link.send(control(request))
    meanwhile()
    parser = Parser()
    answer: dict[str, Any] | None = None
    while answer is None and (data := _receive(link)):
        for kind, payload in parser.feed(data):
            message: dict[str, Any] = load_json(payload) if kind == CONTROL else {}
            if "error" in message:
                raise from_json(message["error"])
            # A warning may have come with the answer, and would be nobody's after it.
            if message.get("event") in ("progress", "warning"):
                report(str(message["text"]))
            elif message.get("event") in answers:
                answer = message
    if answer is not None:
        return answer
    raise Ended(
        "the machine's supervisor ended without an answer",
        hint="`wherry machine logs` tells what happened; the next command starts it again",
    )


def _receive(link: Link) -> bytes:
    try:
        return link.receive()
    except TimeoutError:
        raise Mute("the machine's supervisor does not answer") from None


def start_supervisor(machine: Machine) -> None:
    """Start it, and return when it can be connected to. Raises MachineError."""
    import subprocess

    from wherry_vm.supervisor_command import detached, words

    with open(machine.file("supervisor.log"), "ab") as log:
        process = subprocess.Popen(
            words(machine.name),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=os.path.abspath(os.sep),
            **detached(),
        )
    assert process.stdout is not None
    if not process.stdout.readline():
        raise _did_not_start(machine)
    # It lives on; Python is not to complain about that.
    process.stdout.close()
    process.returncode = 0


def _did_not_start(machine: Machine) -> MachineError:
    from wherry_vm.boot import last_line

    said = last_line(machine.file("supervisor.log"))
    return MachineError(
        f"the supervisor of machine {machine.name} did not start: {said or 'it said nothing'}"
    )


def tell(text: str) -> None:
    """Progress on standard error, beside what the command itself says."""
    print(f"wherry: {text}", file=sys.stderr, flush=True)
