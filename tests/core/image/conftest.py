"""Fixtures of the tests that talk to a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.registry import flaky, registry

if TYPE_CHECKING:
    from pathlib import Path

    from wherry.image.store import ImageStore

__all__ = ["flaky", "registry"]


@pytest.fixture
def own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A WHERRY_ROOT and a configuration of this test's own, and no proxies."""
    monkeypatch.setenv("WHERRY_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    return tmp_path


@pytest.fixture
def store(own_world: Path) -> ImageStore:
    """The image store of `own_world`, empty."""
    from wherry.image.store import ImageStore

    return ImageStore()
