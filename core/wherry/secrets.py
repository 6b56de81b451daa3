"""Secrets: what a container may read, and what is never in its record, image or history.

    DATA/secrets/<name>.json      `wherry secret create`
    RUN/secrets/<container>/<n>   the content of a container's n-th secret, as it is mounted

RUN is memory: after a reboot, contents come from the first place, or are gone.
"""

from __future__ import annotations

import binascii
import os
import time

from wherry import paths
from wherry.container.copy import give_to, remove_tree
from wherry.errors import Conflict, CorruptState, NotFound, UsageError
from wherry.files import (
    Lock,
    make_dir,
    read_file,
    read_json,
    remove_file,
    whole,
    write_atomic,
    write_json,
)
from wherry.shapes import TEXTS
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from wherry.oci.runtime_spec import Mount
    from wherry.runtime import Runtime

    Owner = Callable[[int, int], tuple[int, int]]

LARGEST = 500 << 10
_SHAPE = {
    "ID!": str,
    "CreatedAt!": str,
    "UpdatedAt!": str,
    "Labels!": TEXTS,
    "Data!": str,
}
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


# ---- of a container ----


def keep_secrets(
    container_id: str,
    body: Mapping[str, Any],
    contents: Mapping[str, bytes],
    runtime: Runtime,
    owner: Owner,
) -> None:
    """Put a container's secrets where its runs find them; stored ones by their names.

    `owner` says whom of us a user of the container is.
    """
    directory = make_dir(paths.run_secrets(container_id), 0o711)
    owners: list[tuple[str, int, int]] = []
    for number, secret in enumerate(body["Wherry"]["Secrets"]):
        name = secret["Name"]
        content = contents[name] if name in contents else SecretStore().read(name)
        path = os.path.join(directory, str(number))
        if secret["Type"] == "env":
            write_atomic(path, content)
            continue
        write_atomic(path, content, mode=secret.get("Mode", 0o444))
        os.chmod(path, secret.get("Mode", 0o444))
        uid, gid = owner(secret.get("UID", 0), secret.get("GID", 0))
        if uid or gid:
            owners.append((path, uid, gid))

    def give() -> None:
        for path, uid, gid in owners:
            give_to(path, uid, gid)

    if owners:
        runtime.unshared(give)


def forget_secrets(container_id: str) -> None:
    """The container is removed."""
    remove_tree(paths.run_secrets(container_id))


def secret_mounts(
    container_id: str, body: Mapping[str, Any], runtime: Runtime, owner: Owner
) -> list[Mount]:
    """The mounts of a container's secrets for its next run."""
    return [
        {
            "destination": secret["Target"],
            "type": "bind",
            "source": path,
            "options": ["rbind", "rprivate", "ro", "nosuid", "noexec", "nodev"],
        }
        for secret, path in _kept(container_id, body, runtime, owner)
        if secret["Type"] != "env"
    ]


def secret_env(
    container_id: str, body: Mapping[str, Any], runtime: Runtime, owner: Owner
) -> list[str]:
    """The variables (`NAME=content`) of a container's secrets of type env."""
    variables = []
    for secret, path in _kept(container_id, body, runtime, owner):
        if secret["Type"] == "env":
            variables.append(f"{secret['Target']}={os.fsdecode(read_file(path))}")
    return variables


def _kept(
    container_id: str, body: Mapping[str, Any], runtime: Runtime, owner: Owner
) -> list[tuple[Mapping[str, Any], str]]:
    """A container's secrets, each with the path of its content."""
    secrets = (body.get("Wherry") or {}).get("Secrets") or ()
    directory = paths.run_secrets(container_id)
    kept = [(secret, os.path.join(directory, str(number))) for number, secret in enumerate(secrets)]
    if not all(os.path.exists(path) for _, path in kept):
        try:
            keep_secrets(container_id, body, {}, runtime, owner)
        except NotFound as error:
            raise NotFound(
                f"{error.message}: a reboot has taken the container's secrets",
                hint="create the container again, or keep the secret with `wherry secret create`",
            ) from error
    return kept


# ---- kept by name ----


@value
class Secret:
    """A secret that was given a name; its content is read apart."""

    name: str
    id: str
    created: str
    updated: str
    labels: Mapping[str, str]

    def inspect(self) -> dict[str, Any]:
        """What podman's `secret inspect` shows."""
        return {
            "ID": self.id,
            "CreatedAt": self.created,
            "UpdatedAt": self.updated,
            "Spec": {
                "Name": self.name,
                "Driver": {"Name": "file", "Options": {}},
                "Labels": dict(self.labels),
            },
        }


class SecretStore:
    """The secrets below `root`, readable by this user alone."""

    def __init__(self, root: str | None = None) -> None:
        self.root = root or paths.secrets()

    def create(
        self,
        name: str,
        content: bytes,
        *,
        labels: Mapping[str, str] | None = None,
        replace: bool = False,
    ) -> Secret:
        """Keep `content` as `name`. Raises Conflict where the name is taken."""
        _check_name(name)
        if not 0 < len(content) <= LARGEST:
            raise UsageError("secret data must be larger than 0 and less than 512000 bytes")
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with Lock(make_dir(self.root)):
            try:
                old = self.find(name)
            except NotFound:
                old = None
            if old is not None and not replace:
                raise Conflict(
                    f"secret name in use: {name}", hint="--replace gives it another content"
                )
            fields = {
                "ID": old.id if old else os.urandom(12).hex() + "0",
                "CreatedAt": old.created if old else now,
                "UpdatedAt": now,
                "Labels": dict(labels or {}),
                "Data": binascii.b2a_base64(content, newline=False).decode(),
            }
            write_json(self._path(name), fields, sync=True)
        return self.find(name)

    def _path(self, name: str) -> str:
        return os.path.join(self.root, f"{name}.json")

    def _fields(self, name: str) -> Mapping[str, Any]:
        _check_name(name)
        try:
            fields: Mapping[str, Any] = read_json(self._path(name), _SHAPE)
        except FileNotFoundError:
            raise NotFound(
                f"No such secret: {name}", hint="`wherry secret ls` lists them"
            ) from None
        except CorruptState as error:
            error.hint = f"to give the secret up: wherry secret rm {name}"
            raise
        return fields

    def read(self, name: str) -> bytes:
        """The content of the secret `name`. Raises NotFound."""
        try:
            return binascii.a2b_base64(self._fields(name)["Data"])
        except ValueError as error:
            raise CorruptState(f"{self._path(name)} is damaged: {error}") from error

    def find(self, name: str) -> Secret:
        """The secret with this name, id or unique beginning of an id. Raises NotFound."""
        try:
            return self._load(name)
        except NotFound:
            found = [secret for secret in self.secrets() if secret.id.startswith(name)]
            if len(found) == 1:
                return found[0]
            raise

    def _load(self, name: str) -> Secret:
        fields = self._fields(name)
        return Secret(
            name=name,
            id=fields["ID"],
            created=fields["CreatedAt"],
            updated=fields["UpdatedAt"],
            labels=fields["Labels"],
        )

    def secrets(self, damaged: list[CorruptState] | None = None) -> list[Secret]:
        """All whole secrets, by name; what is wrong with others in `damaged`."""
        return whole(self.names(), self._load, damaged)

    def names(self) -> list[str]:
        """The names of all secrets."""
        try:
            return sorted(name[:-5] for name in os.listdir(self.root) if name.endswith(".json"))
        except FileNotFoundError:
            return []

    def remove(self, name: str) -> None:
        """Remove a secret. Containers that have it keep it. Raises NotFound."""
        with Lock(make_dir(self.root)):
            try:
                remove_file(self._path(self.find(name).name))
            except CorruptState:
                remove_tree(self._path(name))


def _check_name(name: str) -> None:
    if not (0 < len(name) < 254 and _NAME.issuperset(name) and name[0] != "."):
        raise UsageError(
            f"secret name {name!r} can only include alphanumeric, '.', '_' and '-' characters"
        )
