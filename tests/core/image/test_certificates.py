"""Which certificates of a registry are trusted."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from support.certificates import Authority
from support.pulling import hasty_registry, pull
from support.registry import RegistryServer, make_image
from support.requirements import need_tool
from wherry.errors import RegistryError
from wherry.image.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from wherry.image.store import ImageStore


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def tls_registry(authority: Authority) -> Iterator[RegistryServer]:
    need_tool("docker-registry")
    with RegistryServer(certificate=authority.issue()) as server:
        server.put_image("app", "latest", make_image({"a": b"1"}))
        yield server


def trust(world: Path, host: str, authority: Authority) -> Path:
    directory = world / "docker" / "certs.d" / host
    directory.mkdir(parents=True)
    (directory / "ca.crt").write_bytes(authority.certificate.read_bytes())
    return directory


def test_authority_in_certs_d_is_trusted(
    tls_registry: RegistryServer, authority: Authority, store: ImageStore, own_world: Path
) -> None:
    trust(own_world, tls_registry.host, authority)

    pull(store, f"{tls_registry.host}/app")

    assert store.find(f"{tls_registry.host}/app")


def test_certificate_of_another_authority_is_refused_with_where_to_put_its_own(
    tls_registry: RegistryServer, store: ImageStore, own_world: Path
) -> None:
    directory = trust(own_world, tls_registry.host, Authority(own_world / "other"))

    with pytest.raises(RegistryError, match="certificate") as refused:
        pull(store, f"{tls_registry.host}/app")

    assert str(directory) in str(refused.value.hint)


def test_loopback_needs_no_certificate_to_be_trusted(
    tls_registry: RegistryServer, store: ImageStore
) -> None:
    pull(store, f"{tls_registry.host}/app")

    assert store.find(f"{tls_registry.host}/app")


def test_client_certificate_without_its_key_is_an_error(
    tls_registry: RegistryServer, authority: Authority, own_world: Path
) -> None:
    directory = trust(own_world, tls_registry.host, authority)
    os.rename(authority.issue("client")[0], directory / "client.cert")

    with pytest.raises(RegistryError, match=r"missing key .*client.key"):
        hasty_registry(tls_registry.host).check_access()


def test_plain_http_is_for_loopback_and_what_is_named_insecure() -> None:
    transport = Transport(insecure=frozenset(("registry.example:5000",)))

    assert transport.is_insecure("127.0.0.1:5000")
    assert transport.is_insecure("registry.example:5000")
    assert not transport.is_insecure("registry.example")
