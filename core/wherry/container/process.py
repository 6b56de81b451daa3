"""The process of a container, and those that `exec` adds, in runtime-spec's form."""

from __future__ import annotations

from wherry.container import capabilities
from wherry.container.default_mounts import clean
from wherry.container.namespaces import has_users, own_section
from wherry.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from wherry.container.bundle import ContainerFacts
    from wherry.oci.runtime_spec import Capabilities, Process, Rlimit, User

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# sys/resource.h's RLIM_INFINITY, which docker writes as -1.
UNLIMITED = 2**64 - 1


def container_process(
    body: Mapping[str, Any], facts: ContainerFacts, *, hostname: str, no_new_privileges: bool
) -> Process:
    """What a merged create body starts. Raises UsageError."""
    host: Mapping[str, Any] = body.get("HostConfig") or {}
    args = [*(body.get("Entrypoint") or ()), *(body.get("Cmd") or ())]
    if not args:
        raise UsageError(
            "no command specified",
            hint="the image has neither an entry point nor a command: say one after its name",
        )
    terminal = bool(body.get("Tty"))
    process: Process = {
        "terminal": terminal,
        "user": {**_user(body.get("User")), **_groups(host), **_umask(body)},
        "args": args,
        "env": _env(body, hostname),
        "cwd": _working_dir(body.get("WorkingDir")),
        "capabilities": _sets(_capabilities(host, facts)),
        "noNewPrivileges": no_new_privileges,
    }
    if rlimits := _rlimits(host):
        process["rlimits"] = rlimits
    if terminal:
        _set_console_size(process, host.get("ConsoleSize"))
    if score := host.get("OomScoreAdj"):
        process["oomScoreAdj"] = score
    return process


def exec_process(
    process: Process, body: Mapping[str, Any], *, available: Iterable[str] | None = None
) -> Process:
    """What docker's exec body starts beside the container's own `process`.

    The user of `body` is for the runtime to look up, as that of a container. `available`
    are the capabilities that `--privileged` gives; None for all that Linux has.
    """
    result = process.copy()
    result.pop("consoleSize", None)
    user, terminal = body.get("User"), bool(body.get("Tty"))
    if user:
        result["user"] = _user(user)
    result["args"] = list(body.get("Cmd") or ())
    result["terminal"] = terminal
    entries = _by_name(["TERM=xterm"] if terminal else [])
    entries.update(_by_name(process["env"]))
    result["env"] = _apply(entries, body.get("Env") or ())
    result["cwd"] = _working_dir(body.get("WorkingDir") or process["cwd"])
    if terminal:
        _set_console_size(result, body.get("ConsoleSize"))
    if body.get("Privileged"):
        names = capabilities.NAMES if available is None else available
        result["capabilities"] = _sets(list(names))
    return result


def _capabilities(host: Mapping[str, Any], facts: ContainerFacts) -> list[str]:
    # In a user namespace of its own a container can have them all: they count there alone.
    available = None if has_users(facts) else facts.capabilities
    if host.get("Privileged"):
        return list(capabilities.NAMES if available is None else available)
    return capabilities.resolve(
        host.get("CapAdd") or (), host.get("CapDrop") or (), available=available
    )


def _sets(names: list[str]) -> Capabilities:
    # Nothing is inheritable: a program with inheritable file capabilities would gain
    # them for every user. The kernel empties the rest when a user that is not root executes.
    return {"bounding": names, "effective": names, "permitted": names}


def _user(asked: str | None) -> User:
    """The user as far as numbers tell."""
    name, _, group = str(asked or "").partition(":")
    return {"uid": _id(name), "gid": _id(group)}


def _id(text: str) -> int:
    if not text.isdecimal():
        return 0
    from wherry.container.users import read_id

    return read_id(text)


def _groups(host: Mapping[str, Any]) -> User:
    groups = [_id(text) for text in map(str, host.get("GroupAdd") or ()) if text.isdecimal()]
    return {"additionalGids": groups} if groups else {}


def _umask(body: Mapping[str, Any]) -> User:
    umask = own_section(body).get("Umask")
    if umask in (None, ""):
        return {}
    try:
        number = umask if isinstance(umask, int) else int(umask, 8)
    except ValueError:
        number = -1
    if not 0 <= number <= 0o777:
        raise UsageError(f'invalid umask "{umask}": it has to be an octal number, as in 0022')
    return {"umask": number}


def _env(body: Mapping[str, Any], hostname: str) -> list[str]:
    """The defaults, replaced in place by what is given; HOME is the init process's to add."""
    own = own_section(body)
    defaults: dict[str, str] = {}
    if not own.get("UnsetEnvAll"):
        terminal = ["TERM=xterm"] if body.get("Tty") else []
        defaults = _by_name([DEFAULT_PATH, f"HOSTNAME={hostname}", *terminal, "container=wherry"])
        for name in own.get("UnsetEnv") or ():
            defaults.pop(name, None)
    return _apply(defaults, body.get("Env") or ())


def _by_name(entries: Iterable[str]) -> dict[str, str]:
    return {entry.partition("=")[0]: entry for entry in entries}


def _apply(entries: dict[str, str], given: Iterable[str]) -> list[str]:
    """`entries` with `given` over them; docker's API: a name alone takes one away."""
    for entry in given:
        name, equals, _ = entry.partition("=")
        if equals:
            entries[name] = entry
        else:
            entries.pop(name, None)
    return list(entries.values())


def _working_dir(asked: str | None) -> str:
    directory = asked or "/"
    if not directory.startswith("/"):
        raise UsageError(
            f"the working directory '{directory}' is invalid, it needs to be an absolute path"
        )
    return clean(directory)


def _rlimits(host: Mapping[str, Any]) -> list[Rlimit]:
    # Later ones win: runtime-spec forbids to say one twice.
    limits: dict[str, Rlimit] = {}
    for ulimit in host.get("Ulimits") or ():
        kind = f"RLIMIT_{ulimit['Name'].upper()}"
        soft, hard = (UNLIMITED if n == -1 else n for n in (ulimit["Soft"], ulimit["Hard"]))
        limits[kind] = {"type": kind, "soft": soft, "hard": hard}
    return list(limits.values())


def _set_console_size(process: Process, size: Any) -> None:
    height, width = size or (0, 0)
    if height and width:
        process["consoleSize"] = {"height": height, "width": width}
