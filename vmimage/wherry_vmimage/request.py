"""What a base image is to be made of: a request, with everything filled in that was not said."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from wherry.errors import Unsupported, UsageError
from wherry.image.platform import host_platform, parse_platform
from wherry.image.reference import parse_reference
from wherry_vmimage.image import ARCHITECTURES
from wherry_vmimage.sources import host_distribution, sources_from_host, sources_from_mirror

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wherry_vmimage.sources import AptConfig, Source

Variant = Literal["essential", "apt", "minbase", "important", "standard"]

DISTRIBUTIONS = ("debian", "ubuntu")
_SLIM = "-slim"
# Where to look on a mirror for what came after a release. Debian's security updates are
# in an archive of their own.
_POCKETS = {"debian": ("-updates",), "ubuntu": ("-updates", "-security")}
# What "latest" of a distribution is, where the archive has a word for it.
_LATEST = {"debian": "stable"}
# Mended where they are, and not by updates.
_ROLLING = ("sid", "unstable", "experimental")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be made, out of what."""

    name: str  # "debian:bookworm", "ubuntu:noble", "busybox"
    tags: tuple[str, ...] = ()
    mirror: str = ""
    security_mirror: str = ""
    suites: tuple[str, ...] = ()
    components: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    variant: Variant = "minbase"
    architecture: str = ""  # Debian's word or an image's; "" for this machine's
    keys: bytes = b""  # that may sign the archive; none: those of the distribution
    check_signature: bool = True
    check_valid_until: bool = True
    configure: bool = True
    cache: bool = True

    @property
    def is_busybox(self) -> bool:
        """Whether one static program is the whole of it."""
        return parse_reference(self.name).familiar_name == "busybox"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A request with everything filled in."""

    distribution: str
    suite: str
    slim: bool
    architecture: str
    references: tuple[str, ...]


def target_of(request: Request) -> Target:
    reference = parse_reference(request.name)
    name, tag = reference.familiar_name, reference.tag or "latest"
    if name not in (*DISTRIBUTIONS, "busybox") or reference.digest:
        raise UsageError(
            f"do not know how to make {request.name!r}",
            hint=f"{', '.join(DISTRIBUTIONS)} (with a release, as debian:bookworm) and busybox can "
            "be made; -t gives it another name",
        )
    host, release = host_distribution()
    is_busybox = request.is_busybox
    distribution = (host if host in DISTRIBUTIONS else "debian") if is_busybox else name
    slim = tag.endswith(_SLIM) and not is_busybox
    word = "latest" if is_busybox else tag.removesuffix(_SLIM)
    suite = request.suites[0] if request.suites else word
    if suite == "latest":
        suite = release if is_busybox and host == distribution else _LATEST.get(distribution, "")
    if not suite or suite[0].isdigit():
        raise UsageError(
            f"which release of {distribution}?",
            hint=f"say its code name, as in `wherry bootstrap {distribution}:NAME`",
        )
    tags = request.tags or (request.name,)
    return Target(
        distribution=distribution,
        suite=suite,
        slim=slim,
        architecture=_architecture(request.architecture),
        references=tuple(parse_reference(tag).canonical() for tag in tags),
    )


def _architecture(asked: str) -> str:
    """Debian's word for an architecture that is called by Debian's word or by an image's."""
    if asked in ARCHITECTURES:
        return asked
    platform = parse_platform(asked) if asked else host_platform()
    for word, (architecture, variant) in ARCHITECTURES.items():
        if platform.architecture == architecture and platform.variant in ("", variant):
            return word
    raise Unsupported(f"no Debian architecture is known for {platform}")


def sources_of(request: Request, target: Target, config: AptConfig) -> list[Source]:
    suites = request.suites or (target.suite,)
    if request.mirror:
        sources = sources_from_mirror(
            request.mirror,
            suites,
            request.components or ("main",),
            security=request.security_mirror,
            guess_pockets=_POCKETS[target.distribution] if not request.suites else (),
        )
    else:
        sources = sources_from_host(
            target.distribution,
            target.suite,
            request.components,
            architecture=target.architecture,
        )
        if request.suites:
            sources = [source for source in sources if source.suite in suites]
    if not request.check_valid_until or config.is_false("Acquire::Check-Valid-Until"):
        sources = [replace(source, check_valid_until=False) for source in sources]
    return sources


def lacks_security(target: Target, sources: Sequence[Source]) -> bool:
    """Whether the image will be without the security updates that its release has."""
    return target.suite not in _ROLLING and not any("security" in s.suite for s in sources)
