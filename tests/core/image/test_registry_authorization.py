"""A registry learns who we are when it asks, in the way it asks, and nobody else does."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from support.pulling import HASTY, pull
from support.registry import FlakyProxy, Mischief, RegistryServer, TokenServer, make_image
from support.requirements import need_tool
from wherry.errors import AccessDenied
from wherry.image.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.registry import Asked
    from wherry.image.store import ImageStore

USER, PASSWORD = "jane", "correct: horse"


@pytest.fixture
def closed_registry() -> Iterator[RegistryServer]:
    """A registry that knows one user, with an image at team/app:latest."""
    need_tool("docker-registry")
    with RegistryServer(users={USER: PASSWORD}) as server:
        server.put_image("team/app", "latest", make_image({"a": b"1"}, {"b": b"2"}))
        yield server


@pytest.fixture
def tokens() -> Iterator[TokenServer]:
    server = TokenServer(users={USER: PASSWORD}, refresh_tokens={"refresh-me"})
    yield server
    server.close()


@pytest.fixture
def token_registry(registry: RegistryServer, flaky: FlakyProxy, tokens: TokenServer) -> FlakyProxy:
    """A registry that wants tokens of `tokens`, with an image at team/app:latest."""
    registry.put_image("team/app", "latest", make_image({"a": b"1"}, {"b": b"2"}))
    flaky.mischief = lambda asked: refuse_without_token(asked, tokens)
    return flaky


def refuse_without_token(asked: Asked, tokens: TokenServer) -> Mischief | None:
    token = asked.headers.get("Authorization", "").removeprefix("Bearer ")
    if token in tokens.valid:
        return None
    challenge = f'Bearer realm="{tokens.realm}",service="tests",scope="repository:team/app:pull"'
    return Mischief(status=401, headers={"WWW-Authenticate": challenge})


def write_config(world: Path, content: dict[str, object]) -> None:
    (world / "docker").mkdir(exist_ok=True)
    (world / "docker" / "config.json").write_text(json.dumps(content))


def basic(user: str = USER, password: str = PASSWORD) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def write_helper(world: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A credential helper called `tests`, first on the PATH."""
    import os

    directory = world / "bin"
    directory.mkdir()
    helper = directory / "docker-credential-tests"
    helper.write_text(f"#!/bin/sh\n{script}\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


# --- basic ------------------------------------------------------------------------


def test_nobody_is_refused_in_dockers_words(
    closed_registry: RegistryServer, store: ImageStore
) -> None:
    with pytest.raises(AccessDenied) as refused:
        pull(store, f"{closed_registry.host}/team/app")

    assert refused.value.message.startswith(
        f"pull access denied for {closed_registry.host}/team/app, repository does not exist or "
        f"may require 'wherry login {closed_registry.host}'"
    )


@pytest.mark.parametrize(
    "entry",
    [{"auth": basic()}, {"username": USER, "password": PASSWORD}],
    ids=["encoded", "plain"],
)
def test_password_in_config_json_opens_the_registry(
    closed_registry: RegistryServer, store: ImageStore, own_world: Path, entry: dict[str, str]
) -> None:
    write_config(own_world, {"auths": {closed_registry.host: entry}})

    pull(store, f"{closed_registry.host}/team/app")

    assert store.find(f"{closed_registry.host}/team/app")


def test_key_of_config_json_may_be_an_old_url(
    closed_registry: RegistryServer, store: ImageStore, own_world: Path
) -> None:
    write_config(own_world, {"auths": {f"https://{closed_registry.host}/v1/": {"auth": basic()}}})

    pull(store, f"{closed_registry.host}/team/app")


def test_wrong_password_is_refused(
    closed_registry: RegistryServer, store: ImageStore, own_world: Path
) -> None:
    write_config(own_world, {"auths": {closed_registry.host: {"auth": basic(password="no")}}})

    with pytest.raises(AccessDenied):
        pull(store, f"{closed_registry.host}/team/app")


def test_podmans_file_opens_the_registry_by_its_longest_key(
    closed_registry: RegistryServer, store: ImageStore, own_world: Path
) -> None:
    directory = own_world / "runtime" / "containers"
    directory.mkdir(parents=True)
    entries = {
        closed_registry.host: {"auth": basic(password="no")},
        f"{closed_registry.host}/team": {"auth": basic()},
    }
    (directory / "auth.json").write_text(json.dumps({"auths": entries}))

    pull(store, f"{closed_registry.host}/team/app")


@pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
def test_credential_helper_opens_the_registry(
    closed_registry: RegistryServer,
    store: ImageStore,
    own_world: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
) -> None:
    answer = json.dumps({"Username": USER, "Secret": PASSWORD})
    write_helper(
        own_world,
        monkeypatch,
        f'read -r host; [ "$1 $host" = "get {closed_registry.host}" ] && echo \'{answer}\'',
    )
    helpers = {"credsStore": "tests", "credHelpers": {closed_registry.host: "tests"}}
    write_config(own_world, {key: helpers[key]})

    pull(store, f"{closed_registry.host}/team/app")


def test_helper_that_knows_nothing_is_no_error(
    registry: RegistryServer,
    store: ImageStore,
    own_world: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry.put_image("app", "latest", make_image({"a": b"1"}))
    write_helper(own_world, monkeypatch, "echo 'credentials not found in native keychain'; exit 1")
    write_config(own_world, {"credsStore": "tests"})

    pull(store, f"{registry.host}/app")


# --- tokens -----------------------------------------------------------------------


def test_password_is_given_to_the_token_server_and_the_token_to_the_registry(
    token_registry: FlakyProxy, tokens: TokenServer, store: ImageStore, own_world: Path
) -> None:
    write_config(own_world, {"auths": {token_registry.host: {"auth": basic()}}})

    pull(store, f"{token_registry.host}/team/app")

    [asked] = tokens.asked
    assert asked == {
        "scope": ["repository:team/app:pull"],
        "service": ["tests"],
        "account": [USER],
    }
    sent = {asked.headers.get("Authorization") for asked in token_registry.requests}
    assert sent == {None, "Bearer token-1"}


def test_token_that_expires_during_a_pull_is_replaced(
    token_registry: FlakyProxy, tokens: TokenServer, store: ImageStore, own_world: Path
) -> None:
    write_config(own_world, {"auths": {token_registry.host: {"auth": basic()}}})

    def mischief(asked: Asked) -> Mischief | None:
        if "/blobs/" in asked.path and len(tokens.asked) == 1:
            tokens.valid.clear()
        return refuse_without_token(asked, tokens)

    token_registry.mischief = mischief

    pull(store, f"{token_registry.host}/team/app")

    assert len(tokens.asked) >= 2


def test_identity_token_is_exchanged_by_post(
    token_registry: FlakyProxy, tokens: TokenServer, store: ImageStore, own_world: Path
) -> None:
    entry = {"auth": basic(password=""), "identitytoken": "refresh-me"}
    write_config(own_world, {"auths": {token_registry.host: entry}})

    pull(store, f"{token_registry.host}/team/app")

    [asked] = tokens.asked
    assert asked["grant_type"] == ["refresh_token"]
    assert asked["scope"] == ["repository:team/app:pull"]


def test_registry_token_is_sent_as_it_is(
    token_registry: FlakyProxy, tokens: TokenServer, store: ImageStore, own_world: Path
) -> None:
    tokens.valid.add("given")
    write_config(own_world, {"auths": {token_registry.host: {"registrytoken": "given"}}})

    pull(store, f"{token_registry.host}/team/app")

    assert not tokens.asked


def test_login_keeps_the_identity_token_that_it_is_given(
    token_registry: FlakyProxy,
    tokens: TokenServer,
    own_world: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import io

    from wherry.cli.main import main

    tokens.gives_identity = True
    monkeypatch.setattr("sys.stdin", io.StringIO(PASSWORD))

    code = main(["login", "-u", USER, "--password-stdin", token_registry.host])

    assert code == 0
    config = json.loads((own_world / "docker" / "config.json").read_text())
    assert config["auths"][token_registry.host]["identitytoken"] == "refresh-me"
    assert PASSWORD not in str(config)
    assert tokens.asked[0]["offline_token"] == ["true"]


def test_token_server_that_refuses_is_an_error(
    token_registry: FlakyProxy, store: ImageStore, own_world: Path
) -> None:
    write_config(own_world, {"auths": {token_registry.host: {"auth": basic(password="no")}}})

    with pytest.raises(AccessDenied, match="incorrect username or password"):
        pull(store, f"{token_registry.host}/team/app")


# --- nobody else ------------------------------------------------------------------


def test_redirect_to_another_host_goes_without_authorization(
    closed_registry: RegistryServer, store: ImageStore, own_world: Path
) -> None:
    image = make_image({"a": b"1"})
    closed_registry.put_image("app", "latest", image)
    digest = image.layers[0]["digest"]
    with FlakyProxy(closed_registry.host) as front, FlakyProxy(closed_registry.host) as cdn:
        cdn.mischief = lambda asked: Mischief(status=200, body=image.blobs[digest])
        location = f"http://{cdn.host}/layer?signature=x"
        front.mischief = lambda asked: (
            Mischief(status=307, headers={"Location": location}) if digest in asked.path else None
        )
        write_config(own_world, {"auths": {front.host: {"auth": basic()}}})

        pull(store, f"{front.host}/app")

        assert [asked.path for asked in cdn.requests] == ["/layer?signature=x"]
        assert "Authorization" not in cdn.requests[0].headers
        assert "Authorization" in front.requests[-1].headers


def test_credentials_are_never_sent_over_plain_http_to_another_machine() -> None:
    # 192.0.2.0/24 is for documentation: nobody is there to answer.
    transport = Transport(insecure=frozenset(("192.0.2.1",)), patience=HASTY)

    with pytest.raises(AccessDenied, match="over plain HTTP"):
        transport.request("GET", "http://192.0.2.1/v2/", {"Authorization": "Basic eDp5"})
