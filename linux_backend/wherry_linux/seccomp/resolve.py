"""From a profile in docker's format to runtime-spec's: what holds for this container."""

from __future__ import annotations

import os

from wherry.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from wherry.oci.runtime_spec import LinuxSeccomp, LinuxSyscall

# uname's machine: libseccomp's name of the architecture and Go's, which profiles use.
_MACHINES = {
    "x86_64": ("SCMP_ARCH_X86_64", "amd64"),
    "aarch64": ("SCMP_ARCH_AARCH64", "arm64"),
    "i686": ("SCMP_ARCH_X86", "x86"),
    "armv7l": ("SCMP_ARCH_ARM", "arm"),
}
_RULE_KEYS = ("action", "errnoRet", "args")


def resolve(profile: Mapping[str, Any] | None, capabilities: Sequence[str]) -> LinuxSeccomp:
    """What `profile` (None: the default one) means on this machine with these capabilities.

    Raises UsageError where the profile makes no sense.
    """
    if profile is None:
        from wherry_linux.seccomp.profile import default_profile

        profile = default_profile()
    system = os.uname()
    return resolve_for(profile, capabilities, machine=system.machine, release=system.release)


def resolve_for(
    profile: Mapping[str, Any], capabilities: Sequence[str], *, machine: str, release: str
) -> LinuxSeccomp:
    """`resolve` for a given machine and kernel."""
    try:
        return _resolve(profile, frozenset(capabilities), machine, _version(release))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"cannot read the seccomp profile: {error!r}") from error


def _resolve(
    profile: Mapping[str, Any], capabilities: frozenset[str], machine: str, kernel: tuple[int, int]
) -> LinuxSeccomp:
    if profile.get("architectures") and profile.get("archMap"):
        raise UsageError("a seccomp profile has either `architectures` or `archMap`, not both")
    native, go_name = _MACHINES.get(machine, ("", machine))
    result: LinuxSeccomp = {"defaultAction": profile["defaultAction"]}
    if profile.get("defaultErrnoRet") is not None:
        result["defaultErrnoRet"] = profile["defaultErrnoRet"]
    result["architectures"] = [*(profile.get("architectures") or ())]
    for entry in profile.get("archMap") or ():
        if entry["architecture"] == native:
            result["architectures"] = [native, *(entry.get("subArchitectures") or ())]
    for key in ("flags", "listenerPath", "listenerMetadata"):
        if profile.get(key):
            result[key] = profile[key]
    result["syscalls"] = [
        _rule(entry)
        for entry in profile.get("syscalls") or ()
        if _holds(entry, capabilities, go_name, kernel)
    ]
    return result


def _rule(entry: Mapping[str, Any]) -> LinuxSyscall:
    # docker's first profiles had one `name` for each entry.
    names = [*(entry.get("names") or ()), *([entry["name"]] if entry.get("name") else ())]
    rule: LinuxSyscall = {"names": names}
    for key in _RULE_KEYS:
        if entry.get(key) not in (None, []):
            rule[key] = entry[key]  # type: ignore[literal-required]
    return rule


def _holds(
    entry: Mapping[str, Any], capabilities: frozenset[str], machine: str, kernel: tuple[int, int]
) -> bool:
    """All of what it includes, none of what it excludes."""
    includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
    if machine in (excludes.get("arches") or ()):
        return False
    if capabilities.intersection(excludes.get("caps") or ()):
        return False
    if excludes.get("minKernel") and kernel >= _version(excludes["minKernel"]):
        return False
    if includes.get("arches") and machine not in includes["arches"]:
        return False
    if not capabilities.issuperset(includes.get("caps") or ()):
        return False
    return not includes.get("minKernel") or kernel >= _version(includes["minKernel"])


def _version(release: str) -> tuple[int, int]:
    """The first two numbers of `6.1.0-13-amd64`."""
    major, _, rest = release.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    return int(major), int(rest[:digits])
