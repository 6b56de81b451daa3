"""docker's grammar of a command line, as the declarations of wherry.cli.grammar read it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.cli.clickify import click_command
from wherry.cli.grammar import Declaration, argument, command, option
from wherry.errors import UsageError

OPTIONS = (
    option("-d", "--detach", type=bool),
    option("-i", "--interactive", type=bool),
    option("-t", "--tty", type=bool),
    option("--sig-proxy", type=bool, default=True),
    option("--init", type=bool, default=None),
    option("-e", "--env", multiple=True),
    option("-p", "--publish", multiple=True),
    option("--name"),
    option("-s", "--stop-timeout", type=int, default=None),
    option("--explain", bare="text", choices=("text", "json")),
    option("-v", "--verbose", count=True),
    option("--network", multiple=True, aliases=("--net",)),
)


def declare(**settings: Any) -> Declaration:
    @command(
        *OPTIONS,
        argument("image"),
        argument("command", nargs=-1, required=False),
        name="run",
        **settings,
    )
    def run(**values: Any) -> int:
        """Run it"""
        return 0

    return run


RUN = declare(interspersed=False)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("busybox", {}),
        ("-it busybox", {"interactive": True, "tty": True}),
        ("-itd busybox", {"interactive": True, "tty": True, "detach": True}),
        ("--tty=false busybox", {"tty": False}),
        ("--tty=1 busybox", {"tty": True}),
        ("-t=f busybox", {"tty": False}),
        ("--sig-proxy=false busybox", {"sig_proxy": False}),
        ("--init busybox", {"init": True}),
        ("--init=0 busybox", {"init": False}),
        ("--name web busybox", {"name": "web"}),
        ("--name=web busybox", {"name": "web"}),
        ("--name= busybox", {"name": ""}),
        ("--name --tty busybox", {"name": "--tty"}),
        ("-p80:80 busybox", {"publish": ("80:80",)}),
        ("-p=80:80 busybox", {"publish": ("80:80",)}),
        ("-p 80:80 -p 81:81 busybox", {"publish": ("80:80", "81:81")}),
        ("-itp80:80 busybox", {"interactive": True, "tty": True, "publish": ("80:80",)}),
        ("-itp 80:80 busybox", {"interactive": True, "tty": True, "publish": ("80:80",)}),
        ("-e=A=b busybox", {"env": ("A=b",)}),
        ("-eA=b busybox", {"env": ("A=b",)}),
        ("--env A=b=c busybox", {"env": ("A=b=c",)}),
        ("-s 0x10 busybox", {"stop_timeout": 16}),
        ("-s -1 busybox", {"stop_timeout": -1}),
        ("--explain busybox", {"explain": "text"}),
        ("--explain=json busybox", {"explain": "json"}),
        ("-vv busybox", {"verbose": 2}),
        ("--net none busybox", {"network": ("none",)}),
        ("--name a --name b busybox", {"name": "b"}),
    ],
)
def test_options_are_read_as_docker_reads_them(line: str, expected: dict[str, Any]) -> None:
    values = RUN.parse(line.split())

    assert values == {**RUN.defaults(), **expected, "image": "busybox", "command": ()}


def test_what_follows_the_first_argument_is_the_commands_own() -> None:
    values = RUN.parse(["-i", "busybox", "sh", "-c", "--tty", "--", "x"])

    assert values["command"] == ("sh", "-c", "--tty", "--", "x")
    assert values["tty"] is False


def test_two_dashes_end_the_options() -> None:
    values = RUN.parse(["-i", "--", "-busybox", "-t"])

    assert (values["image"], values["command"]) == ("-busybox", ("-t",))


def test_options_may_follow_arguments_where_that_is_declared() -> None:
    values = declare().parse(["busybox", "a", "-t", "b", "--name=x", "-", "c"])

    assert values["command"] == ("a", "b", "-", "c")
    assert (values["tty"], values["name"]) == (True, "x")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--foo busybox", "unknown flag: --foo"),
        ("-x busybox", "unknown shorthand flag: 'x' in -x"),
        ("-itx busybox", "unknown shorthand flag: 'x' in -itx"),
        ("--name", "flag needs an argument: --name"),
        ("-ip", "flag needs an argument: 'p' in -ip"),
        ("--=x busybox", "bad flag syntax: --=x"),
        (
            "--tty=maybe busybox",
            'invalid argument "maybe" for "-t, --tty" flag: must be true or false',
        ),
        (
            "-s x busybox",
            'invalid argument "x" for "-s, --stop-timeout" flag: must be a whole number: \'x\'',
        ),
        (
            "--explain=xml busybox",
            'invalid argument "xml" for "--explain" flag: must be one of text, json',
        ),
    ],
)
def test_a_wrong_option_is_told_in_dockers_words(line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        RUN.parse(line.split())

    assert caught.value.message == message
    assert caught.value.exit_code == 125
    assert "See 'wherry run --help'." in str(caught.value.hint)


def test_a_misspelled_option_is_guessed() -> None:
    with pytest.raises(UsageError) as caught:
        RUN.parse(["--detatch", "busybox"])

    assert caught.value.hint == "Did you mean --detach? See 'wherry run --help'."


@pytest.mark.parametrize(
    ("arguments", "words", "told"),
    [
        ((argument("a"),), [], "requires 1 argument"),
        ((argument("a"), argument("b")), ["x"], "requires 2 arguments"),
        ((), ["x"], "accepts no arguments"),
        ((argument("a", nargs=-1),), [], "requires at least 1 argument"),
        (
            (argument("a"), argument("b", required=False)),
            ["x", "y", "z"],
            "requires at least 1 and at most 2 arguments",
        ),
        ((argument("a", required=False),), ["x", "y"], "requires at most 1 argument"),
    ],
)
def test_a_wrong_number_of_arguments_exits_with_1(
    arguments: tuple[Any, ...], words: list[str], told: str
) -> None:
    def function(**values: Any) -> int:
        return 0

    with pytest.raises(UsageError) as caught:
        command(*arguments, name="thing do")(function).parse(words)

    assert caught.value.message == f"'wherry thing do' {told}"
    assert caught.value.exit_code == 1


def test_the_environment_stands_in_for_an_absent_option(monkeypatch: pytest.MonkeyPatch) -> None:
    @command(option("--platform", env="TEST_PLATFORM", default="none"))
    def pull(**values: Any) -> int:
        return 0

    monkeypatch.setenv("TEST_PLATFORM", "linux/arm64")

    assert pull.parse([])["platform"] == "linux/arm64"
    assert pull.parse(["--platform=x"])["platform"] == "x"


def test_a_deprecated_option_works_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    @command(option("--time", type=int, deprecated="use --timeout"))
    def stop(**values: Any) -> int:
        return 0

    assert stop.parse(["--time", "5"]) == {"time": 5}
    assert "has been deprecated, use --timeout" in capsys.readouterr().err


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "detach": st.booleans(),
        "tty": st.booleans(),
        "sig_proxy": st.booleans(),
        "init": st.none() | st.booleans(),
        "env": st.lists(WORDS, max_size=3).map(tuple),
        "network": st.lists(WORDS, max_size=2).map(tuple),
        "name": WORDS,
        "stop_timeout": st.none() | st.integers(-5, 10**9),
        "explain": st.sampled_from(("", "text", "json")),
        "verbose": st.integers(0, 5),
    },
)


@pytest.mark.parametrize("interspersed", [True, False])
@given(options=VALUES, image=WORDS.filter(bool), words=st.lists(WORDS.filter(bool), max_size=4))
def test_argv_says_what_was_parsed(
    interspersed: bool, options: dict[str, Any], image: str, words: list[str]
) -> None:
    declaration = declare(interspersed=interspersed)
    values = {**declaration.defaults(), **options, "image": image, "command": tuple(words)}

    path, *argv = declaration.argv(**values)

    assert path == "run"
    assert declaration.parse(argv) == values


PIECES = st.one_of(
    st.sampled_from(
        [["-d"], ["-it"], ["-itd"], ["--tty"], ["--interactive"], ["-v"], ["-vv"], ["--verbose"]]
    ),
    st.tuples(st.sampled_from(["--name", "-e", "--env", "-p", "-ip", "--net"]), WORDS.filter(bool))
    .filter(lambda pair: not pair[1].startswith(("-", "=")))
    .map(list),
    st.tuples(st.sampled_from(["--name=", "--env=", "--network="]), WORDS).map(
        lambda pair: ["".join(pair)]
    ),
    st.integers(0, 1000).map(lambda number: ["-s", str(number)]),
)


@given(
    pieces=st.lists(PIECES, max_size=6),
    image=WORDS.filter(lambda word: word and not word.startswith("-")),
    words=st.lists(WORDS.filter(bool), max_size=4),
)
def test_click_reads_a_plain_line_to_the_same_values(
    pieces: list[list[str]], image: str, words: list[str]
) -> None:
    line = [*(word for piece in pieces for word in piece), image, *words]
    context = click_command(RUN, "run").make_context("run", list(line))

    assert context.params == RUN.parse(line)
