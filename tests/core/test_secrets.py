"""Secrets: kept by name, given to containers, shown nowhere."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any, cast

import pytest

from wherry.cli.host import read_secrets
from wherry.errors import Conflict, NotFound, UsageError
from wherry.secrets import (
    SecretStore,
    forget_secrets,
    keep_secrets,
    secret_env,
    secret_mounts,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wherry.runtime import Runtime


class Unshared:
    """The one thing of a Runtime that secrets need."""

    def unshared(self, function: Callable[[], Any], *, mounts: bool = False) -> Any:
        return function()


RUNTIME = cast("Runtime", Unshared())


def same(uid: int, gid: int) -> tuple[int, int]:
    """Users of the container are the same here."""
    return uid, gid


@pytest.fixture(autouse=True)
def _root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERRY_ROOT", str(tmp_path))


def _body(*texts: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    mounts, contents = read_secrets(texts)
    return {"Wherry": {"Secrets": mounts}}, contents


def test_a_secret_is_kept_for_its_user_alone() -> None:
    store = SecretStore()

    made = store.create("token", b"\x00hunter2", labels={"a": "b"})

    assert store.read("token") == b"\x00hunter2"
    assert store.find(made.id) == store.find("token") == made
    assert "hunter2" not in json.dumps(made.inspect())
    [file] = os.scandir(store.root)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_name_is_given_once_unless_it_is_replaced() -> None:
    store = SecretStore()
    first = store.create("token", b"old")

    with pytest.raises(Conflict, match="secret name in use: token"):
        store.create("token", b"new")
    assert store.create("token", b"new", replace=True).id == first.id
    assert store.read("token") == b"new"


@pytest.mark.parametrize(("name", "content"), [("a/b", b"x"), ("", b"x"), ("a", b"")])
def test_a_bad_secret_is_refused(name: str, content: bytes) -> None:
    with pytest.raises(UsageError):
        SecretStore().create(name, content)


def test_a_removed_secret_is_gone() -> None:
    store = SecretStore()
    store.create("token", b"x")

    store.remove("token")

    with pytest.raises(NotFound, match="No such secret: token"):
        store.remove("token")
    assert store.secrets() == []


def test_a_container_gets_files_and_variables(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"of a file")
    SecretStore().create("kept", b"of the store")
    body, contents = _body(
        f"id=one,src={tmp_path}/file,mode=0400", "kept,target=/etc/kept", "kept,type=env,target=K"
    )

    keep_secrets("c1", body, contents, RUNTIME, same)
    mounts = secret_mounts("c1", body, RUNTIME, same)

    assert [mount["destination"] for mount in mounts] == ["/run/secrets/one", "/etc/kept"]
    assert [open(mount["source"], "rb").read() for mount in mounts] == [  # noqa: SIM115
        b"of a file",
        b"of the store",
    ]
    assert stat.S_IMODE(os.stat(mounts[0]["source"]).st_mode) == 0o400
    assert "ro" in mounts[0]["options"]
    assert secret_env("c1", body, RUNTIME, same) == ["K=of the store"]


def test_after_a_reboot_kept_secrets_are_there_and_others_are_said_to_be_gone(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_bytes(b"of a file")
    SecretStore().create("kept", b"of the store")
    stored, nothing = _body("kept")
    given, contents = _body(f"id=given,src={tmp_path}/file")
    keep_secrets("c1", stored, nothing, RUNTIME, same)
    keep_secrets("c2", given, contents, RUNTIME, same)

    forget_secrets("c1")
    forget_secrets("c2")

    assert len(secret_mounts("c1", stored, RUNTIME, same)) == 1
    with pytest.raises(NotFound, match="a reboot has taken"):
        secret_mounts("c2", given, RUNTIME, same)
