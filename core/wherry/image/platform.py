"""Which of an image's platforms to take: `linux/arm/v7`, and what such a machine runs besides.

Pure, and on the path of every `wherry run` that names a platform.
"""

from __future__ import annotations

import os
import sys

from wherry.errors import NotFound, UsageError
from wherry.values import value
from wherry.words import read_natural

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv8l": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5tel": ("arm", "v5"),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "loongarch64": ("loong64", ""),
}
_KNOWN_ARCHITECTURES = frozenset(
    (
        *("386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle"),
        *("ppc64", "ppc64le", "riscv64", "s390x", "wasm"),
    )
)
_KNOWN_SYSTEMS = frozenset(
    ("linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "wasi", "wasip1")
)


@value
class Platform:
    """An operating system, an architecture and its variant, in their canonical spelling."""

    os: str = "linux"
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


def parse_platform(text: str) -> Platform:
    """The platform that `--platform` says: `linux/arm64`, `arm64`, `linux/arm/v7`, `linux`."""
    parts = text.lower().split("/")
    if not all(parts) or len(parts) > 3 or not text.isascii():
        raise UsageError(
            f"invalid platform {text!r}", hint="a platform is OS/ARCHITECTURE[/VARIANT]"
        )
    if len(parts) > 1:
        return _normalize(*parts)
    word = parts[0]
    if word in _KNOWN_SYSTEMS:
        return _normalize(word, host_platform().architecture)
    if word in _KNOWN_ARCHITECTURES or word in _ARCHITECTURES:
        return _normalize("linux", word)
    raise UsageError(
        f"invalid platform {text!r}: unknown operating system or architecture",
        hint="a platform is OS/ARCHITECTURE[/VARIANT]",
    )


def host_platform() -> Platform:
    """What containers are here: Linux, on this machine's processor."""
    if sys.platform == "win32":
        machine = os.environ.get("PROCESSOR_ARCHITECTURE", "AMD64").lower()
    else:
        machine = os.uname().machine
    return _normalize("linux", machine)


def platform_of(fields: Mapping[str, Any]) -> Platform:
    """The platform in a descriptor's `platform` or in an image's config."""
    return _normalize(
        str(fields.get("os") or "linux"),
        str(fields.get("architecture") or ""),
        str(fields.get("variant") or ""),
    )


def foreign_architecture(fields: Mapping[str, Any]) -> str:
    """The processor that an image's programs are for, if it is another than this machine's."""
    wanted = platform_of(fields).architecture
    return "" if wanted == host_platform().architecture else wanted


def acceptable(wanted: Platform) -> list[Platform]:
    """What runs where `wanted` runs, the best first."""
    found = [wanted]
    family, variant = wanted.architecture, wanted.variant
    if family == "arm64" and variant:
        number = _number(variant, 8)
        older = [f"v{n}" for n in range(number - 1, 8, -1)]
        found += _variants(wanted, "arm64", [*older, ""])
    if family == "arm64":
        found += _variants(wanted, "arm", ["v8", "v7", "v6", "v5"])
    elif family == "arm":
        number = _number(variant, 7)
        found += _variants(wanted, "arm", [f"v{n}" for n in range(number - 1, 4, -1)])
    elif family == "amd64":
        number = _number(variant, 1)
        older = [f"v{n}" if n > 1 else "" for n in range(number - 1, 0, -1)]
        found += _variants(wanted, "amd64", older)
        found += _variants(wanted, "386", [""])
    return found


def _number(variant: str, default: int) -> int:
    """The number of a variant, `v8`; there are no two digits of them."""
    number = read_natural(variant[1:])
    return number if 0 <= number < 100 else default


def choose_manifest(entries: Sequence[Mapping[str, Any]], wanted: Platform) -> Mapping[str, Any]:
    """The entry of an index that suits `wanted` best. Raises NotFound where none does.

    Attestations (`unknown/unknown`) are no images. An entry that does not say its
    platform is taken where nothing that does say it fits.
    """
    by_platform: dict[Platform, Mapping[str, Any]] = {}
    unsaid: Mapping[str, Any] | None = None
    for entry in entries:
        fields = entry.get("platform")
        if not fields:
            unsaid = unsaid or entry
        elif fields.get("architecture") != "unknown" and fields.get("os") != "unknown":
            by_platform.setdefault(platform_of(fields), entry)
    for platform in acceptable(wanted):
        if platform in by_platform:
            return by_platform[platform]
    if unsaid:
        return unsaid
    offered = ", ".join(sorted(map(str, by_platform))) or "no platform at all"
    raise NotFound(
        f"no matching manifest for {_spell_out(wanted)} in the manifest list entries",
        hint=f"the image is made for {offered}",
    )


def _spell_out(platform: Platform) -> str:
    """`platform` as docker says it here, with the variant that arm64 always has."""
    return f"{platform}/v8" if str(platform) == "linux/arm64" else str(platform)


def _variants(like: Platform, architecture: str, variants: list[str]) -> list[Platform]:
    return [Platform(os=like.os, architecture=architecture, variant=name) for name in variants]


def _normalize(system: str, architecture: str, variant: str = "") -> Platform:
    system = {"macos": "darwin"}.get(system, system)
    architecture, implied = _ARCHITECTURES.get(architecture, (architecture, ""))
    variant = variant or implied
    if variant[:1].isdigit():
        variant = f"v{variant}"
    if architecture == "arm" and not variant:
        variant = "v7"
    elif (architecture, variant) in (("arm64", "v8"), ("amd64", "v1")):
        variant = ""
    return Platform(os=system, architecture=architecture, variant=variant)
