"""What a command line takes from the machine it is typed on, put into its values.

After `resolve` nothing in the values of `run` or `create` depends on this host's files,
environment or current directory: they can be said again to a wherry elsewhere.
"""

from __future__ import annotations

import os

from wherry import origin
from wherry.config_file import ConfigFile
from wherry.container.env import merge_env, read_env_file, read_label_file, resolve_env
from wherry.container.mount import absolute_bind, absolute_source, place_bind, place_mount
from wherry.errors import Unsupported, UsageError, WherryError
from wherry.lean import dump_json, load_json
from wherry.words import read_integer, split_csv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from wherry.container.spec import SecretMount

    Values = dict[str, Any]

_PATHS = ("authfile", "hosts_file", "pidfile")
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")


def resolve(values: Values) -> Values:
    """`values` with everything in it that is this host's. Raises UsageError."""
    resolved = dict(values)
    config = ConfigFile()
    resolved.update(
        env=_environment(values, config),
        env_file=(),
        env_host=False,
        http_proxy=False,
        label=(*(each for path in values["label_file"] for each in read_label_file(path)),
               *values["label"]),
        label_file=(),
        volume=tuple(map(absolute_bind, values["volume"])),
        security_opt=tuple(map(with_profile, values["security_opt"])),
        tz=_time_zone() if values["tz"] == "local" else values["tz"],
        cidfile=_new_file(values["cidfile"]),
        platform=chosen_platform(values),
        arch="",
        os="",
        variant="",
    )  # fmt: skip
    for name in _PATHS:
        if values[name]:
            resolved[name] = absolute_source(values[name])
    for descriptor in range(3, 3 + values["preserve_fds"]):
        try:
            os.fstat(descriptor)
        except OSError as error:
            raise UsageError(
                f"--preserve-fds={values['preserve_fds']}: file descriptor {descriptor} is not open"
            ) from error
    if values["rootfs"]:
        resolved["image"] = absolute_source(values["image"])
    if "detach_keys" in values:
        resolved["detach_keys"] = values["detach_keys"] or config.text("detachKeys")
        if resolved["detach_keys"]:
            from wherry.engine.session import parse_keys

            parse_keys(resolved["detach_keys"])  # before a container is there
    return resolved


def elsewhere(values: Values) -> Values:
    """`values`, resolved, as another wherry is told them."""
    return {**values, "secret": tuple(map(secret_elsewhere, values["secret"]))}


def with_paths(values: Values, place: Callable[[str], str]) -> Values:
    """`values`, resolved, with what containers are to see of this host where `place` has it.

    Raises Unsupported for what leads to no other system.
    """
    for name, given in (
        ("--preserve-fds", values["preserve_fds"]),
        ("--sdnotify", values["sdnotify"] != "ignore"),
    ):
        if given:
            raise Unsupported(f"{name} does not lead into a machine")
    placed = {
        **values,
        "volume": tuple(place_bind(text, place) for text in values["volume"]),
        "mount": tuple(place_mount(text, place) for text in values["mount"]),
    }
    for name in ("hosts_file", "pidfile"):
        if values[name]:
            placed[name] = place(values[name])
    if values["rootfs"]:
        placed["image"] = place(values["image"])
    return placed


def _environment(values: Values, config: ConfigFile) -> tuple[str, ...]:
    """`NAME=value` for all of --env-host, --env-file, -e, and the proxies of config.json."""
    here = os.environ
    inherited = [f"{name}={text}" for name, text in here.items()] if values["env_host"] else []
    proxies: dict[str, str] = {}
    if values["http_proxy"] is not False:
        proxies = config.proxy_environment()
    if values["http_proxy"]:
        proxies.update(_host_proxies())
    return tuple(
        merge_env(
            inherited,
            (f"{name}={text}" for name, text in proxies.items()),
            *(read_env_file(path, here) for path in values["env_file"]),
            resolve_env(values["env"], here),
        )
    )


def _host_proxies() -> dict[str, str]:
    names = [each for name in _PROXIES for each in (name, name.upper())]
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def with_profile(option: str) -> str:
    """A `seccomp=FILE` with the profile in place of its file's name."""
    key, separator, path = option.partition("=")
    if not separator:
        key, separator, path = option.partition(":")
    if key != "seccomp" or path in ("", "unconfined", "builtin") or path.startswith("{"):
        return option
    try:
        with open(path, "rb") as file:
            profile = load_json(file.read())
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise UsageError(
            f"opening seccomp profile ({path}) failed: open {path}: {reason}"
        ) from error
    except ValueError as error:
        raise UsageError(f"compacting json for seccomp profile ({path}) failed: {error}") from error
    return f"seccomp={dump_json(profile)}"


def _time_zone() -> str:
    """The name of this host's time zone; "local" where it has none."""
    if name := os.environ.get("TZ", "").removeprefix(":"):
        return name
    _, found, name = os.path.realpath("/etc/localtime").replace("\\", "/").rpartition("/zoneinfo/")
    return name if found else "local"


def _new_file(path: str) -> str:
    """The absolute path of a file that is not there yet."""
    if not path or origin.is_elsewhere():
        return path
    if os.path.exists(path):
        raise UsageError(
            f"container ID file found, make sure the other container isn't running or delete {path}"
        )
    return os.path.abspath(path)


def chosen_platform(values: Mapping[str, Any]) -> str:
    """`--platform`, or what --os, --arch and --variant say."""
    parts = (values["os"], values["arch"], values["variant"])
    if not any(parts):
        platform = str(values["platform"])
        if platform.count("/") > 2 or (platform and not all(platform.split("/"))):
            raise UsageError(
                f'error parsing specified platform: "{platform}": it is os[/arch[/variant]]'
            )
        return platform
    if values["platform"]:
        raise UsageError("--platform option can not be specified with --arch, --os or --variant")
    if values["variant"] and not values["arch"]:
        raise UsageError("--variant needs --arch")
    return "/".join(filter(None, (values["os"] or "linux", *parts[1:])))


# ---- secrets ----


def read_secrets(texts: tuple[str, ...]) -> tuple[list[SecretMount], dict[str, bytes]]:
    """What `--secret` asks for, and the contents by name. Raises UsageError."""
    mounts: list[SecretMount] = []
    contents: dict[str, bytes] = {}
    for text in texts:
        fields = _secret_fields(text)
        name = fields.pop("id", "") or fields.pop("source", "")
        if not name or "/" in name or name.startswith("."):
            raise UsageError(f"invalid secret {text!r}: it needs a name, as in id=NAME,src=FILE")
        content = _secret_content(name, fields)
        if content is not None:
            contents[name] = content
        mounts.append(_secret_mount(name, fields, text))
    return mounts, contents


def _secret_fields(text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for field in split_csv(text):
        key, equals, content = field.partition("=")
        if not equals and not fields:
            key, content = "id", field
        elif not equals:
            raise UsageError(f"invalid field '{field}' must be a key=value pair")
        fields[key.lower()] = content
    if "id" in fields and "source" in fields:
        fields["src"] = fields.pop("source")
    return fields


def secret_elsewhere(text: str) -> str:
    """A `--secret` whose content is this host's, as another wherry is told it: without."""
    fields = _secret_fields(text)
    if not fields.keys() & {"src", "env"}:
        return text
    kept = {key: word for key, word in fields.items() if key not in ("src", "env")}
    return ",".join(f"{key}={word}" for key, word in {**kept, "origin": "host"}.items())


def _secret_content(name: str, fields: dict[str, str]) -> bytes | None:
    """What the secret holds; None for one that `wherry secret create` has kept."""
    if fields.pop("origin", "") and origin.is_elsewhere():
        return origin.read_secret(name)
    variable, path = fields.pop("env", ""), fields.pop("src", "")
    if variable:
        if variable not in os.environ:
            raise UsageError(f"secret {name}: the variable {variable} is not set")
        return os.fsencode(os.environ[variable])
    if not path:
        return None
    try:
        with open(os.path.expanduser(path), "rb") as file:
            content = file.read(_LARGEST_SECRET + 1)
    except OSError as error:
        raise UsageError(f"secret {name}: cannot read {path}: {error.strerror}") from error
    if len(content) > _LARGEST_SECRET:
        raise UsageError(f"secret {name}: {path} is larger than 500 KiB")
    return content


_LARGEST_SECRET = 500 << 10


def _secret_mount(name: str, fields: dict[str, str], text: str) -> SecretMount:
    kind = fields.pop("type", "mount")
    if kind not in ("mount", "env"):
        raise UsageError(f"invalid secret {text!r}: its type is mount or env")
    target = fields.pop("target", "")
    secret: SecretMount = {"Name": name, "Type": kind}  # type: ignore[typeddict-item]
    if kind == "env":
        secret["Target"] = target or name
    else:
        secret["Target"] = target if target.startswith("/") else f"/run/secrets/{target or name}"
        try:
            secret["UID"] = read_integer(fields.pop("uid", "0"))
            secret["GID"] = read_integer(fields.pop("gid", "0"))
            secret["Mode"] = int(fields.pop("mode", "0444"), 8)
        except ValueError as error:
            raise UsageError(f"invalid secret {text!r}: {error}") from error
    if fields:
        raise UsageError(f"unexpected key '{next(iter(fields))}' in '{text}'")
    return secret


def check_terminal(body_tty: bool, attach_stdin: bool) -> None:
    """Refuse a terminal for the container where there is none here. Raises WherryError."""
    if body_tty and attach_stdin and not os.isatty(0):
        error = WherryError(
            "the input device is not a TTY", hint="Leave -t out: -i alone works with pipes."
        )
        error.exit_code = 1
        raise error


def console_size() -> list[int] | None:
    """The height and width of the terminal that the command is typed on."""
    for descriptor in (0, 1, 2):
        try:
            size = os.get_terminal_size(descriptor)
        except OSError:
            continue
        if size.lines and size.columns:
            return [size.lines, size.columns]
    return None
