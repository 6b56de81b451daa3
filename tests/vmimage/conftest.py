"""Archives made by the tests, and a store to put images into."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.mirror import Mirror, SigningKey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cache and store of these tests lie in the test's own directory."""
    monkeypatch.setenv("WHERRY_ROOT", str(tmp_path / "wherry"))
    for name in ("WHERRY_DEBIAN_MIRROR", "WHERRY_DEBIAN_SECURITY_MIRROR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def signing_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SigningKey]:
    key = SigningKey(tmp_path_factory.mktemp("key"))
    yield key
    key.close()


@pytest.fixture(scope="session")
def other_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SigningKey]:
    key = SigningKey(tmp_path_factory.mktemp("other"))
    yield key
    key.close()


@pytest.fixture
def mirror(tmp_path: Path, signing_key: SigningKey) -> Mirror:
    """An empty archive, signed when it is published."""
    return Mirror(tmp_path / "mirror", signing_key)
