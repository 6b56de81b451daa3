"""`-it`: a terminal inside as good as the one outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.settings import OFFLINE

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.cli import Cli
    from support.terminal import Terminal, Tmux


def test_size_is_right_from_the_start(
    terminal: Callable[..., Terminal], busybox_image: str
) -> None:
    box = terminal(
        "run", OFFLINE, "--rm", "-it", busybox_image, "stty", "size", rows=33, columns=111
    )

    box.expect("33 111")

    assert box.wait() == 0


def test_size_follows(terminal: Callable[..., Terminal], busybox_image: str) -> None:
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.1; done"
    box = terminal("run", OFFLINE, "--rm", "-it", busybox_image, "sh", "-c", script)
    box.expect("ready")

    box.resize(40, 100)

    box.expect("40 100")
    assert box.wait() == 0


def test_shell_answers(terminal: Callable[..., Terminal], busybox_image: str) -> None:
    box = terminal("run", OFFLINE, "--rm", "-it", busybox_image, "sh")
    box.expect("# ")

    box.send("echo $((6 * 7)) $TERM; tty\r")

    box.expect("42 xterm")
    box.expect("/dev/pts/0")
    box.send("exit 3\r")
    assert box.wait() == 3


def test_interrupt_reaches_the_command_inside(
    terminal: Callable[..., Terminal], busybox_image: str
) -> None:
    script = "trap 'echo interrupted; exit 130' INT; echo ready; while :; do sleep 0.1; done"
    box = terminal("run", OFFLINE, "--rm", "-it", busybox_image, "sh", "-c", script)
    box.expect("ready")

    box.send("\x03")

    box.expect("interrupted")
    assert box.wait() == 130


def test_terminal_is_as_it_was_when_the_command_has_ended(
    terminal: Callable[..., Terminal], busybox_image: str
) -> None:
    box = terminal("run", OFFLINE, "--rm", "-it", busybox_image, "true")

    assert box.wait() == 0

    assert box.attributes() == box.attributes_before


def test_detach_keys_leave_the_container_running(
    terminal: Callable[..., Terminal], wherry: Cli, busybox_image: str
) -> None:
    box = terminal("run", OFFLINE, "-it", "--name", "box", busybox_image, "sh")
    box.expect("# ")

    box.send("\x10\x11")

    assert box.wait() == 0
    assert box.attributes() == box.attributes_before
    assert wherry("inspect", "-f", "{{.State.Running}}", "box").stdout == "true\n"


def test_exec_gets_a_terminal_of_its_own(
    terminal: Callable[..., Terminal], wherry: Cli, busybox_image: str
) -> None:
    wherry("run", OFFLINE, "-d", "--name", "box", busybox_image, "sleep", "1000")
    shell = terminal("exec", "-it", "box", "sh", rows=21, columns=77)
    shell.expect("# ")

    shell.send("stty size; exit 6\r")

    shell.expect("21 77")
    assert shell.wait() == 6


def test_without_a_terminal_it_is_refused(wherry: Cli, busybox_image: str) -> None:
    result = wherry("run", OFFLINE, "--rm", "-it", busybox_image, "true", check=False)

    assert result.returncode == 1
    assert "the input device is not a TTY" in result.stderr


def test_full_screen_program_draws(
    tmux: Callable[..., Tmux], wherry: Cli, busybox_image: str
) -> None:
    command = ("--name", "editor", "-it", busybox_image, "vi", "/tmp/note")
    editor = tmux("run", OFFLINE, *command, rows=15, columns=60)
    editor.expect("/tmp/note")

    editor.send("i", "hello from inside", "Escape")

    assert "hello from inside" in editor.expect("hello from inside").splitlines()[0]
    editor.send(":q!", "Enter")
    assert wherry("wait", "editor").stdout == "0\n"
