"""`--change`: Dockerfile instructions that change an image's config and run nothing."""

from __future__ import annotations

import posixpath
import shlex

from wherry.container.ports import parse_expose
from wherry.container.signals import read_signal
from wherry.errors import UsageError
from wherry.lean import load_json
from wherry.words import read_duration, read_integer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Config = dict[str, Any]

_SHELL = ("/bin/sh", "-c")


def apply_changes(config: Config, texts: Iterable[str]) -> Config:
    """An image's `config` with each instruction carried out on it. Raises UsageError."""
    changed = dict(config)
    for text in texts:
        word, _, rest = text.strip().partition(" ")
        apply = _INSTRUCTIONS.get(word.upper())
        if apply is None:
            raise UsageError(
                f"{word} is not a valid change command",
                hint=f"--change takes {', '.join(sorted(_INSTRUCTIONS))}",
            )
        if not rest.strip():
            raise UsageError(f"{word.upper()} requires at least one argument")
        apply(changed, rest.strip())
    return changed


def _exec_form(text: str) -> list[str] | None:
    """The words of `["a", "b"]`; None for what is no such list."""
    if not text.startswith("["):
        return None
    try:
        words = load_json(text)
    except ValueError:
        return None
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        return words
    return None


def _command(text: str) -> list[str]:
    words = _exec_form(text)
    return [*_SHELL, text] if words is None else words


def _words(text: str, instruction: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{instruction} {text}: {error}") from error


def _pairs(text: str, instruction: str) -> dict[str, str]:
    """`a=b c="d e"`, or the old `a b c` for one name."""
    words = _words(text, instruction)
    if "=" not in words[0]:
        name, _, rest = text.partition(" ")
        if not rest:
            raise UsageError(f"{instruction} must have two arguments")
        return {name: rest.strip()}
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, content = word.partition("=")
        if not equals or not name:
            raise UsageError(
                f"Syntax error - can't find = in {word!r}. Must be of the form: name=value"
            )
        pairs[name] = content
    return pairs


def _cmd(config: Config, text: str) -> None:
    config["Cmd"] = _command(text)


def _entrypoint(config: Config, text: str) -> None:
    config["Entrypoint"] = _command(text)


def _env(config: Config, text: str) -> None:
    entries = {entry.partition("=")[0]: entry for entry in config.get("Env") or ()}
    entries.update((name, f"{name}={rest}") for name, rest in _pairs(text, "ENV").items())
    config["Env"] = list(entries.values())


def _label(config: Config, text: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **_pairs(text, "LABEL")}


def _expose(config: Config, text: str) -> None:
    ports: Config = {port: {} for word in text.split() for port in parse_expose(word)}
    config["ExposedPorts"] = {**(config.get("ExposedPorts") or {}), **ports}


def _volume(config: Config, text: str) -> None:
    words = _exec_form(text)
    paths: dict[str, Any] = {path: {} for path in (text.split() if words is None else words)}
    config["Volumes"] = {**(config.get("Volumes") or {}), **paths}


def _user(config: Config, text: str) -> None:
    config["User"] = text


def _workdir(config: Config, text: str) -> None:
    config["WorkingDir"] = posixpath.normpath(
        posixpath.join("/", config.get("WorkingDir") or "/", text)
    )


def _stopsignal(config: Config, text: str) -> None:
    read_signal(text)
    config["StopSignal"] = text


def _onbuild(config: Config, text: str) -> None:
    config["OnBuild"] = [*(config.get("OnBuild") or ()), text]


HEALTH_OPTIONS: dict[str, tuple[str, Callable[[str], int]]] = {
    "--interval": ("Interval", read_duration),
    "--timeout": ("Timeout", read_duration),
    "--start-period": ("StartPeriod", read_duration),
    "--start-interval": ("StartInterval", read_duration),
    "--retries": ("Retries", read_integer),
}


def _healthcheck(config: Config, text: str) -> None:
    health: Config = {}
    while text.startswith("--"):
        option, _, text = text.partition(" ")
        name, _, content = option.partition("=")
        if name not in HEALTH_OPTIONS:
            raise UsageError(f"Unknown flag: {name.removeprefix('--')}")
        key, read = HEALTH_OPTIONS[name]
        try:
            health[key] = read(content)
        except ValueError as error:
            raise UsageError(f"HEALTHCHECK {name}: {error}") from error
        text = text.lstrip()
    kind, _, command = text.partition(" ")
    if kind.upper() == "NONE":
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    if kind.upper() != "CMD" or not command.strip():
        raise UsageError(f"Unknown type {kind!r} in HEALTHCHECK (try CMD)")
    words = _exec_form(command.strip())
    test = ["CMD-SHELL", command.strip()] if words is None else ["CMD", *words]
    config["Healthcheck"] = {"Test": test, **health}


_INSTRUCTIONS: dict[str, Callable[[Config, str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
