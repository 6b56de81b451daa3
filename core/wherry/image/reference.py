"""How an image is named: docker's reference grammar, read exactly as docker reads it.

    reference := name [":" tag] ["@" digest]
    name      := [domain "/"] component *("/" component)

A name without a domain is one of docker.io, and one without a slash is in docker.io's
`library`. The grammar is scanned by hand: `wherry run` reads a reference, and `re`
alone would cost it more than that.
"""

from __future__ import annotations

from wherry.errors import UsageError
from wherry.values import value

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
OFFICIAL = "library/"

_LEGACY_DOMAIN = "index.docker.io"
_MAX_NAME = 255
_MAX_TAG = 128

_DIGITS = frozenset("0123456789")
_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz")
_ALPHA = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_LOWER_ALNUM = _LOWER | _DIGITS
_ALNUM = _ALPHA | _DIGITS
_WORD = _ALNUM | {"_"}
_HEX = _DIGITS | frozenset("abcdef")

_DIGEST_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}


@value
class Reference:
    """An image in a repository: by tag, by digest, or both."""

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """The repository with its domain: `docker.io/library/busybox`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as people write it: `busybox`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        short = self.path.removeprefix(OFFICIAL)
        return self.path if "/" in short else short

    def canonical(self) -> str:
        """The whole reference: `docker.io/library/busybox:latest`."""
        return self.name + self._suffix()

    def familiar(self) -> str:
        """The reference as people write it: `busybox:latest`."""
        return self.familiar_name + self._suffix()

    def with_tag(self, tag: str) -> Reference:
        """The image of this repository that `tag` names."""
        return Reference(domain=self.domain, path=self.path, tag=tag)

    def with_digest(self, digest: str) -> Reference:
        """The image of this repository that has `digest`."""
        return Reference(domain=self.domain, path=self.path, digest=digest)

    def __str__(self) -> str:
        return self.familiar()

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{tag}@{self.digest}" if self.digest else tag


def parse_reference(text: str, *, default_tag: str | None = DEFAULT_TAG) -> Reference:
    """The image that `text` names; `default_tag` where it says neither tag nor digest."""
    if len(text) == 64 and _HEX.issuperset(text):
        raise UsageError(
            "invalid reference format: "
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    if not text:
        raise UsageError(
            "invalid reference format: repository name must have at least one component"
        )
    domain, rest = _split_domain(text)
    path, tag, digest = _split_suffix(rest)
    before_colon = rest.partition(":")[0]
    if before_colon.lower() != before_colon:
        raise UsageError(
            f"invalid reference format: repository name ({before_colon}) must be lowercase"
        )
    if (
        not _is_domain(domain)
        or not all(map(_is_component, path.split("/")))
        or not (tag is None or is_tag(tag))
    ):
        raise _malformed(text)
    if len(path) > _MAX_NAME:
        raise UsageError(
            "invalid reference format: repository name must not be more than "
            f"{_MAX_NAME} characters"
        )
    if digest is not None:
        check_digest(digest)
    elif tag is None:
        tag = default_tag
    return Reference(domain=domain, path=path, tag=tag, digest=digest)


def is_tag(text: str) -> bool:
    """Whether `text` can be a tag."""
    return (
        0 < len(text) <= _MAX_TAG
        and text[0] in _WORD
        and all(character in _WORD or character in ".-" for character in text)
    )


def check_digest(digest: str) -> None:
    """Raise UsageError unless `digest` is one that can be verified: `sha256:…`."""
    algorithm, _, encoded = digest.partition(":")
    length = _DIGEST_LENGTHS.get(algorithm)
    if length is None:
        raise UsageError(
            f"invalid reference format: unsupported digest algorithm in {digest!r}",
            hint="a digest is sha256: and 64 hexadecimal digits",
        )
    if len(encoded) != length:
        raise UsageError(f"invalid reference format: invalid checksum digest length in {digest!r}")
    if not _HEX.issuperset(encoded):
        raise UsageError(f"invalid reference format: invalid checksum digest format in {digest!r}")


def _malformed(text: str) -> UsageError:
    return UsageError(
        f"invalid reference format: {text!r}", hint="an image is [HOST[:PORT]/]NAME[:TAG][@DIGEST]"
    )


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    # What could not be a component of docker.io's names is a host.
    if slash and (first == "localhost" or "." in first or ":" in first or first != first.lower()):
        domain = DEFAULT_DOMAIN if first == _LEGACY_DOMAIN else first
    else:
        domain, rest = DEFAULT_DOMAIN, text
    if domain == DEFAULT_DOMAIN and "/" not in rest:
        rest = OFFICIAL + rest
    return domain, rest


def _split_suffix(rest: str) -> tuple[str, str | None, str | None]:
    name, at, digest = rest.partition("@")
    path, colon, tag = name.partition(":")
    return path, tag if colon else None, digest if at else None


def _is_domain(text: str) -> bool:
    host, port = text, ""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or not all(c in _HEX or c in "ABCDEF:" for c in host) or not host:
            return False
        return port == "" or _is_port(port)
    colon = text.find(":")
    if colon >= 0:
        host, port = text[:colon], text[colon:]
    return all(map(_is_domain_label, host.split("."))) and (port == "" or _is_port(port))


def _is_port(text: str) -> bool:
    return text[0] == ":" and len(text) > 1 and _DIGITS.issuperset(text[1:])


def _is_domain_label(text: str) -> bool:
    return (
        text != ""
        and text[0] in _ALNUM
        and text[-1] in _ALNUM
        and all(character in _ALNUM or character == "-" for character in text)
    )


def _is_component(text: str) -> bool:
    """Whether `text` is runs of `[a-z0-9]` joined by `.`, `_`, `__` or any number of `-`."""
    if text == "" or text[0] not in _LOWER_ALNUM or text[-1] not in _LOWER_ALNUM:
        return False
    separator = ""
    for character in text:
        if character not in _LOWER_ALNUM:
            separator += character
        elif separator:
            if separator not in (".", "_", "__") and separator.strip("-"):
                return False
            separator = ""
    return True
