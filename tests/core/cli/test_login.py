"""`login`, `logout` and `search`, against a real registry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support.registry import FlakyProxy, Mischief, RegistryServer, make_image
from support.requirements import need_tool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USER, PASSWORD = "jane", "correct horse"


class Command:
    """The command `wherry` with a configuration of its own."""

    def __init__(self, directory: Path) -> None:
        self.config = directory / "docker" / "config.json"
        self._environment = {
            **os.environ,
            "DOCKER_CONFIG": str(self.config.parent),
            "WHERRY_ROOT": str(directory / "root"),
            "XDG_RUNTIME_DIR": str(directory / "runtime"),
        }

    def __call__(self, *argv: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "wherry", *argv],
            input=given,
            capture_output=True,
            text=True,
            env=self._environment,
            check=False,
        )


@pytest.fixture
def wherry_here(tmp_path: Path) -> Command:
    return Command(tmp_path)


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    """A registry that knows one user."""
    need_tool("docker-registry")
    with RegistryServer(users={USER: PASSWORD}) as server:
        server.put_image("team/app", "latest", make_image({"a": b"1"}))
        yield server


def test_login_keeps_what_the_registry_accepts(
    server: RegistryServer, wherry_here: Command
) -> None:
    result = wherry_here(
        "login", "-u", USER, "--password-stdin", server.host, given=f"{PASSWORD}\n"
    )

    assert (result.returncode, result.stdout) == (0, "Login Succeeded\n")
    assert f"WARNING! Your credentials are stored unencrypted in '{wherry_here.config}'" in (
        result.stderr
    )
    assert list(json.loads(wherry_here.config.read_text())["auths"]) == [server.host]


def test_login_with_known_credentials_asks_for_none(
    server: RegistryServer, wherry_here: Command
) -> None:
    wherry_here("login", "-u", USER, "--password-stdin", server.host, given=PASSWORD)

    result = wherry_here("login", f"https://{server.host}/v2/")

    assert result.returncode == 0
    assert f"Authenticating with existing credentials... [Username: {USER}]" in result.stdout


def test_password_on_the_command_line_is_warned_of(
    server: RegistryServer, wherry_here: Command
) -> None:
    result = wherry_here("login", "-u", USER, "-p", PASSWORD, server.host)

    assert result.returncode == 0
    assert "WARNING! Using --password via the CLI is insecure." in result.stderr


def test_wrong_password_is_refused_and_not_kept(
    server: RegistryServer, wherry_here: Command
) -> None:
    result = wherry_here("login", "-u", USER, "--password-stdin", server.host, given="wrong")

    assert result.returncode == 1
    assert "incorrect username or password" in result.stderr
    assert not wherry_here.config.exists()


@pytest.mark.parametrize(
    ("argv", "given", "message"),
    [
        (("--password-stdin",), "x", "the --password-stdin option requires --username to be set"),
        (("-u", "a", "-p", "b", "--password-stdin"), "x", "mutually exclusive"),
        (("-u", "a", "--password-stdin"), "", "password is empty"),
        (("-u", "a"), "", "cannot perform an interactive login from a non TTY device"),
    ],
)
def test_login_that_lacks_something_says_what(
    wherry_here: Command, argv: tuple[str, ...], given: str, message: str
) -> None:
    result = wherry_here("login", *argv, "127.0.0.1:1", given=given)

    assert result.returncode != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_login_to_what_is_no_registry_fails(server: RegistryServer, wherry_here: Command) -> None:
    with FlakyProxy(server.host, lambda asked: Mischief(status=404)) as proxy:
        result = wherry_here("login", "-u", "a", "-p", "b", proxy.host)

    assert result.returncode == 1
    assert f"{proxy.host} is not a registry" in result.stderr


def test_logout_forgets_the_credentials(server: RegistryServer, wherry_here: Command) -> None:
    wherry_here("login", "-u", USER, "--password-stdin", server.host, given=PASSWORD)

    first, second = wherry_here("logout", server.host), wherry_here("logout", server.host)

    assert first.stdout == f"Removing login credentials for {server.host}\n"
    assert second.stdout == f"Not logged in to {server.host}\n"
    assert json.loads(wherry_here.config.read_text())["auths"] == {}


def test_search_reads_the_catalog_of_a_registry_without_search(
    server: RegistryServer, wherry_here: Command
) -> None:
    wherry_here("login", "-u", USER, "--password-stdin", server.host, given=PASSWORD)

    result = wherry_here("search", "--format", "{{.Name}}", f"{server.host}/APP")

    assert result.stdout == f"{server.host}/team/app\n"


def test_search_shows_what_the_registry_finds(server: RegistryServer, wherry_here: Command) -> None:
    results = [
        {"name": "nginx", "description": "x" * 60, "star_count": 9, "is_official": True},
        {"name": "me/nginx", "description": "mine", "star_count": 1, "is_official": False},
    ]
    body = json.dumps({"results": results}).encode()
    with FlakyProxy(server.host, lambda asked: Mischief(status=200, body=body)) as proxy:
        everything = wherry_here("search", f"{proxy.host}/nginx").stdout.splitlines()
        official = wherry_here("search", "-f", "is-official=true", f"{proxy.host}/nginx").stdout

    assert everything[0].split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]
    assert everything[1].split() == ["nginx", "x" * 44 + "…", "9", "[OK]"]
    assert everything[2].split() == ["me/nginx", "mine", "1"]
    assert "me/nginx" not in official


def test_search_beyond_its_limit_is_refused(wherry_here: Command) -> None:
    result = wherry_here("search", "--limit", "101", "127.0.0.1:1/x")

    assert "limit 101 is outside the range of [1, 100]" in result.stderr
