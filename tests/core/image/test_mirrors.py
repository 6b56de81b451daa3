"""Mirrors that `certs.d/HOST/hosts.toml` names are asked before the registry itself."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING

import pytest

from support.pulling import Recorder
from support.registry import FlakyProxy, Mischief, make_image
from wherry.errors import CorruptState, WherryError
from wherry.image.pull import pull_image
from wherry.image.reference import parse_reference

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.registry import Asked, MemoryImage, RegistryServer
    from wherry.image.store import ImageStore

# Nobody answers there: what is pulled from it comes from a mirror.
NOWHERE = "registry.invalid"


@pytest.fixture
def image(registry: RegistryServer) -> MemoryImage:
    image = make_image({"a": os.urandom(300_000)})
    registry.put_image("app", "latest", image)
    return image


@pytest.fixture
def mirror(registry: RegistryServer) -> Iterator[FlakyProxy]:
    with FlakyProxy(registry.host) as proxy:
        yield proxy


def name_mirrors(world: Path, domain: str, text: str) -> None:
    directory = world / "docker" / "certs.d" / domain
    directory.mkdir(parents=True)
    (directory / "hosts.toml").write_text(text)


def pull(store: ImageStore, name: str) -> Recorder:
    progress = Recorder()
    pull_image(store, parse_reference(name), progress=progress)
    return progress


@pytest.mark.parametrize("named_for", [NOWHERE, "_default"])
def test_mirror_gives_everything(
    image: MemoryImage, mirror: FlakyProxy, store: ImageStore, own_world: Path, named_for: str
) -> None:
    name_mirrors(own_world, named_for, f'[host."http://{mirror.host}"]\n')

    pull(store, f"{NOWHERE}/app")

    assert store.find(f"{NOWHERE}/app").references == (f"{NOWHERE}/app:latest",)
    assert mirror.requests
    assert all(asked.path.endswith(f"?ns={NOWHERE}") for asked in mirror.requests)


def test_registry_is_asked_for_what_the_mirror_has_not(
    image: MemoryImage, mirror: FlakyProxy, flaky: FlakyProxy, store: ImageStore, own_world: Path
) -> None:
    name_mirrors(own_world, flaky.host, f'[host."http://{mirror.host}"]\n')
    mirror.mischief = lambda asked: Mischief(status=404) if "/blobs/" in asked.path else None

    pull(store, f"{flaky.host}/app")

    assert flaky.count("GET", "/blobs/") == len(image.blobs)
    assert flaky.count("GET", "/manifests/") == 0


def test_mirror_that_is_not_there_is_passed_over(
    image: MemoryImage, flaky: FlakyProxy, store: ImageStore, own_world: Path
) -> None:
    name_mirrors(own_world, flaky.host, '[host."http://127.0.0.1:1"]\n')

    pull(store, f"{flaky.host}/app")

    assert store.find(f"{flaky.host}/app")


def test_mirror_without_resolve_gives_content_only(
    image: MemoryImage, mirror: FlakyProxy, flaky: FlakyProxy, store: ImageStore, own_world: Path
) -> None:
    name_mirrors(own_world, flaky.host, f'[host."http://{mirror.host}"]\ncapabilities = ["pull"]\n')

    pull(store, f"{flaky.host}/app")

    assert mirror.count("HEAD", "") == mirror.count("GET", "/manifests/") == 0
    assert mirror.count("GET", "/blobs/") == len(image.blobs)


def test_wrong_content_of_a_mirror_is_replaced_by_the_registrys(
    image: MemoryImage, mirror: FlakyProxy, flaky: FlakyProxy, store: ImageStore, own_world: Path
) -> None:
    name_mirrors(own_world, flaky.host, f'[host."http://{mirror.host}"]\n')
    digest = image.layers[0]["digest"]

    def mischief(asked: Asked) -> Mischief | None:
        wrong = digest in asked.path
        return Mischief(change=lambda body: bytes(len(body))) if wrong else None

    mirror.mischief = mischief

    pull(store, f"{flaky.host}/app")

    assert store.read_blob(digest) == image.blobs[digest]
    assert flaky.count("GET", digest) == 1


def test_credentials_of_the_registry_are_not_for_its_mirror(
    image: MemoryImage, mirror: FlakyProxy, flaky: FlakyProxy, store: ImageStore, own_world: Path
) -> None:
    name_mirrors(own_world, flaky.host, f'[host."http://{mirror.host}"]\n')
    auth = base64.b64encode(b"jane:secret").decode()
    (own_world / "docker" / "config.json").write_text(
        json.dumps({"auths": {flaky.host: {"auth": auth}}})
    )
    asks = {"WWW-Authenticate": 'Basic realm="here"'}
    mirror.mischief = lambda asked: Mischief(status=401, headers=asks)

    pull(store, f"{flaky.host}/app")

    assert mirror.requests
    assert all("Authorization" not in asked.headers for asked in mirror.requests)


def test_mirror_below_a_path_with_a_header_of_its_own(
    image: MemoryImage, mirror: FlakyProxy, store: ImageStore, own_world: Path
) -> None:
    url = f"http://{mirror.host}/v2"
    name_mirrors(
        own_world,
        NOWHERE,
        f'[host."{url}"]\noverride_path = true\n[host."{url}".header]\nX-Key = "open"\n',
    )

    pull(store, f"{NOWHERE}/app")

    assert {asked.headers.get("X-Key") for asked in mirror.requests} == {"open"}


def test_server_takes_the_registrys_place(
    image: MemoryImage, mirror: FlakyProxy, store: ImageStore, own_world: Path
) -> None:
    name_mirrors(own_world, NOWHERE, f'server = "http://{mirror.host}"\n')

    pull(store, f"{NOWHERE}/app")

    assert mirror.requests


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[host", "hosts.toml: "),
        ('[host."ftp://mirror"]', "is no registry's URL"),
        ('[host."https://mirror"]\nclient = "/a"', "'client' of https://mirror is not supported"),
        ('[host."https://mirror"]\ncapabilities = ["fly"]', "unknown capability 'fly'"),
        ("host = 3", "hosts.toml: "),
    ],
)
def test_file_that_is_wrong_is_one_clear_error(
    store: ImageStore, own_world: Path, text: str, reason: str
) -> None:
    name_mirrors(own_world, NOWHERE, text)

    with pytest.raises(CorruptState) as refused:
        pull(store, f"{NOWHERE}/app")

    assert reason in str(refused.value)


def test_image_that_nobody_has_is_the_registrys_error(
    image: MemoryImage, mirror: FlakyProxy, flaky: FlakyProxy, store: ImageStore, own_world: Path
) -> None:
    name_mirrors(own_world, flaky.host, f'[host."http://{mirror.host}"]\n')

    with pytest.raises(WherryError) as refused:
        pull(store, f"{flaky.host}/app:none")

    assert str(refused.value) == f"manifest for {flaky.host}/app:none not found: manifest unknown"
