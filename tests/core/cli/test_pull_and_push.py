"""`pull` and `push` as they are typed."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support.registry import RegistryServer, make_image, registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Wherry = Callable[..., subprocess.CompletedProcess[str]]

__all__ = ["registry"]

pytestmark = pytest.mark.linux


@pytest.fixture
def wherry_here(tmp_path: Path) -> Wherry:
    """The command, with a world and a configuration of its own."""
    environment = {
        **os.environ,
        "WHERRY_ROOT": str(tmp_path / "root"),
        "DOCKER_CONFIG": str(tmp_path / "docker"),
        "XDG_RUNTIME_DIR": str(tmp_path / "runtime"),
    }

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "wherry", *argv],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )

    return run


def test_pull_tells_its_steps_on_stderr_and_the_name_on_stdout(
    registry: RegistryServer, wherry_here: Wherry
) -> None:
    image = make_image({"a": b"1"})
    registry.put_image("team/app", "1", image)
    layer = image.layers[0]["digest"].removeprefix("sha256:")[:12]

    result = wherry_here("pull", f"{registry.host}/team/app:1")

    assert (result.returncode, result.stdout) == (0, f"{registry.host}/team/app:1\n")
    assert result.stderr.splitlines() == [
        "1: Pulling from team/app",
        f"{layer}: Pulling fs layer",
        f"{layer}: Download complete",
        f"{layer}: Pull complete",
        f"Digest: {image.digest}",
        f"Status: Downloaded newer image for {registry.host}/team/app:1",
    ]


def test_quiet_pull_prints_the_name_alone(registry: RegistryServer, wherry_here: Wherry) -> None:
    registry.put_image("app", "latest", make_image({"a": b"1"}))

    result = wherry_here("pull", "-q", f"{registry.host}/app")

    assert (result.stdout, result.stderr) == (f"{registry.host}/app:latest\n", "")


def test_all_tags_are_pulled_and_pushed(registry: RegistryServer, wherry_here: Wherry) -> None:
    for tag in ("1", "2"):
        registry.put_image("app", tag, make_image({"tag": tag.encode()}))

    pulled = wherry_here("pull", "--all-tags", f"{registry.host}/app")
    for tag in ("1", "2"):
        wherry_here("tag", f"{registry.host}/app:{tag}", f"{registry.host}/copy:{tag}")
    pushed = wherry_here("push", "--all-tags", f"{registry.host}/copy")

    assert (pulled.returncode, pushed.returncode) == (0, 0)
    body = registry.request("GET", "/v2/copy/tags/list")[2]
    assert b'"1"' in body
    assert b'"2"' in body


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("app:nope", "manifest for {host}/app:nope not found: manifest unknown"),
        ("App", "invalid reference format: repository name (App) must be lowercase"),
    ],
)
def test_what_cannot_be_pulled_is_one_clear_line(
    registry: RegistryServer, wherry_here: Wherry, name: str, message: str
) -> None:
    result = wherry_here("pull", f"{registry.host}/{name}")

    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1] == f"wherry: {message.format(host=registry.host)}"
