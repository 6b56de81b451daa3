"""Instructions that change an image's config and run nothing.

Pure: `apply` takes instructions whose variables have been replaced, as `expanded` does it.
"""

from __future__ import annotations

import posixpath

from wherry.builder.errors import syntax_error
from wherry.builder.words import process_word, process_words
from wherry.container.ports import parse_expose
from wherry.container.signals import read_signal
from wherry.errors import UsageError
from wherry.lean import dump_json
from wherry.values import replace
from wherry.words import read_duration, read_integer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from wherry.builder.instructions import Instruction

    Config = dict[str, Any]

DEFAULT_SHELL = ("/bin/sh", "-c")
# What the shell replaces, or nobody.
_AS_WRITTEN = ("CMD", "ENTRYPOINT", "RUN", "SHELL", "HEALTHCHECK", "ONBUILD")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def expanded(instruction: Instruction, known: Mapping[str, str], escape: str) -> Instruction:
    """An instruction with its variables replaced, where docker replaces any. Raises WordError."""

    def word(text: str) -> str:
        return process_word(text, known, escape=escape)

    if instruction.keyword in _AS_WRITTEN:
        return instruction
    words: tuple[str, ...] = tuple(map(word, instruction.words))
    if instruction.keyword == "EXPOSE":
        words = tuple(
            each for text in instruction.words for each in process_words(text, known, escape=escape)
        )
    return replace(
        instruction,
        words=words,
        pairs=tuple((word(name), word(text or "")) for name, text in instruction.pairs),
        flags={
            name: tuple(map(word, given)) if name in ("chown", "chmod", "checksum") else given
            for name, given in instruction.flags.items()
        },
    )


def environment(config: Mapping[str, Any]) -> dict[str, str]:
    """The variables of an image."""
    return dict(entry.partition("=")[::2] for entry in config.get("Env") or ())


def set_environment(config: Config, pairs: Iterable[tuple[str, str]]) -> None:
    """Set variables; each keeps its place in the list."""
    entries = {entry.partition("=")[0]: entry for entry in config.get("Env") or ()}
    entries.update((name, f"{name}={content}") for name, content in pairs)
    config["Env"] = list(entries.values())


def shell_of(config: Mapping[str, Any]) -> list[str]:
    """What a command in shell form is given to."""
    return list(config.get("Shell") or DEFAULT_SHELL)


def command_line(config: Mapping[str, Any], instruction: Instruction) -> list[str]:
    """The words of a CMD, ENTRYPOINT or RUN."""
    if instruction.is_exec or not instruction.words:
        return list(instruction.words)
    return [*shell_of(config), *instruction.words]


def working_directory(config: Mapping[str, Any], path: str = "") -> str:
    """`path` from the image's working directory on; itself without one."""
    return posixpath.normpath(posixpath.join("/", config.get("WorkingDir") or "/", path))


def apply(config: Config, instruction: Instruction, *, cmd_is_own: bool = False) -> str:
    """Carry an instruction out on an image's config; what its history says.

    `cmd_is_own`: the CMD is of this stage, so that an ENTRYPOINT leaves it.
    """
    try:
        return _APPLIERS[instruction.keyword](config, instruction, cmd_is_own)
    except UsageError as error:
        raise syntax_error(error.message, instruction.first, instruction.last) from error


def _shown(words: Sequence[str]) -> str:
    return dump_json(list(words))


def _cmd(config: Config, instruction: Instruction, _: bool) -> str:
    config["Cmd"] = command_line(config, instruction)
    return f"CMD {_shown(config['Cmd'])}"


def _entrypoint(config: Config, instruction: Instruction, cmd_is_own: bool) -> str:
    config["Entrypoint"] = command_line(config, instruction)
    if not cmd_is_own:
        config.pop("Cmd", None)
    return f"ENTRYPOINT {_shown(config['Entrypoint'])}"


def _env(config: Config, instruction: Instruction, _: bool) -> str:
    pairs = [(name, content or "") for name, content in instruction.pairs]
    set_environment(config, pairs)
    return "ENV " + " ".join(f"{name}={content}" for name, content in pairs)


def _label(config: Config, instruction: Instruction, _: bool) -> str:
    config["Labels"] = {**(config.get("Labels") or {}), **dict(instruction.pairs)}
    return "LABEL " + " ".join(f"{name}={content}" for name, content in instruction.pairs)


def _maintainer(_config: Config, instruction: Instruction, _: bool) -> str:
    return f"MAINTAINER {instruction.words[0]}"


def _expose(config: Config, instruction: Instruction, _: bool) -> str:
    # Of `8080:80` the container's port counts; the checks tell that the other does not.
    words = [word.rpartition(":")[2] for word in instruction.words]
    ports: Config = {port: {} for word in words for port in parse_expose(word)}
    config["ExposedPorts"] = {**(config.get("ExposedPorts") or {}), **ports}
    return f"EXPOSE [{' '.join(ports)}]"


def _volume(config: Config, instruction: Instruction, _: bool) -> str:
    if not all(word.strip() for word in instruction.words):
        raise UsageError("VOLUME specified can not be an empty string")
    volumes: Config = {word.strip(): {} for word in instruction.words}
    config["Volumes"] = {**(config.get("Volumes") or {}), **volumes}
    return f"VOLUME [{' '.join(volumes)}]"


def _user(config: Config, instruction: Instruction, _: bool) -> str:
    config["User"] = instruction.words[0]
    return f"USER {config['User']}"


def _stopsignal(config: Config, instruction: Instruction, _: bool) -> str:
    read_signal(instruction.words[0])
    config["StopSignal"] = instruction.words[0]
    return f"STOPSIGNAL {config['StopSignal']}"


def _onbuild(config: Config, instruction: Instruction, _: bool) -> str:
    config["OnBuild"] = [*(config.get("OnBuild") or ()), instruction.words[0]]
    return f"ONBUILD {instruction.words[0]}"


def _shell(config: Config, instruction: Instruction, _: bool) -> str:
    config["Shell"] = list(instruction.words)
    return f"SHELL [{' '.join(instruction.words)}]"


_MILLISECOND = 1_000_000
_HEALTH: dict[str, tuple[str, Callable[[str], int]]] = {
    "interval": ("Interval", read_duration),
    "timeout": ("Timeout", read_duration),
    "start-period": ("StartPeriod", read_duration),
    "start-interval": ("StartInterval", read_duration),
    "retries": ("Retries", read_integer),
}


def _healthcheck(config: Config, instruction: Instruction, _: bool) -> str:
    health: Config = {"Test": list(instruction.words)}
    for option, (key, read) in _HEALTH.items():
        if text := instruction.flag(option):
            try:
                health[key] = read(text)
            except ValueError as error:
                raise UsageError(f"HEALTHCHECK --{option}: {error}") from error
            least, shown = (0, "0") if option == "retries" else (_MILLISECOND, "1ms")
            if health[key] and health[key] < least:
                raise UsageError(f"HEALTHCHECK --{option} cannot be less than {shown}: {text}")
    config["Healthcheck"] = health
    return instruction.text


_APPLIERS: dict[str, Callable[[Config, Instruction, bool], str]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
}
