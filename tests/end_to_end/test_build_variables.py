"""Arguments and variables of a build: who knows which, as with docker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.building import build, context, inspect, run

if TYPE_CHECKING:
    from support.building import Build
    from support.cli import Cli

__all__ = ["build", "context"]


def test_a_stage_knows_the_arguments_of_the_stage_that_it_begins_with(
    wherry: Cli, build: Build
) -> None:
    build(
        """
        ARG GLOBAL=g
        FROM busybox AS one
        ARG GLOBAL
        ARG OWN=o
        FROM one AS two
        RUN echo "$GLOBAL $OWN" > /known
        FROM busybox
        COPY --from=two /known /
        RUN echo "[$GLOBAL$OWN]" > /unknown
        """,
        *("-t", "made"),
    )

    assert run(wherry, "made", "cat", "/known", "/unknown") == "g o\n[]\n"


def test_of_an_argument_and_a_variable_the_later_counts(wherry: Cli, build: Build) -> None:
    build(
        """
        FROM busybox
        ARG A=argument
        ENV A=variable
        RUN echo $A > /first
        ARG A=again
        RUN echo $A > /second
        """,
        *("-t", "made", "--build-arg", "A=given"),
    )

    assert run(wherry, "made", "cat", "/first", "/second") == "variable\ngiven\n"
    config = inspect(wherry, "made")["Config"]
    assert isinstance(config, dict)
    assert "A=variable" in config["Env"]


def test_proxies_are_known_in_both_spellings_and_told_nowhere(wherry: Cli, build: Build) -> None:
    build(
        'FROM busybox\nRUN echo "$HTTP_PROXY $http_proxy $NO_PROXY $no_proxy" > /out\n',
        *("-t", "made", "--build-arg", "HTTP_PROXY=http://a"),
        *("--build-arg", "no_proxy=b", "--build-arg", "NO_PROXY=c"),
    )

    assert run(wherry, "made", "cat", "/out") == "http://a http://a c b\n"
    assert "http://a" not in wherry("history", "--no-trunc", "made").stdout


def test_the_port_of_the_host_in_expose_does_not_count(wherry: Cli, build: Build) -> None:
    said = build("FROM busybox\nEXPOSE 8080:80 127.0.0.1:53:5353/udp\n", "-t", "made").stderr

    config = inspect(wherry, "made")["Config"]
    assert isinstance(config, dict)
    assert set(config["ExposedPorts"]) == {"80/tcp", "5353/udp"}
    assert "ExposeInvalidFormat" in said
