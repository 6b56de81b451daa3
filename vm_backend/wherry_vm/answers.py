"""What a command on the host answers the guest: see wherry.origin.

The guest is not trusted with more than the command is about: files and secrets are those
that its own words name, and credentials are asked one registry at a time.
"""

from __future__ import annotations

import os
from binascii import a2b_base64, b2a_base64

from wherry import paths
from wherry.errors import AccessDenied, WherryError, as_ours, to_json
from wherry.files import write_asked
from wherry_vm.protocol import NONSENSE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from wherry.backend import Command

# Of config.json, what the guest is told: neither credentials nor programs of the host.
_KEPT = ("auths", "credsStore", "credHelpers", "plugins", "cliPluginsExtraDirs")

# What the commands begin with that may speak to a registry, under names that the host does
# not know: a Dockerfile's, a mirror's.
_OF_REGISTRIES = frozenset(
    (
        "build", "builder", "buildx", "container", "create", "image", "login", "manifest", "pull",
        "push", "run", "search",
    )
)  # fmt: skip


def answer(command: Command, question: Mapping[str, Any], stdin: Any = None) -> dict[str, Any]:
    """The answer to a question of the guest's; never raises what the question is to blame for.

    `stdin` is what the command reads, which may have files and agents to be asked for.
    """
    try:
        kind = question.get("ask")
        if kind == "credentials":
            return _credentials(command, question)
        if kind == "secret":
            return _secret(command, str(question["name"]))
        if kind == "file":
            return _file(command, str(question["path"]), str(question["content"]))
        if kind in ("files", "agent", "cache") and hasattr(stdin, "ask"):
            answered: dict[str, Any] = stdin.ask(question)
            return answered
        raise AccessDenied(f"the host answers no question about {kind!r}")
    except WherryError as error:
        return {"error": to_json(error)}
    except OSError as error:
        return {"error": to_json(as_ours(error))}
    except NONSENSE as error:
        return {"error": to_json(AccessDenied(f"the question makes no sense: {error}"))}


def configuration() -> dict[str, str]:
    """The files of docker's configuration directory that the guest is told, in base64."""
    from wherry.config_file import ConfigFile
    from wherry.lean import dump_json

    files = {}
    content = {key: each for key, each in ConfigFile().content.items() if key not in _KEPT}
    if content:
        files["config.json"] = dump_json(content).encode()
    for name, path in _certificates():
        try:
            with open(path, "rb") as file:
                files[name] = file.read()
        except OSError:
            continue  # what cannot be read here is not there elsewhere
    return {name: b2a_base64(data, newline=False).decode() for name, data in files.items()}


def _certificates() -> Iterator[tuple[str, str]]:
    """Files of the `certs.d` of this host, by their names in the configuration directory."""
    for parent in paths.certificate_parents():
        for directory, _, names in os.walk(os.path.join(parent, "certs.d")):
            for name in names:
                path = os.path.join(directory, name)
                yield os.path.relpath(path, parent).replace(os.sep, "/"), path


def _credentials(command: Command, question: Mapping[str, Any]) -> dict[str, Any]:
    from wherry.config_file import ConfigFile
    from wherry.image.auth import find_credentials

    if command.argv[0] not in _OF_REGISTRIES:
        raise AccessDenied(f"{command.argv[0]} has nothing to do with registries")
    file = str(question.get("file", ""))
    config = ConfigFile(file if file in command.reads else None)
    found = find_credentials(config, str(question["registry"]), str(question.get("path", "")))
    if found is None:
        return {}
    return {
        "username": found.username,
        "password": found.password,
        "identity_token": found.identity_token,
        "registry_token": found.registry_token,
    }


def _secret(command: Command, name: str) -> dict[str, Any]:
    if name not in command.secrets:
        raise AccessDenied(f"the command names no secret {name!r}")
    return {"content": b2a_base64(command.secrets[name], newline=False).decode()}


def _file(command: Command, path: str, content: str) -> dict[str, Any]:
    if path not in command.writes:
        raise AccessDenied(f"the command names no file {path!r}")
    write_asked(path, a2b_base64(content))
    return {}
