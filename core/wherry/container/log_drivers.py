"""Log drivers and their options: what `--log-driver` and `--log-opt` may say.

All of them but `none` and `passthrough` keep a log in the json-file format, so that `logs`
reads what went to journald or syslog too, as docker's dual logging does.
"""

from __future__ import annotations

from wherry.container.logs import DEFAULT_FILES, DEFAULT_SIZE
from wherry.errors import UsageError
from wherry.words import read_bool, read_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from wherry.container.store import Container

_EVERY = ("mode", "max-buffer-size")
_FILES = ("max-size", "max-file", "compress")
_CACHE = ("cache-disabled", "cache-max-size", "cache-max-file", "cache-compress")
_TELLING = ("labels", "labels-regex", "env", "env-regex", "tag")
_SYSLOG = ("syslog-address", "syslog-facility", "syslog-format")

DRIVERS = {
    "json-file": (*_FILES, *_TELLING, *_EVERY),
    "local": (*_FILES, *_EVERY),
    "journald": (*_TELLING, *_CACHE, *_EVERY),
    "syslog": (*_SYSLOG, *_TELLING, *_CACHE, *_EVERY),
    "passthrough": (),
    "none": (),
}
"""Each driver, and the options that it takes."""

FACILITIES = (
    "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp"
    " - - - - local0 local1 local2 local3 local4 local5 local6 local7"
).split()
"""syslog(3)'s facilities, each at its number."""

FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")

_TAG_FIELDS = ("ID", "FullID", "Name", "ImageName", "ImageID", "ImageFullID", "DaemonName")


def driver_of(host: Mapping[str, Any]) -> tuple[str, Mapping[str, str]]:
    """The log driver of a HostConfig, and its options."""
    config = host.get("LogConfig") or {}
    return config.get("Type") or "json-file", config.get("Config") or {}


def check_log(host: Mapping[str, Any], *, has_terminal: bool = False) -> None:
    """Raise UsageError, in docker's words, for a driver or an option that there is not."""
    driver, options = driver_of(host)
    if driver not in DRIVERS:
        raise UsageError(
            f"logger: no log driver named '{driver}' is registered",
            hint=f"there are {', '.join(DRIVERS)}",
        )
    if driver == "none" and options:
        raise UsageError("invalid logging opts for driver none")
    for name in options:
        if name not in DRIVERS[driver]:
            raise UsageError(
                f"unknown log opt '{name}' for {driver} log driver",
                hint=f"it has {', '.join(DRIVERS[driver]) or 'none'}",
            )
    if driver == "passthrough" and has_terminal:
        raise UsageError("the log driver passthrough means nothing with --tty")
    if options:
        _check_options(options)


def _check_options(options: Mapping[str, str]) -> None:
    limits(options)
    for name in ("compress", "cache-disabled", "cache-compress"):
        if name in options:
            _boolean(options, name)
    if _boolean(options, "compress") and limits(options)[1] < 2:
        raise UsageError("compress cannot be true when max-file is less than 2")
    if options.get("mode", "blocking") not in ("blocking", "non-blocking"):
        raise UsageError(f"logger: logging mode not supported: {options['mode']}")
    if "max-buffer-size" in options:
        if options.get("mode") != "non-blocking":
            raise UsageError(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
            )
        _size(options["max-buffer-size"], "max-buffer-size")
    for name in ("labels-regex", "env-regex"):
        _pattern(options, name)
    _read_tag(options.get("tag", ""))
    facility(options)
    if options.get("syslog-format", "") not in FORMATS:
        raise UsageError(
            f"invalid syslog format {options['syslog-format']!r}",
            hint=f"there are {', '.join(filter(None, FORMATS))}",
        )
    syslog_address(options)


def limits(options: Mapping[str, str]) -> tuple[int, int]:
    """(size, files) at which a log turns over; a size of 0 never does. Raises UsageError."""
    prefix = "cache-" if any(name.startswith("cache-") for name in options) else ""
    size, files = options.get(f"{prefix}max-size"), options.get(f"{prefix}max-file")
    limit, count = DEFAULT_SIZE, DEFAULT_FILES
    if size:
        limit = 0 if size == "-1" else _size(size, f"{prefix}max-size")
    if files:
        if not (files.isascii() and files.isdecimal()) or not 0 < int(files[:9]) < 1_000_000:
            raise UsageError(
                f"invalid value {files!r} for log opt '{prefix}max-file'", hint="it is 1 or more"
            )
        count = int(files)
    return limit, count


def is_compressed(options: Mapping[str, str]) -> bool:
    """Whether a file that is turned over is compressed."""
    return _boolean(options, "compress") or _boolean(options, "cache-compress")


def is_kept(driver: str, options: Mapping[str, str]) -> bool:
    """Whether there is a log that `logs` can read."""
    return driver not in ("none", "passthrough") and not _boolean(options, "cache-disabled")


def attributes(container: Container) -> dict[str, str]:
    """What each record says of the container: the labels and variables asked for, the tag."""
    _, options = driver_of(container.body["HostConfig"])
    body = container.body
    found = _chosen(options, "labels", (body.get("Labels") or {}).items())
    pairs = (entry.partition("=") for entry in body.get("Env") or ())
    found |= _chosen(options, "env", ((name, text) for name, _, text in pairs))
    if options.get("tag"):
        found["tag"] = tag(container)
    return found


def _chosen(
    options: Mapping[str, str], kind: str, pairs: Iterable[tuple[str, str]]
) -> dict[str, str]:
    """The labels or variables that `labels=a,b` and `labels-regex=…` name."""
    names = set(filter(None, options.get(kind, "").split(",")))
    pattern = _pattern(options, f"{kind}-regex")
    return {
        name: text
        for name, text in pairs
        if name in names or (pattern is not None and pattern.search(name))
    }


def tag(container: Container) -> str:
    """What tells a container from others in a log that they share: docker's is its short id."""
    _, options = driver_of(container.body["HostConfig"])
    image = container.record["Image"]
    fields = {
        "ID": container.id[:12],
        "FullID": container.id,
        "Name": container.name,
        "ImageName": container.record["ImageName"],
        "ImageID": image.rpartition(":")[2][:12],
        "ImageFullID": image,
        "DaemonName": "wherry",
    }
    return "".join(
        fields[piece] if is_field else piece
        for is_field, piece in _read_tag(options.get("tag") or "{{.ID}}")
    )


def _read_tag(text: str) -> list[tuple[bool, str]]:
    """A template of fields alone: (whether it is a field, its name or the text)."""
    pieces: list[tuple[bool, str]] = []
    while text:
        plain, opening, rest = text.partition("{{")
        pieces.append((False, plain))
        if not opening:
            break
        name, closing, text = rest.partition("}}")
        field = name.strip().removeprefix(".")
        if not closing or field not in _TAG_FIELDS:
            raise UsageError(
                f"invalid log opt 'tag': cannot read {opening}{name}{closing}",
                hint=f"the fields are {', '.join(_TAG_FIELDS)}, as in {{{{.Name}}}}",
            )
        pieces.append((True, field))
    return pieces


def facility(options: Mapping[str, str]) -> int:
    """The number of syslog-facility, a name or a number; docker's is daemon. Raises UsageError."""
    text = options.get("syslog-facility") or "daemon"
    if text in FACILITIES and text != "-":
        return FACILITIES.index(text)
    if text.isascii() and text.isdecimal() and int(text[:3]) < len(FACILITIES):
        return int(text)
    raise UsageError(f"invalid syslog facility {text!r}")


def syslog_address(options: Mapping[str, str]) -> tuple[str, str, int]:
    """(transport, host or path, port) of syslog-address. Raises UsageError."""
    given = options.get("syslog-address") or "unixgram:///dev/log"
    transport, separator, place = given.partition("://")
    problem = UsageError(
        f"unsupported syslog-address {given!r}",
        hint="it is udp://HOST[:PORT], tcp://HOST[:PORT], unix://PATH or unixgram://PATH",
    )
    if not separator or not place:
        raise problem
    if transport in ("unix", "unixgram"):
        if not place.startswith("/"):
            raise problem
        return transport, place, 0
    if transport not in ("udp", "tcp"):
        raise problem
    host, port = place, "514"
    if place.startswith("["):
        host, _, rest = place[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif ":" in place:
        host, _, port = place.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or not 0 < int(port[:6]) < 65536:
        raise problem
    return transport, host, int(port)


def _boolean(options: Mapping[str, str], name: str) -> bool:
    try:
        return read_bool(options.get(name) or "false")
    except ValueError as error:
        raise UsageError(f"invalid value {options[name]!r} for log opt '{name}'") from error


def _size(text: str, name: str) -> int:
    try:
        return read_bytes(text)
    except ValueError as error:
        raise UsageError(f"invalid value {text!r} for log opt '{name}'") from error


def _pattern(options: Mapping[str, str], name: str) -> Any:
    text = options.get(name)
    if not text:
        return None
    import re

    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"invalid value {text!r} for log opt '{name}': {error}") from error
