"""Help pages and completion, made by click from our declarations."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from wherry.cli import main as cli
from wherry.cli.clickify import completion_script, print_help
from wherry.container.store import Container, ContainerStore

if TYPE_CHECKING:
    from collections.abc import Iterator

CORE = Path(__file__).parents[3] / "core"


def every_command(table: cli.Table, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, entry in table.items():
        if isinstance(entry, dict):
            yield from every_command(entry, (*path, name))
        else:
            yield (*path, name)


@pytest.mark.parametrize("words", list(every_command(cli.COMMANDS)), ids=" ".join)
def test_a_command_is_found_by_the_words_in_which_it_is_said_again(words: tuple[str, ...]) -> None:
    entry = cli.find_entry(words)
    assert isinstance(entry, str)
    declaration = cli.load(entry)

    found = cli.find_command([*declaration.path, "x", "x"])

    assert found is not None
    assert found[1:] == (declaration, ["x", "x"])


@pytest.mark.parametrize("words", list(every_command(cli.COMMANDS)), ids=" ".join)
def test_every_command_has_a_page_and_a_working_declaration(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    entry = cli.find_entry(words)
    assert isinstance(entry, str)
    declaration = cli.load(entry)
    accepted = declaration.function.__code__.co_varnames
    takes_any = bool(declaration.function.__code__.co_flags & 0x08)

    print_help(words)

    page = capsys.readouterr().out
    assert page.startswith(f"Usage:  wherry {' '.join(words)}")
    assert declaration.summary
    assert all(not each.help.endswith(".") for each in declaration.options)
    assert all(each.help for each in declaration.options if not each.hidden)
    given = {each.name for each in declaration.options}
    given |= {each.name for each in declaration.arguments}
    assert takes_any or given == set(accepted[: declaration.function.__code__.co_argcount])


@pytest.mark.parametrize("group", sorted(cli.GROUPS))
def test_every_group_lists_its_commands(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_help(group.split())

    page = capsys.readouterr().out
    assert page.startswith(f"Usage:  wherry {group} COMMAND\n\n{cli.GROUPS[group]}\n\nCommands:\n")


def test_the_main_page_begins_with_what_is_used_most(capsys: pytest.CaptureFixture[str]) -> None:
    print_help(())

    page = capsys.readouterr().out
    assert page.index("Common Commands:") < page.index("Management Commands:")
    assert page.index("  run ") < page.index("  exec ") < page.index("  container ")
    assert "Global Options:" in page


def test_a_page_is_laid_out_as_dockers(capsys: pytest.CaptureFixture[str]) -> None:
    print_help(("kill",))

    assert "Aliases:\n  wherry container kill, wherry kill\n" in (page := capsys.readouterr().out)
    assert '  -s, --signal string   Signal to send to the container (default "KILL")\n' in page


def test_options_are_sorted_by_their_long_name(capsys: pytest.CaptureFixture[str]) -> None:
    print_help(("run",))

    page = capsys.readouterr().out.partition("\nOptions:\n")[2].partition("\nExamples:")[0]
    names = re.findall(r"^  (?:-\w,|   ) (--[\w-]+)", page, re.MULTILINE)
    assert len(names) > 100
    assert names == sorted(names)


def _examples(table: cli.Table) -> Iterator[str]:
    for entry in table.values():
        if isinstance(entry, dict):
            yield from _examples(entry)
        else:
            yield from re.findall(r"[$|] wherry (.*)", cli.load(entry).examples)


@pytest.mark.parametrize("line", sorted(set(_examples(cli.COMMANDS))))
def test_an_example_is_one_that_can_be_typed(line: str) -> None:
    # What another command prints, what follows in a pipe, and what is said of it beside.
    line = re.split(r" {2,}| [|<>&]", re.sub(r"\$\([^)]*\)", "x", line))[0]
    found = cli.find_command(shlex.split(line))

    assert found is not None
    spelled, declaration, rest = found
    assert declaration.parse(rest, spelled)


@pytest.mark.parametrize("shell", ["zsh", "fish", "powershell"])
def test_a_shell_gets_a_script(shell: str) -> None:
    assert "_WHERRY_COMPLETE" in completion_script(shell)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("wherry vol", {"volume"}),
        ("wherry volume ins", {"inspect"}),
        ("wherry run --health-on-failure ", {"none", "kill", "restart", "stop"}),
        ("wherry run --read-only", {"--read-only", "--read-only-tmpfs"}),
    ],
)
def test_words_are_completed(words: str, expected: set[str]) -> None:
    assert complete(words) == expected


def test_powershell_is_told_three_lines_for_a_word() -> None:
    assert "-CommandName wherry " in completion_script("powershell")
    told = asked("wherry volume ins", "powershell").splitlines()

    assert told[:2] == ["plain", "inspect"]
    assert told[2].startswith("Display detailed information")


def complete(words: str) -> set[str]:
    """What a bash would be told."""
    return {line.partition(",")[2] for line in asked(words, "bash").splitlines() if line}


def asked(words: str, shell: str) -> str:
    """The answer to the question that `shell` asks about `words`."""
    typed = words.split(" ")
    result = subprocess.run(
        [sys.executable, "-m", "wherry"],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                str(CORE.parent / name) for name in ("core", "linux_backend", "vmimage")
            ),
            "_WHERRY_COMPLETE": f"{shell}_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(typed) - 1),
        },
        check=False,
    )
    return result.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="other systems ask a machine")
def test_names_of_containers_and_images_are_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHERRY_ROOT", str(tmp_path))
    monkeypatch.delenv("WHERRY_BACKEND", raising=False)
    store = ContainerStore()
    for number, name in enumerate(("web", "worker", "db")):
        container_id = str(number) * 64
        store.make(container_id)
        record = {
            "Id": container_id,
            "Name": name,
            "Created": "2024-01-01T00:00:00Z",
            "Image": "",
            "Body": {"HostConfig": {}},
            "Mounts": [],
        }
        Container(container_id, record).write_record()

    assert complete("wherry stop w") == {"web", "worker"}
    assert complete("wherry stop web w") == {"worker"}
    assert complete("wherry rmi x") == set()
