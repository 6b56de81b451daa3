"""Which proxy a registry is reached through."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from support.pulling import hasty_registry
from wherry.errors import RegistryError
from wherry.image.transport import bypasses_proxy, is_loopback, proxy_for

if TYPE_CHECKING:
    from pathlib import Path

    from support.registry import FlakyProxy

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("host", "no_proxy", "bypassed"),
    [
        ("quay.io", "", False),
        ("quay.io", "*", True),
        ("quay.io", "quay.io", True),
        ("cdn.quay.io", "quay.io", True),
        ("cdn.quay.io", ".quay.io", True),
        ("cdn.quay.io", "*.quay.io", True),
        ("notquay.io", "quay.io", False),
        ("quay.io", "example.com, quay.io", True),
        ("quay.io", "quay.io:443", True),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("fd00::1", "fd00::/8", True),
    ],
)
def test_no_proxy_names_hosts_domains_and_networks(
    host: str, no_proxy: str, bypassed: bool
) -> None:
    assert bypasses_proxy(host, no_proxy) is bypassed


def test_proxy_is_chosen_by_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://secure:3128")
    monkeypatch.setenv("ALL_PROXY", "socks5://any:1080")

    assert proxy_for("https", "quay.io") == "http://secure:3128"
    assert proxy_for("http", "quay.io:5000") == "socks5://any:1080"


def test_proxy_may_be_written_without_a_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "proxy:3128")

    assert proxy_for("https", "quay.io") == "http://proxy:3128"


def test_this_machine_is_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://secure:3128")

    assert proxy_for("https", "localhost:5000") is None
    assert proxy_for("https", "127.0.0.1:5000") is None
    assert proxy_for("https", "[::1]:5000") is None


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.8.8.8:1", True),
        ("[::1]", True),
        ("localhost.example.com", False),
        ("10.0.0.1", False),
        ("127.0.0.1.example.com", False),
    ],
)
def test_loopback_is_told_from_other_hosts(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_registry_is_asked_through_the_proxy_that_the_environment_names(
    flaky: FlakyProxy, own_world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_world / "docker").mkdir()
    (own_world / "docker" / "config.json").write_text(
        json.dumps({"insecure-registries": ["registry.invalid:5000"]})
    )
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://jane:p%40ss@{flaky.host}")

    hasty_registry("registry.invalid:5000").check_access()

    [asked] = [asked for asked in flaky.requests if asked.method == "GET"]
    assert asked.path == "http://registry.invalid:5000/v2/"
    pair = base64.b64encode(b"jane:p@ss").decode()
    assert asked.headers["Proxy-Authorization"] == f"Basic {pair}"


def test_proxy_that_is_not_there_is_named_as_the_cause(
    own_world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")

    with pytest.raises(RegistryError, match=r"through the proxy: .*refused"):
        hasty_registry("registry.invalid").check_access()
