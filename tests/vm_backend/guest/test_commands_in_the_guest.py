"""What the guest's runner makes of a request: streams, terminals, signals, exit codes."""

from __future__ import annotations

import os
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from support.waiting import Deadline, children, wait_until
from wherry.container.wire import CONTROL, STDERR, STDIN, STDOUT, Parser, control, frame
from wherry.lean import load_json
from wherry_vm.protocol import WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the guest is a Linux")


LOOK = """
import os, sys
open(sys.argv[1], "w").write("".join(str(n) for n in (0, 1, 2) if os.isatty(n)))
"""


class Host:
    """The host's end of one command."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self.stream.settimeout(60)
        self.output: dict[int, bytes] = {STDIN: b"", STDOUT: b"", STDERR: b""}
        self.taken = 0
        self.code: int | None = None
        self.error = ""
        self._parser = Parser()

    def tell(self, **message: Any) -> None:
        self.stream.sendall(control(message))

    def type(self, data: bytes) -> None:
        self.stream.sendall(frame(STDIN, data))

    def listen(self, until: Callable[[], bool]) -> None:
        """Read what comes until `until()`, or the other side has said its last word."""
        while not until():
            data = self.stream.recv(1 << 16)
            assert data, "the runner closed the connection"
            for kind, payload in self._parser.feed(data):
                if kind != CONTROL:
                    self.output[kind] += payload
                    continue
                message = load_json(payload)
                self.taken += message.get("bytes", 0)
                self.code = message.get("code", self.code)
                self.error = message.get("error", {}).get("message", "")

    def end(self) -> int:
        """The exit code."""
        self.listen(lambda: self.code is not None)
        assert self.code is not None
        return self.code


def _served() -> tuple[socket.socket, int]:
    """The host's end of a channel to the runner, and the process at the other end."""
    from wherry_vm.guest.connection import Connection
    from wherry_vm.guest.serve import serve

    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        try:
            serve(Connection(theirs.fileno()))
        finally:
            os._exit(0)
    theirs.close()
    return ours, pid


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Host]]:
    """`run("sh", "-c", …, stdin=False, terminals=(False, False, False), size=None)`"""
    monkeypatch.setenv("WHERRY_ORIGINS", str(tmp_path / "origins"))
    opened: list[tuple[socket.socket, int]] = []

    def start(
        *words: str,
        stdin: bool = False,
        terminals: tuple[bool, bool, bool] = (False, False, False),
        **more: Any,
    ) -> Host:
        ours, pid = _served()
        opened.append((ours, pid))
        host = Host(ours)
        host.tell(op="program", argv=words, stdin=stdin, terminals=terminals, **more)
        return host

    yield start
    for ours, pid in opened:
        ours.close()
        os.waitpid(pid, 0)


@pytest.fixture
def run_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Host]]:
    """`run_late("ps")`: a command of wherry's that comes when its process has rehearsed."""
    monkeypatch.setenv("WHERRY_BACKEND", "linux")
    monkeypatch.setenv("WHERRY_ORIGINS", str(tmp_path / "origins"))
    monkeypatch.setenv("WHERRY_ROOT", str(tmp_path / "own"))
    ours, pid = _served()

    def start(
        *words: str, terminals: tuple[bool, bool, bool] = (False, False, False), **more: Any
    ) -> Host:
        has_begun = (tmp_path / "origins/rehearsal/data").exists
        wait_until(has_begun, Deadline(60, "a rehearsal"))
        host = Host(ours)
        host.tell(op="run", argv=words, environment={}, stdin=False, terminals=terminals, **more)
        return host

    yield start
    ours.close()
    os.waitpid(pid, 0)


def test_outputs_stay_apart_and_the_exit_code_comes_last(run: Callable[..., Host]) -> None:
    host = run("sh", "-c", "echo out; echo err >&2; exit 7")

    assert host.end() == 7
    assert (host.output[STDOUT], host.output[STDERR]) == (b"out\n", b"err\n")


def test_a_program_that_is_killed_has_the_code_of_a_shell(run: Callable[..., Host]) -> None:
    assert run("sh", "-c", "kill -KILL $$").end() == 137


def test_a_program_that_is_not_there_is_not_found(run: Callable[..., Host]) -> None:
    host = run("no-such-program")

    assert host.end() == 127
    assert b"no-such-program" in host.output[STDERR]


def test_input_ends_while_output_goes_on(run: Callable[..., Host]) -> None:
    host = run("sh", "-c", "cat; echo more", stdin=True)
    host.type(b"some\0bytes\xff\n")
    host.tell(op="eof")

    assert host.end() == 0
    assert host.output[STDOUT] == b"some\0bytes\xff\nmore\n"


def test_a_program_that_reads_no_input_has_none(run: Callable[..., Host]) -> None:
    host = run("cat")

    assert (host.end(), host.output[STDOUT]) == (0, b"")


def test_much_goes_both_ways_at_once(run: Callable[..., Host]) -> None:
    size = 8 << 20
    host = run("cat", stdin=True)

    def write() -> None:
        for _ in range(size // WINDOW):
            host.type(b"x" * WINDOW)
        host.tell(op="eof")

    writer = threading.Thread(target=write)
    writer.start()
    assert host.end() == 0
    writer.join()
    assert (len(host.output[STDOUT]), host.taken) == (size, size)


def test_a_signal_passes_input_that_nobody_reads(run: Callable[..., Host]) -> None:
    host = run("sh", "-c", "trap 'exit 3' USR1; echo ready; while :; do read -t 0.1 x </dev/null; "
               "sleep 0.05; done", stdin=True)  # fmt: skip
    host.listen(lambda: b"ready" in host.output[STDOUT])
    host.type(b"x" * WINDOW)
    host.tell(op="signal", name="SIGUSR1")

    assert host.end() == 3


def test_a_signal_that_does_not_exist_does_nothing(run: Callable[..., Host]) -> None:
    host = run("cat", stdin=True)
    host.tell(op="signal", name="SIGNOTHING")
    host.tell(op="signal", name="__doc__")
    host.tell(op="eof")

    assert host.end() == 0


def test_a_terminal_has_the_size_of_the_users(run: Callable[..., Host]) -> None:
    host = run("sh", "-c", "stty size; read x; stty size", stdin=True,
               terminals=(True, True, True), size=[33, 111])  # fmt: skip
    host.listen(lambda: b"33 111" in host.output[STDOUT])
    host.tell(op="resize", size=[40, 50])
    host.type(b"\n")

    assert host.end() == 0
    assert b"40 50" in host.output[STDOUT]


def test_ctrl_c_on_the_terminal_interrupts(run: Callable[..., Host]) -> None:
    script = "trap 'echo caught; exit 5' INT; echo ready; sleep 30 & wait"
    host = run("sh", "-c", script, stdin=True, terminals=(True, True, True))
    host.listen(lambda: b"ready" in host.output[STDOUT])
    host.type(b"\x03")

    assert host.end() == 5
    assert b"caught" in host.output[STDOUT]


def test_each_stream_is_a_terminal_only_where_the_users_is(
    run: Callable[..., Host], tmp_path: Path
) -> None:
    seen = []
    for terminals in ((False, True, False), (True, False, True), (False, False, False)):
        host = run(sys.executable, "-c", LOOK, f"{tmp_path}/seen", terminals=terminals)
        assert host.end() == 0
        seen.append((tmp_path / "seen").read_text())

    assert seen == ["1", "02", ""]


def test_lines_end_once_where_the_users_terminal_ends_them(run: Callable[..., Host]) -> None:
    """Without input the user's terminal is not raw, and adds the carriage return itself."""
    host = run("echo", "line", terminals=(False, True, True))

    assert host.end() == 0
    assert host.output[STDOUT] == b"line\n"


def test_what_a_terminal_alone_shows_comes_as_its_own(run: Callable[..., Host]) -> None:
    """`wherry run -it … | less`: keys are echoed on the terminal, not into the pipe."""
    host = run("sh", "-c", "read x; echo got $x", stdin=True, terminals=(True, False, False))
    host.type(b"abc\n")

    assert host.end() == 0
    assert host.output[STDOUT] == b"got abc\n"
    assert b"abc" in host.output[STDIN]


def test_a_program_whose_host_is_gone_is_killed(run: Callable[..., Host]) -> None:
    host = run("sh", "-c", "echo $$; exec sleep 1000")
    host.listen(lambda: b"\n" in host.output[STDOUT])
    pid = int(host.output[STDOUT])
    end = os.pidfd_open(pid)
    host.stream.close()

    import select

    assert select.select([end], [], [], 60)[0], "it goes on"
    os.close(end)


def test_its_environment_is_the_hosts_where_it_says_so(run: Callable[..., Host]) -> None:
    host = run("sh", "-c", "echo $TERM $TZ", environment={"TERM": "vt100", "TZ": "<+01>-1"})

    assert host.end() == 0
    assert host.output[STDOUT] == b"vt100 <+01>-1\n"


@pytest.mark.parametrize(
    "request_",
    [{"op": "nothing"}, {"op": "program"}, {"op": "program", "argv": ["x"], "terminals": 3}],
)
def test_a_request_that_is_none_is_answered_with_an_error(
    run: Callable[..., Host], request_: dict[str, Any]
) -> None:
    from wherry_vm.guest.connection import Connection
    from wherry_vm.guest.serve import serve

    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(control(request_))
        serve(Connection(theirs.fileno()))
        host = Host(ours)
        host.listen(lambda: bool(host.error))

    assert host.error.startswith("the guest could not start the command: ")


def test_nothing_is_left_of_a_command_that_never_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wherry_vm.guest.connection import Connection
    from wherry_vm.guest.serve import serve

    monkeypatch.setenv("WHERRY_ORIGINS", str(tmp_path))
    ours, theirs = socket.socketpair()
    ours.close()
    before = children()
    with theirs:
        serve(Connection(theirs.fileno()))

    assert [each.name for each in tmp_path.iterdir() if each.name != "rehearsal"] == []
    (pid,) = children() - before
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("brief", [False, True])
def test_a_command_that_comes_late_finds_a_process_that_has_done_nothing_of_its_own(
    run_late: Callable[..., Host], tmp_path: Path, brief: bool
) -> None:
    host = run_late("volume", "create", "kept", brief=brief)

    assert host.end() == 0
    assert (host.output[STDOUT], host.output[STDERR]) == (b"kept\n", b"")
    assert (tmp_path / "own/data/volumes/kept").exists()
    assert not (tmp_path / "origins/rehearsal/data/volumes").exists()


def test_a_command_that_is_killed_has_the_code_of_a_shell(run_late: Callable[..., Host]) -> None:
    """One that ends by itself tells its code before it does."""
    host = run_late("events")
    host.tell(op="signal", name="SIGKILL")

    assert host.end() == 137


def test_what_a_brief_command_says_comes_with_its_code(run_late: Callable[..., Host]) -> None:
    host = run_late("volume", "inspect", "nothing", brief=True)

    assert host.end() == 1
    assert host.output[STDOUT] == b"[]\n"
    assert host.output[STDERR].startswith(b"wherry: No such volume: nothing\n")


def test_a_terminal_shows_what_a_brief_command_says_in_its_order(
    run_late: Callable[..., Host],
) -> None:
    shown = run_late(
        "volume", "inspect", "nothing", brief=True, terminals=(True, True, True), size=[24, 80]
    )

    assert shown.end() == 1
    assert shown.output[STDOUT].startswith(b"[]\nwherry: No such volume: nothing\n")
    assert shown.output[STDERR] == b""


def test_a_brief_command_may_say_much(run_late: Callable[..., Host]) -> None:
    line = '{{printf "%100000s" "x"}}'
    host = run_late("version", "--format", line * 30, brief=True)

    assert host.end() == 0
    assert host.output[STDOUT] == (b" " * 99_999 + b"x") * 30 + b"\n"


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGKILL", 137)])
def test_a_brief_command_is_interrupted(
    run_late: Callable[..., Host], name: str, code: int
) -> None:
    host = run_late("events", brief=True)
    host.tell(op="signal", name="SIGWINCH")
    host.tell(op="signal", name=name)

    assert host.end() == code


def test_a_brief_command_whose_host_is_gone_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHERRY_BACKEND", "linux")
    monkeypatch.setenv("WHERRY_ORIGINS", str(tmp_path / "origins"))
    monkeypatch.setenv("WHERRY_ROOT", str(tmp_path / "own"))
    ours, pid = _served()
    host = Host(ours)
    terminals = (False, False, False)
    host.tell(
        op="run", argv=["events"], environment={}, stdin=False, terminals=terminals, brief=True
    )
    wait_until((tmp_path / "own").exists, Deadline(60, "the command"))
    ours.close()

    assert os.waitpid(pid, 0)[0] == pid
    assert [each.name for each in (tmp_path / "origins").iterdir()] in ([], ["rehearsal"])
