"""docker's config.json is read, and changed without losing what others wrote there."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from wherry.config_file import ConfigFile
from wherry.errors import CorruptState
from wherry.image.auth import (
    Credentials,
    erase_credentials,
    find_credentials,
    store_credentials,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where config.json is, or would be."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    return tmp_path / "docker" / "config.json"


def write(file: Path, content: object) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


def test_absent_file_says_nothing(file: Path) -> None:
    config = ConfigFile()

    assert config.section("auths") == {}
    assert config.proxy_environment() == {}
    assert find_credentials(config, "docker.io") is None


@pytest.mark.parametrize("content", ["{", "[]", '"x"'])
def test_damaged_file_is_named(file: Path, content: str) -> None:
    write(file, content)

    with pytest.raises(CorruptState, match=str(file)):
        ConfigFile()


def test_stored_credentials_are_found_and_the_rest_of_the_file_is_kept(file: Path) -> None:
    write(file, {"psFormat": "table {{.ID}}", "unknown": {"é": [1]}})

    place = store_credentials(
        ConfigFile(), "docker.io", Credentials(username="jane", password="a:b")
    )

    assert place == str(file)
    found = find_credentials(ConfigFile(), "docker.io")
    assert found == Credentials(username="jane", password="a:b")
    # docker's own formatting: tabs, no escapes, no newline at the end.
    assert file.read_text() == (
        '{\n\t"psFormat": "table {{.ID}}",\n\t"unknown": {\n\t\t"é": [\n\t\t\t1\n\t\t]\n\t},\n'
        '\t"auths": {\n\t\t"https://index.docker.io/v1/": {\n\t\t\t"auth": "amFuZTphOmI="\n'
        "\t\t}\n\t}\n}"
    )


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_file_with_credentials_is_private(file: Path) -> None:
    write(file, {})
    file.chmod(0o644)

    store_credentials(ConfigFile(), "quay.io", Credentials(username="a", password="b"))

    assert file.stat().st_mode & 0o777 == 0o600
    assert os.listdir(file.parent) == ["config.json"]


@pytest.mark.skipif(os.name == "nt", reason="symbolic links")
def test_linked_file_stays_a_link(file: Path, tmp_path: Path) -> None:
    write(file, {})
    file.rename(tmp_path / "dotfile")
    file.symlink_to(tmp_path / "dotfile")

    store_credentials(ConfigFile(), "quay.io", Credentials(username="a", password="b"))

    assert file.is_symlink()
    assert "quay.io" in (tmp_path / "dotfile").read_text()


def test_identity_token_is_kept_instead_of_the_password(file: Path) -> None:
    store_credentials(ConfigFile(), "quay.io", Credentials(username="a", identity_token="t"))

    found = find_credentials(ConfigFile(), "quay.io")
    assert found == Credentials(username="a", identity_token="t")


def test_erased_credentials_are_gone_under_old_keys_too(file: Path) -> None:
    write(
        file,
        {"auths": {"https://quay.io/v1/": {"auth": "YTpi"}, "ghcr.io": {"auth": "YTpi"}}},
    )

    assert erase_credentials(ConfigFile(), "quay.io")
    assert not erase_credentials(ConfigFile(), "quay.io")

    assert list(ConfigFile().section("auths")) == ["ghcr.io"]


@pytest.mark.parametrize("auth", ["!!!", "bm9jb2xvbg=="])
def test_damaged_credentials_are_an_error_with_what_to_do(file: Path, auth: str) -> None:
    write(file, {"auths": {"quay.io": {"auth": auth}}})

    with pytest.raises(CorruptState, match=r"quay\.io"):
        find_credentials(ConfigFile(), "quay.io")


def test_proxies_become_variables_in_both_spellings(file: Path) -> None:
    write(
        file,
        {"proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "x", "allProxy": ""}}},
    )

    assert ConfigFile().proxy_environment() == {
        "HTTP_PROXY": "http://p:1",
        "http_proxy": "http://p:1",
        "NO_PROXY": "x",
        "no_proxy": "x",
    }
