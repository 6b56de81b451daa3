"""docker's `config.json`, which wherry shares: credentials, proxies, defaults of the command line.

Reading is light, for `wherry run` reads it (its `proxies` go into every container).
What wherry does not know is kept as it is when the file is written.
"""

from __future__ import annotations

import os

from wherry import paths
from wherry.errors import CorruptState
from wherry.files import Lock, make_dir, read_json, write_atomic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_PROXY_VARIABLES = {
    "httpProxy": "HTTP_PROXY",
    "httpsProxy": "HTTPS_PROXY",
    "noProxy": "NO_PROXY",
    "ftpProxy": "FTP_PROXY",
    "allProxy": "ALL_PROXY",
}


class ConfigFile:
    """What `config.json` says; an absent file says nothing."""

    def __init__(self, path: str | None = None) -> None:
        self.path = path or os.path.join(paths.config(), "config.json")
        self.content: dict[str, Any] = _read(self.path)

    def section(self, key: str) -> dict[str, Any]:
        """The object under `key`, empty where there is none."""
        found = self.content.get(key)
        return found if isinstance(found, dict) else {}

    def text(self, key: str) -> str:
        """The string under `key`, empty where there is none."""
        found = self.content.get(key)
        return found if isinstance(found, str) else ""

    def insecure_registries(self) -> tuple[str, ...]:
        """Registries that plain HTTP or an unknown certificate is acceptable for."""
        found = self.content.get("insecure-registries")
        return tuple(map(str, found)) if isinstance(found, list) else ()

    def proxy_environment(self) -> dict[str, str]:
        """The variables that `proxies` puts into containers and builds, in both spellings."""
        default = self.section("proxies").get("default")
        variables: dict[str, str] = {}
        for key, name in _PROXY_VARIABLES.items():
            setting = default.get(key) if isinstance(default, dict) else None
            if isinstance(setting, str) and setting:
                variables[name] = variables[name.lower()] = setting
        return variables

    def change(self, edit: Callable[[dict[str, Any]], None]) -> None:
        """Let `edit` change the file's content: read again under a lock, replaced atomically."""
        # A symbolic link (a dotfiles repository) stays one.
        path = os.path.realpath(self.path)
        directory = make_dir(os.path.dirname(path))
        with Lock(f"{path}.lock" if os.name == "nt" else directory):
            content = _read(path)
            edit(content)
            import json

            # docker writes tabs; a diff of the file shows what changed and nothing else.
            text = json.dumps(content, indent="\t", ensure_ascii=False)
            write_atomic(path, text.encode())
        self.content = content


def _read(path: str) -> dict[str, Any]:
    try:
        content = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except PermissionError as error:
        raise CorruptState(f"cannot read {path}: {error.strerror}") from error
    if not isinstance(content, dict):
        raise CorruptState(f"{path} is damaged: not a JSON object")
    return content
