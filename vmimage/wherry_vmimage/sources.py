"""Where packages come from: what the user says, or what the host's own apt uses.

No address is written here. A mirror is named by an option or by WHERRY_DEBIAN_MIRROR;
without one, a Debian or Ubuntu host's apt sources serve, with their keyrings, options,
proxy and certificates, so that a base image comes from where the host's own packages
come from, security updates included.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from wherry.errors import NotFound, UsageError
from wherry_vmimage.control import parse_paragraphs
from wherry_vmimage.uri import parse_uri

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# What a suite is called after its release's name; the second is Debian's before bullseye.
_POCKETS = ("", "-updates", "-security", "/updates")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One suite of an archive, as a line of apt's sources names it."""

    uri: str
    suite: str
    components: tuple[str, ...] = ("main",)
    architectures: tuple[str, ...] = ()  # it is for; none: for all
    signed_by: str = ""  # files, fingerprints or a key itself; "" for the distribution's keyring
    trusted: bool = False  # used without a signature
    check_valid_until: bool = True
    by_hash: bool | None = None  # None: as the Release file says
    from_host: bool = False
    optional: bool = False  # done without, where the mirror has no such suite

    @property
    def public_uri(self) -> str:
        """The address without a user and password."""
        return parse_uri(self.uri).public

    def __str__(self) -> str:
        return f"{self.public_uri} {self.suite}"


@dataclass(frozen=True)
class AptConfig:
    """The host's `apt-config dump`: option names in lower case, lists without their last name."""

    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_host(cls) -> AptConfig:
        if not shutil.which("apt-config"):
            return cls()
        dump = subprocess.run(
            ["apt-config", "dump"], capture_output=True, check=False, stdin=subprocess.DEVNULL
        )
        return cls.parse(dump.stdout.decode(errors="replace"))

    @classmethod
    def parse(cls, dump: str) -> AptConfig:
        lines = re.findall(r'^(\S+?)(?:::)? "(.*)";$', dump, re.MULTILINE)
        return cls({name.lower(): value for name, value in lines})

    def get(self, name: str) -> str:
        return self.options.get(name.lower(), "")

    def is_false(self, name: str) -> bool:
        return self.get(name).lower() in ("no", "false", "0", "off", "without", "disable")

    @property
    def authorities(self) -> str | None:
        """A file of CA certificates to trust besides the system's."""
        path = self.get("Acquire::https::CaInfo")
        return path if path and os.path.isfile(path) else None

    def proxy(self, scheme: str, host: str) -> str | None:
        """The proxy for `host[:port]` as apt chooses it: by its settings, else the environment."""
        name = host.rpartition(":")[0] or host
        chosen = self.get(f"Acquire::{scheme}::Proxy::{name}")
        chosen = chosen or self._detected(scheme, host) or self.get(f"Acquire::{scheme}::Proxy")
        if scheme == "https" and not chosen:
            # As apt does: the proxy for plain HTTP serves both.
            chosen = self.get("Acquire::http::Proxy")
        if chosen.upper() == "DIRECT" or chosen.lower() == "false":
            return None
        if chosen:
            return chosen if "://" in chosen else f"http://{chosen}"
        from wherry.image.transport import proxy_for

        return proxy_for(scheme, host)

    def _detected(self, scheme: str, host: str) -> str:
        """What the host's proxy detection answers, where apt is told to use one."""
        program = self.get(f"Acquire::{scheme}::Proxy-Auto-Detect") or self.get(
            f"Acquire::{scheme}::ProxyAutoDetect"
        )
        if not program or not os.access(program, os.X_OK):
            return ""
        answer = subprocess.run(
            [program, f"{scheme}://{host}/"],
            capture_output=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return answer.stdout.decode(errors="replace").strip()


def sources_from_mirror(
    mirror: str,
    suites: Sequence[str],
    components: Sequence[str],
    *,
    security: str = "",
    guess_pockets: Sequence[str] = (),
) -> list[Source]:
    """The suites of a mirror that the user named; `security` is the mirror of security updates.

    The first suite's pockets in `guess_pockets` are used where the mirror has them.
    """
    mirror, components = _checked(mirror), tuple(components)
    sources = [Source(uri=mirror, suite=suite, components=components) for suite in suites]
    sources += [
        Source(uri=mirror, suite=f"{suites[0]}{pocket}", components=components, optional=True)
        for pocket in guess_pockets
    ]
    if security:
        suite = f"{suites[0]}-security"
        sources.append(Source(uri=_checked(security), suite=suite, components=components))
    return sources


def _checked(mirror: str) -> str:
    uri = parse_uri(mirror)
    if uri.scheme not in ("http", "https", "file") or not (uri.host or uri.path):
        raise UsageError(
            f"not a mirror's address: {mirror!r}",
            hint="it starts with http://, https:// or file:// and holds a directory `dists`",
        )
    return mirror.rstrip("/")


def host_distribution(root: str = "/") -> tuple[str, str]:
    """The host's distribution and release as os-release has them: ("debian", "bookworm")."""
    for path in ("etc/os-release", "usr/lib/os-release"):
        try:
            with open(os.path.join(root, path), encoding="utf-8") as file:
                words = shlex.split(file.read(), comments=True)
        except (OSError, ValueError):
            continue
        fields = dict(word.split("=", 1) for word in words if "=" in word)
        return fields.get("ID", ""), fields.get("VERSION_CODENAME", "")
    return "", ""


def sources_from_host(
    distribution: str,
    suite: str,
    components: Sequence[str] = (),
    *,
    architecture: str,
    root: str = "/",
) -> list[Source]:
    """The host's sources for `suite` of its own distribution, with updates and security updates.

    Another release than the host's is looked for at the same places. Raises NotFound.
    """
    host, release = host_distribution(root)
    everything = list(read_sources(root)) if host == distribution else []
    for known in (suite, release):
        wanted = {f"{known}{pocket}": f"{suite}{pocket}" for pocket in _POCKETS}
        found = [
            source
            for source in everything
            if source.suite in wanted
            and "main" in source.components
            and architecture in (source.architectures or (architecture,))
        ]
        if any(source.suite == known for source in found):
            break
    else:
        raise NotFound(
            f"no mirror of {distribution} {suite} is known",
            hint="name one with --mirror or WHERRY_DEBIAN_MIRROR"
            if host != distribution
            else "the host's apt sources name none; use --mirror or WHERRY_DEBIAN_MIRROR",
        )
    return [
        replace(
            source,
            suite=wanted[source.suite],
            components=tuple(components) or source.components,
            from_host=True,
            # Another release than the host's need not have what the host's has.
            optional=known != suite and source.suite != known,
        )
        for source in found
    ]


def read_sources(root: str = "/") -> Iterator[Source]:
    """What apt reads: `sources.list` and `sources.list.d`, binary packages only."""
    directory = os.path.join(root, "etc/apt/sources.list.d")
    paths = [os.path.join(root, "etc/apt/sources.list")]
    paths += [os.path.join(directory, name) for name in _names(directory)]
    for path in paths:
        if not path.endswith((".list", ".sources")):
            continue
        try:
            with open(path, encoding="utf-8") as file:
                content = file.read()
        except OSError:
            continue
        found = parse_list(content) if path.endswith(".list") else parse_deb822(content)
        for source in found:
            if (uri := _reachable(source.uri, root)) is not None:
                yield replace(source, uri=uri)


_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<rest>.*)")


def parse_list(text: str) -> Iterator[Source]:
    """The one-line style of sources.list(5)."""
    for line in text.splitlines():
        match = _LINE.fullmatch(line.partition("#")[0].strip())
        if match is None:
            continue
        words = (word.partition("=") for word in (match["options"] or "").split())
        options = {name.lower(): value for name, _, value in words}
        yield _source(match["uri"], match["suite"], match["rest"].split(), options)


def parse_deb822(text: str) -> Iterator[Source]:
    """The deb822 style of sources.list(5)."""
    for paragraph in parse_paragraphs(text):
        fields = {name.lower(): value for name, value in paragraph.items()}
        if (
            fields.get("enabled", "yes").lower() == "no"
            or "deb" not in fields.get("types", "").split()
        ):
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield _source(uri, suite, fields.get("components", "").split(), fields)


def _source(uri: str, suite: str, components: Sequence[str], options: Mapping[str, str]) -> Source:
    by_hash = options.get("by-hash", "").lower()
    architectures = options.get("arch") or options.get("architectures", "")
    return Source(
        uri=uri.rstrip("/"),
        suite=suite.rstrip("/") if not suite.endswith("./") else suite,
        components=tuple(components),
        architectures=tuple(architectures.replace(",", " ").split()),
        signed_by=options.get("signed-by", "").strip(),
        trusted=options.get("trusted", "").lower() == "yes",
        check_valid_until=options.get("check-valid-until", "").lower() != "no",
        by_hash={"yes": True, "force": True, "no": False}.get(by_hash),
    )


def _reachable(uri: str, root: str) -> str | None:
    """`uri` as an address to fetch from; None for media and transports that are apt's own."""
    scheme, _, rest = uri.partition(":")
    if scheme in ("http", "https", "file"):
        return uri
    if scheme == "copy":
        return f"file:{rest}"
    if scheme == "mirror+file":
        # Its lines are a mirror and, after a tab, what it is good for; the first will do.
        try:
            with open(
                os.path.join(root, parse_uri(uri).path.lstrip("/")), encoding="utf-8"
            ) as file:
                lines = [line.split("\t")[0].strip() for line in file]
        except OSError:
            return None
        usable = (line for line in lines if line and not line.startswith("#"))
        return next(usable, "").rstrip("/") or None
    return None


def distribution_keyrings(distribution: str, root: str = "/") -> list[str]:
    """The file with the keys that a distribution signs its archives with, if the host has it."""
    names = [f"{distribution}-archive-keyring.{ending}" for ending in ("pgp", "gpg")]
    directory = os.path.join(root, "usr/share/keyrings")
    return [path for name in names if os.path.isfile(path := os.path.join(directory, name))][:1]


def trusted_keyrings(root: str = "/") -> list[str]:
    """The keys that the host's apt trusts for every source that does not name its own."""
    apt = os.path.join(root, "etc/apt")
    parts = os.path.join(apt, "trusted.gpg.d")
    paths = [os.path.join(parts, n) for n in _names(parts) if n.endswith((".gpg", ".asc"))]
    return [path for path in [os.path.join(apt, "trusted.gpg"), *paths] if os.path.isfile(path)]


def _names(directory: str) -> list[str]:
    """The names of the files in `directory`, sorted; none where it does not exist."""
    try:
        with os.scandir(directory) as entries:
            return sorted(entry.name for entry in entries)
    except OSError:
        return []
