"""Proxies of the host, as the guest reaches them."""

from __future__ import annotations

import pytest

from wherry_vm.surroundings.proxies import as_seen_by_guest, of_environment, of_settings


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("http://127.0.0.1:3128", "http://10.0.2.2:3128"),
        ("http://localhost:3128/", "http://10.0.2.2:3128/"),
        ("localhost:3128", "http://10.0.2.2:3128"),
        ("socks5://[::1]:1080", "socks5://10.0.2.2:1080"),
        ("http://me:p%40ss@127.0.0.1:80", "http://me:p%40ss@10.0.2.2:80"),
        ("http://proxy.example:3128", "http://proxy.example:3128"),
        ("proxy.example:3128", "proxy.example:3128"),
        ("http://[:1", "http://[:1"),
        ("http://localhost:port", "http://localhost:port"),
    ],
)
def test_a_proxy_on_loopback_is_the_hosts(here: str, there: str) -> None:
    assert as_seen_by_guest(here) == there


def test_a_command_brings_its_proxies_along_as_they_are_spelled() -> None:
    variables = {
        "HTTPS_PROXY": "http://localhost:1", "http_proxy": "http://p:2", "NO_PROXY": "localhost,.x",
        "HOME": "/root", "ALL_PROXY": "",
    }  # fmt: skip

    assert of_environment(variables) == {
        "HTTPS_PROXY": "http://10.0.2.2:1",
        "http_proxy": "http://p:2",
        "NO_PROXY": "localhost,.x",
    }


def test_settings_of_a_system_become_variables() -> None:
    found = of_settings(
        {"http": "http://127.0.0.1:8080", "https": "http://p:3128", "gopher": "http://old:70"},
        ("*.local", "169.254/16"),
    )

    assert found == {
        "http_proxy": "http://10.0.2.2:8080",
        "https_proxy": "http://p:3128",
        "no_proxy": "*.local,169.254/16",
    }
    assert of_settings({}, ("*.local",)) == {}
    assert of_settings({"socks": "http://p:1080"}, ()) == {"all_proxy": "socks5://p:1080"}
