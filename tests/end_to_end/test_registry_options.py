"""How a registry is asked: --retry, --retry-delay, --creds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.registry import FlakyProxy, Mischief, RegistryServer, flaky, make_image, registry
from support.settings import as_root

if TYPE_CHECKING:
    from support.cli import Cli

__all__ = ["flaky", "registry"]

pytestmark = as_root


@pytest.mark.parametrize("command", ["pull", "run"])
@pytest.mark.parametrize(("retries", "asked"), [("0", 1), ("2", 3)])
def test_failed_pull_is_tried_again_as_often_as_asked(
    wherry: Cli, flaky: FlakyProxy, command: str, retries: str, asked: int
) -> None:
    flaky.mischief = lambda asked: Mischief(status=503) if "/manifests/" in asked.path else None

    result = wherry(
        command, "--retry", retries, "--retry-delay", "10ms", f"{flaky.host}/app", check=False
    )

    assert result.returncode == (1 if command == "pull" else 125)
    assert result.stderr.splitlines()[-1].endswith(f"{flaky.host} answered 503")
    assert flaky.count("HEAD", "/manifests/") == asked


def test_credentials_without_a_password_are_refused(wherry: Cli) -> None:
    result = wherry("pull", "--creds", "jane", "127.0.0.1:1/app", check=False)

    assert (result.returncode, result.stderr) == (1, "wherry: --creds wants USER:PASSWORD\n")


def test_retries_cannot_be_negative(wherry: Cli) -> None:
    result = wherry("pull", "--retry=-1", "127.0.0.1:1/app", check=False)

    assert result.returncode == 1
    assert "cannot be negative" in result.stderr


def test_pull_with_options_says_what_the_registry_warns_of(
    wherry: Cli, registry: RegistryServer, flaky: FlakyProxy
) -> None:
    registry.put_image("app", "latest", make_image({"a": b"1"}))
    flaky.mischief = lambda asked: Mischief(headers={"Warning": '299 - "moving on Monday"'})

    result = wherry("pull", "--creds", "jane:secret", f"{flaky.host}/app")

    assert f"{flaky.host} warns: moving on Monday" in result.stderr


@pytest.mark.parametrize("port", ["0", "99999", "1" * 5000], ids=len)
def test_port_that_is_none_is_not_tried(wherry: Cli, port: str) -> None:
    result = wherry("pull", "-q", f"localhost:{port}/x", check=False)

    assert result.returncode == 1
    assert result.stderr == f"wherry: invalid registry localhost:{port}: {port} is no port\n"
