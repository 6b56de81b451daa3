"""What a build shows while it works: on a terminal, to a file, to a program."""

from __future__ import annotations

import json
import re
import signal
from base64 import b64decode
from typing import TYPE_CHECKING

from support.building import NO_NETWORK, context
from support.settings import on_linux

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.cli import Cli
    from support.terminal import Terminal, Tmux

__all__ = ["context"]

LONG = "a-name-that-no-narrow-terminal-has-room-for-in-one-line-of-its-screen"
TEXT = f"""\
FROM busybox AS base
RUN echo one; echo two; \\
    printf '10%%\\r\\033[31mred\\033[0m \\xe6\\x97\\xa5 {LONG}'; sleep 1000
"""


def put(context: Path, text: str) -> str:
    (context / "Dockerfile").write_text(text)
    return str(context)


def test_a_terminal_shows_a_line_for_each_step_and_what_runs(
    busybox_image: str, context: Path, tmux: Callable[..., Tmux]
) -> None:
    directory = put(context, TEXT.replace("busybox", busybox_image))
    with tmux("build", NO_NETWORK, directory, columns=60) as screen:
        shown = screen.expect("# red").splitlines()

        assert shown[0].startswith("[+] Building ")
        assert shown[0].endswith("s (3/5)")
        first = r" => \[internal\] load build definition from Dockerfile +\d\.\ds"
        assert re.fullmatch(first, shown[1])
        at = next(number for number, line in enumerate(shown) if " => [2/2] RUN" in line)
        assert shown[at + 1 : at + 3] == [" => => # one", " => => # two"]
        assert shown[at + 3].startswith(" => => # red 日 a-name-that")
        assert all(len(line) <= 60 for line in shown)

        # tmux shows another size before it tells of it: each is waited for.
        screen.resize(rows=24, columns=30)
        screen.expect(" => [internal] load buil ")
        screen.resize(rows=16, columns=50)
        screen.expect(" => [internal] load build definition from Do ")
        screen.send("C-c")
        shown = screen.expect(" => CANCELED [2/2] RUN").splitlines()
        assert sum("load build definition" in line for line in shown) == 1


def test_a_terminal_shows_in_the_end_what_has_failed(
    busybox_image: str, context: Path, terminal: Callable[..., Terminal]
) -> None:
    directory = put(context, f"FROM {busybox_image}\nRUN echo before; exit 3\n")
    screen = terminal("build", NO_NETWORK, directory, columns=100)

    assert screen.wait() == 1
    last = screen.screen.decode().replace("\r\n", "\n").rpartition("[+] Building")[2]
    _, _, told = last.partition("\x1b[2K => ERROR [2/2] RUN echo before; exit 3 ")
    # What was shown before may have had more lines: the rest of the screen is erased.
    lines = told.replace("\x1b[J", "").splitlines()
    assert lines[1:3] == ["------", " > [2/2] RUN echo before; exit 3:"]
    assert lines[3].endswith(" before")
    assert lines[4:6] == ["------", "Dockerfile:2"]
    assert "   2 | >>> RUN echo before; exit 3" in lines
    assert screen.attributes() == screen.attributes_before


def test_a_terminal_without_room_is_enough(
    busybox_image: str, context: Path, terminal: Callable[..., Terminal]
) -> None:
    steps = "".join(f"ENV A={number}\nRUN echo {number}\n" for number in range(4))
    directory = put(context, f"FROM {busybox_image}\n{steps}")
    screen = terminal("build", NO_NETWORK, directory, rows=2, columns=9)

    assert screen.wait() == 0
    assert "FINISHED" not in screen.screen.decode()
    assert all(len(line) <= 12 for line in screen.screen.decode().split("\r\n")[-6:])


@on_linux
def test_without_a_terminal_a_line_is_a_line(
    wherry: Cli, busybox_image: str, context: Path
) -> None:
    directory = put(context, f"FROM {busybox_image}\nRUN printf '10%%\\r20%%\\n'; echo next\n")
    shown = wherry("build", NO_NETWORK, "-t", "made", directory).stderr

    lines = [line.partition(" ") for line in shown.splitlines()]
    number = next(first for first, _, rest in lines if rest.startswith("[2/2] RUN printf"))
    own = [rest.split() for first, _, rest in lines if first == number]
    assert [words[-1] for words in own[1:3]] == ["20%", "next"]
    assert own[-1][0] == "DONE"
    for style in ("none", "quiet"):
        assert (
            wherry("build", NO_NETWORK, f"--progress={style}", "-t", "made", directory).stderr == ""
        )
    refused = wherry("build", "--progress=tty", directory, check=False)
    assert refused.returncode == 1
    assert refused.stderr == "wherry: --progress tty: standard error is no terminal\n"
    refused = wherry("build", "--progress=some", directory, check=False)
    assert refused.returncode == 125
    assert '"some"' in refused.stderr


@on_linux
def test_the_environment_can_say_what_is_shown(
    wherry: Cli, busybox_image: str, context: Path, terminal: Callable[..., Terminal]
) -> None:
    directory = put(context, f"FROM {busybox_image}\nRUN echo one\n")
    wherry.environment["BUILDKIT_PROGRESS"] = "plain"
    screen = terminal("build", NO_NETWORK, directory)

    assert screen.wait() == 0
    assert b"\r\n#4 [2/2] RUN echo one\r\n" in screen.screen
    assert b"\x1b" not in screen.screen


@on_linux
def test_a_program_gets_an_object_for_each_thing_that_happens(
    wherry: Cli, busybox_image: str, context: Path
) -> None:
    directory = put(context, f"FROM {busybox_image}\nRUN echo one; exit 3\n")
    failed = wherry("build", NO_NETWORK, "--progress=rawjson", directory, check=False)

    told = [json.loads(line) for line in failed.stderr.splitlines() if line.startswith("{")]
    vertexes = [each for message in told for each in message.get("vertexes", ())]
    logs = [each for message in told for each in message.get("logs", ())]
    step = next(each for each in vertexes if each["name"].startswith("[2/2] RUN"))
    assert {each["vertex"] for each in logs} == {step["digest"]}
    assert b64decode(logs[0]["data"]) == b"one\n"
    assert [each for each in vertexes if each["digest"] == step["digest"]][-1]["error"].endswith(
        "exit code: 3"
    )


@on_linux
def test_what_is_still_running_at_the_end_was_canceled(
    wherry: Cli, busybox_image: str, context: Path
) -> None:
    directory = put(context, f"FROM {busybox_image}\nRUN echo now; sleep 1000\n")
    process = wherry.start("build", NO_NETWORK, directory)
    assert process.stderr is not None
    while not process.stderr.readline().endswith(b" now\n"):
        assert process.poll() is None

    process.send_signal(signal.SIGTERM)

    _, rest = process.communicate(timeout=60)
    assert rest.decode().splitlines()[0].endswith("CANCELED")
