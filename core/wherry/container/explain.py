"""`--explain`: what a container is made of, for a person and as JSON.

Everything comes from the runtime-spec document, so that what is explained is what is
done. Pure: the numbers of the namespaces are given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from wherry.container.capabilities import NAMES
from wherry.container.namespaces import NAMESPACES
from wherry.container.process import UNLIMITED
from wherry.oci import USER_ANNOTATION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from wherry.oci.runtime_spec import (
        IDMapping,
        LinuxResources,
        LinuxSeccomp,
        Mount,
        Process,
        Spec,
    )


class Namespace(TypedDict):
    """One of the eight, with its inode numbers.

    `container` is None before it is made, `host` where the kernel has no such namespaces.
    """

    type: str
    # new, joined (another's) or shared (the host's)
    how: str
    host: int | None
    container: int | None


class Seccomp(TypedDict):
    """`instructions` is None where the filter has not been compiled."""

    defaultAction: str
    rules: int
    calls: int
    architectures: list[str]
    instructions: int | None


class Explanation(TypedDict):
    """What `--explain=json` prints."""

    namespaces: list[Namespace]
    clockOffsets: dict[str, float]
    idMaps: dict[str, list[IDMapping]]
    root: dict[str, Any]
    mounts: list[Mount]
    maskedPaths: list[str]
    readonlyPaths: list[str]
    process: dict[str, Any]
    capabilities: dict[str, list[str]]
    noNewPrivileges: bool
    seccomp: Seccomp | None
    limits: dict[str, str]
    sysctls: dict[str, str]
    network: str
    notes: list[str]


def explain(
    spec: Spec,
    *,
    host: Mapping[str, int],
    container: Mapping[str, int] | None = None,
    network: str = "",
    instructions: int | None = None,
    notes: Sequence[str] = (),
) -> Explanation:
    """What `spec` describes.

    `host` and `container` are inode numbers by namespace type, as /proc/PID/ns shows them;
    `network` is the name of what the container is attached to; `notes` say what was asked
    for, or is usual, and could not be had.
    """
    linux, process = spec["linux"], spec["process"]
    offsets: Mapping[str, Any] = linux.get("timeOffsets") or {}
    return {
        "namespaces": _namespaces(spec, host, container or {}),
        "clockOffsets": {
            clock: pair.get("secs", 0) + pair.get("nanosecs", 0) / 1e9
            for clock, pair in offsets.items()
        },
        "idMaps": {
            "uid": linux.get("uidMappings") or [],
            "gid": linux.get("gidMappings") or [],
        },
        "root": dict(spec["root"]),
        "mounts": spec.get("mounts") or [],
        "maskedPaths": linux.get("maskedPaths") or [],
        "readonlyPaths": linux.get("readonlyPaths") or [],
        "process": _process(spec),
        "capabilities": _capabilities(process),
        "noNewPrivileges": process.get("noNewPrivileges", False),
        "seccomp": _seccomp(linux.get("seccomp"), instructions),
        "limits": _limits(process, linux.get("resources") or {}),
        "sysctls": linux.get("sysctl") or {},
        "network": network,
        "notes": list(notes),
    }


def explain_text(explanation: Explanation) -> str:
    """The explanation as a person reads it."""
    sections = (
        ("namespaces", _namespace_lines(explanation)),
        ("ids", _id_lines(explanation["idMaps"])),
        ("mounts, in order", _mount_lines(explanation)),
        ("hidden", _wrap(explanation["maskedPaths"])),
        ("read-only", _wrap(explanation["readonlyPaths"])),
        ("process", _table(_texts(explanation["process"]))),
        ("capabilities", _capability_lines(explanation)),
        ("system calls", [_seccomp_line(explanation["seccomp"])]),
        ("limits", _table(explanation["limits"].items()) or ["none"]),
        ("sysctls", _table(explanation["sysctls"].items())),
        ("network", [explanation["network"]] if explanation["network"] else []),
        ("notes", explanation["notes"]),
    )
    return "\n".join(
        line
        for title, lines in sections
        if lines
        for line in (f"{title}:", *(f"  {line}" for line in lines))
    )


# ---- the spec, in our words ----


def _namespaces(
    spec: Spec, host: Mapping[str, int], container: Mapping[str, int]
) -> list[Namespace]:
    asked = {namespace["type"]: namespace for namespace in spec["linux"].get("namespaces") or ()}
    result: list[Namespace] = []
    for kind in NAMESPACES:
        how = "shared"
        if kind in asked:
            how = "joined" if asked[kind].get("path") else "new"
        number = host.get(kind) if how == "shared" else container.get(kind)
        result.append({"type": kind, "how": how, "host": host.get(kind), "container": number})
    return result


def _process(spec: Spec) -> dict[str, Any]:
    process = spec["process"]
    user = process["user"]
    shown: dict[str, Any] = {
        "args": process["args"],
        "user": spec.get("annotations", {}).get(USER_ANNOTATION)
        or f"{user.get('uid', 0)}:{user.get('gid', 0)}",
        "cwd": process["cwd"],
        "terminal": process.get("terminal", False),
    }
    if "hostname" in spec:
        shown["hostname"] = spec["hostname"]
    return shown


def _capabilities(process: Process) -> dict[str, list[str]]:
    sets: Mapping[str, Any] = process.get("capabilities") or {}
    return {kind: sorted(names, key=_number) for kind, names in sets.items() if names}


def _number(name: str) -> int:
    return NAMES.index(name) if name in NAMES else len(NAMES)


def _seccomp(seccomp: LinuxSeccomp | None, instructions: int | None) -> Seccomp | None:
    if seccomp is None:
        return None
    rules = seccomp.get("syscalls") or []
    return {
        "defaultAction": seccomp["defaultAction"],
        "rules": len(rules),
        "calls": len({name for rule in rules for name in rule["names"]}),
        "architectures": list(seccomp.get("architectures") or ()),
        "instructions": instructions,
    }


def _limits(process: Process, resources: LinuxResources) -> dict[str, str]:
    limits: dict[str, str] = {}
    typed: Mapping[str, Any] = {
        "memory": resources.get("memory"),
        "cpu": resources.get("cpu"),
        "pids": resources.get("pids"),
    }
    for section, values in typed.items():
        limits.update({f"{section}.{key}": str(value) for key, value in (values or {}).items()})
    limits.update(resources.get("unified") or {})
    for limit in process.get("rlimits") or ():
        soft, hard = (
            "unlimited" if number == UNLIMITED else str(number)
            for number in (limit["soft"], limit["hard"])
        )
        limits[limit["type"].removeprefix("RLIMIT_").lower()] = f"{soft} (at most {hard})"
    return limits


# ---- our words, on lines ----


def _namespace_lines(explanation: Explanation) -> list[str]:
    rows = [("TYPE", "HOST", "CONTAINER", "")]
    for namespace in explanation["namespaces"]:
        how = {"new": "its own", "joined": "another container's", "shared": "the host's"}
        remark = how[namespace["how"]]
        if namespace["type"] == "time" and explanation["clockOffsets"]:
            # It moves the clocks that count from the start, never the date.
            remark += "".join(
                f", {clock} {seconds:+g} s"
                for clock, seconds in explanation["clockOffsets"].items()
            )
        pending = "(to be made)" if namespace["how"] == "new" else "-"
        rows.append(
            (
                namespace["type"],
                "none" if namespace["host"] is None else str(namespace["host"]),
                pending if namespace["container"] is None else str(namespace["container"]),
                remark,
            )
        )
    return _columns(rows)


def _id_lines(maps: Mapping[str, Sequence[IDMapping]]) -> list[str]:
    rows = [
        (kind, _range(mapping["containerID"], mapping), "->", _range(mapping["hostID"], mapping))
        for kind, mappings in maps.items()
        for mapping in mappings
    ]
    return _columns(rows) or ["as on the host: there is no user namespace"]


def _range(first: int, mapping: IDMapping) -> str:
    return str(first) if mapping["size"] == 1 else f"{first}-{first + mapping['size'] - 1}"


def _mount_lines(explanation: Explanation) -> list[str]:
    root = explanation["root"]
    rows = [("/", root["path"], "", "ro" if root.get("readonly") else "rw")]
    rows += [
        (
            mount["destination"],
            mount.get("source", ""),
            mount.get("type", ""),
            ",".join([*map(_option, mount.get("options") or ()), *_mount_maps(mount)]),
        )
        for mount in explanation["mounts"]
    ]
    return _columns(rows)


def _option(option: str) -> str:
    return "idmap" if option == "x-wherry.idmap" else option


def _mount_maps(mount: Mount) -> Iterator[str]:
    """The mappings that a mount has of its own, from its files' ids to the host's."""
    for kind, maps in (("uids", mount.get("uidMappings")), ("gids", mount.get("gidMappings"))):
        for entry in maps or ():
            yield f"{kind}={_range(entry['containerID'], entry)}->{_range(entry['hostID'], entry)}"


def _capability_lines(explanation: Explanation) -> list[str]:
    sets = explanation["capabilities"]
    everything = list(NAMES)
    lines: list[str] = []
    # Mostly all sets are the same.
    for names in {tuple(names): None for names in sets.values()}:
        kinds = [kind for kind, others in sets.items() if tuple(others) == names]
        short = ["all"] if list(names) == everything else [n.removeprefix("CAP_") for n in names]
        lines += [f"{', '.join(kinds)}:", *(f"  {line}" for line in _wrap(short))]
    if explanation["noNewPrivileges"]:
        lines.append("no new privileges: set-user-ID programs gain nothing")
    return lines or ["none"]


def _seccomp_line(seccomp: Seccomp | None) -> str:
    if seccomp is None:
        return "not filtered"
    action = seccomp["defaultAction"].removeprefix("SCMP_ACT_").lower()
    rules = f"{seccomp['rules']} rule{'' if seccomp['rules'] == 1 else 's'}"
    line = f"{rules} over {seccomp['calls']} calls, {action} for all others"
    if seccomp["instructions"] is not None:
        line += f"; {seccomp['instructions']} BPF instructions"
    return line


def _texts(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    def text(value: Any) -> str:
        if isinstance(value, list):
            return " ".join(map(str, value))
        return str(value).lower() if isinstance(value, bool) else str(value)

    return [(name, text(value)) for name, value in fields.items()]


def _table(rows: Iterable[tuple[str, str]]) -> list[str]:
    return _columns(list(rows))


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _wrap(words: Sequence[str], width: int = 96) -> list[str]:
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
