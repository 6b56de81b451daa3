"""Building images in a test: a context, and `build(text, …)`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from support.cli import Cli, Result

    Build = Callable[..., Result]

NO_NETWORK = "--network=none"


@pytest.fixture
def context(host_dir: str) -> Path:
    """A directory with a few files, to be built from."""
    directory = Path(host_dir) / "context"
    (directory / "sub" / "deep").mkdir(parents=True)
    (directory / "hello").write_text("hello\n")
    (directory / "sub" / "one").write_text("one\n")
    (directory / "sub" / "deep" / "two").write_text("two\n")
    return directory


@pytest.fixture
def build(wherry: Cli, busybox_image: str, context: Path) -> Build:
    """`build(text, "-t", "x", …)` of a Dockerfile with this text; `FROM busybox` is there."""

    def run(
        text: str, *options: str, check: bool = True, env: Mapping[str, str] | None = None
    ) -> Result:
        (context / "Dockerfile").write_text(text.replace("busybox", busybox_image))
        words = ("build", NO_NETWORK, *options, str(context))
        return wherry(*words, check=check, timeout=120, env=env)

    return run


def inspect(wherry: Cli, image: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(wherry("image", "inspect", image).stdout)[0]
    return found


def run(wherry: Cli, image: str, *command: str, check: bool = True) -> str:
    return wherry("run", "--rm", NO_NETWORK, image, *command, check=check).stdout
