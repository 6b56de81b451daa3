"""Mirrors of registries, as containerd's `certs.d/HOST/hosts.toml` names them.

    server = "https://registry.example"             # in the registry's own place
    [host."https://mirror.example"]
      capabilities = ["pull", "resolve"]            # content by digest, what a tag stands for
      ca = "/etc/ssl/mirror.pem"
      skip_verify = true
      override_path = true                          # the URL's path is the API's root
      [host."https://mirror.example".header]
        X-Key = "…"

A pull asks the mirrors in their order and the registry last. What a mirror gives is as
good as its digest; it never sees the credentials that are stored for the registry.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlencode, urlsplit  # noqa: TID253

from wherry import paths
from wherry.errors import CorruptState, WherryError
from wherry.image.auth import find_credentials
from wherry.image.registry import Registry
from wherry.image.transport import (
    Patience,
    Transport,
    Unreachable,
    host_directory,
)
from wherry.values import value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from urllib3 import BaseHTTPResponse

    from wherry.config_file import ConfigFile
    from wherry.image.reference import Reference
    from wherry.image.registry import BlobStream, Manifest
    from wherry.oci.image_spec import Descriptor

    T = TypeVar("T")

_CAPABILITIES = frozenset(("pull", "resolve", "push"))
_KNOWN = frozenset(("capabilities", "ca", "skip_verify", "override_path", "header"))
# What a mirror cannot do at once the registry does.
_PATIENCE = Patience(attempts=2, longest_asked=2.0, connect_timeout=5.0, read_timeout=30.0)


@value
class MirrorHost:
    """One `[host]` of a hosts.toml."""

    url: str
    capabilities: frozenset[str] = _CAPABILITIES
    authorities: tuple[str, ...] = ()
    skip_verify: bool = False
    override_path: bool = False
    headers: Mapping[str, str] = {}


def find_mirrors(domain: str) -> list[MirrorHost]:
    """The mirrors of a registry, in their order. Raises CorruptState for a file that is wrong."""
    # The user's own file counts before the system's.
    for parent in reversed((*paths.certificate_parents(), "/etc/containerd")):
        for name in (domain, "_default"):
            path = os.path.join(host_directory(parent, name), "hosts.toml")
            if os.path.isfile(path):
                return _read(path)
    return []


def _read(path: str) -> list[MirrorHost]:
    import tomllib

    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
        hosts = [_host(url, table) for url, table in content.get("host", {}).items()]
        if server := content.get("server"):
            hosts.append(MirrorHost(url=_checked(server)))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CorruptState(f"cannot use {path}: {error}") from error
    return hosts


def _host(url: str, table: dict[str, Any]) -> MirrorHost:
    if unknown := set(table) - _KNOWN:
        raise ValueError(
            f"{min(unknown)!r} of {url} is not supported (client certificates go into"
            f" certs.d/{urlsplit(url).netloc}/)"
        )
    capabilities = frozenset(map(str, table.get("capabilities", _CAPABILITIES)))
    if wrong := capabilities - _CAPABILITIES:
        raise ValueError(f"{url} has the unknown capability {min(wrong)!r}")
    authorities = table.get("ca", [])
    return MirrorHost(
        url=_checked(url),
        capabilities=capabilities,
        authorities=(authorities,) if isinstance(authorities, str) else tuple(authorities),
        skip_verify=table.get("skip_verify") is True,
        override_path=table.get("override_path") is True,
        headers={
            name: ", ".join(each) if isinstance(each, list) else str(each)
            for name, each in table.get("header", {}).items()
        },
    )


def _checked(url: object) -> str:
    """A host's URL; one without a scheme is HTTPS."""
    text = str(url) if "://" in str(url) else f"https://{url}"
    parts = urlsplit(text)
    if parts.scheme not in ("https", "http") or not parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"{url!r} is no registry's URL")
    return text.rstrip("/")


class Mirror(Registry):
    """A registry that has what another one has."""

    def __init__(self, host: MirrorHost, domain: str, config: ConfigFile) -> None:
        name = urlsplit(host.url).netloc
        super().__init__(
            name,
            transport=Transport(
                insecure=frozenset((name,)) if host.skip_verify else frozenset(),
                patience=_PATIENCE,
                authorities=host.authorities,
            ),
            credentials=find_credentials(config, name),
        )
        self.host = name
        self.capabilities = host.capabilities
        self._headers = host.headers
        self._root = host.url if host.override_path else f"{host.url}/v2"
        self._query = urlencode({"ns": domain})

    def url(self, path: str) -> str:
        if "://" in path:
            return path
        mark = "&" if "?" in path else "?"
        return f"{self._root}{path.removeprefix('/v2')}{mark}{self._query}"

    def call(
        self,
        method: str,
        path: str,
        scopes: frozenset[str],
        headers: dict[str, str] | None = None,
        body: Any = None,
    ) -> BaseHTTPResponse:
        return super().call(method, path, scopes, {**self._headers, **(headers or {})}, body)


class MirroredRegistry(Registry):
    """A registry that is asked for what none of its mirrors can give."""

    def __init__(self, mirrors: Sequence[Mirror], domain: str, **options: Any) -> None:
        super().__init__(domain, **options)
        self._mirrors = list(mirrors)
        self._given: dict[str, Mirror] = {}

    def _ask(self, capability: str, ask: Callable[[Mirror], T | None]) -> T | None:
        """The answer of the first mirror that has one."""
        for mirror in list(self._mirrors):
            if capability not in mirror.capabilities:
                continue
            try:
                if (answer := ask(mirror)) is not None:
                    return answer
            except Unreachable:
                self._forget(mirror)
            except WherryError:
                continue
        return None

    def _forget(self, mirror: Mirror) -> None:
        if mirror in self._mirrors:
            self._mirrors.remove(mirror)

    def head_manifest(self, reference: Reference) -> Descriptor | None:
        found = self._ask("resolve", lambda mirror: mirror.head_manifest(reference))
        return found or super().head_manifest(reference)

    def manifest(self, reference: Reference) -> Manifest:
        capability = "pull" if reference.digest else "resolve"
        found = self._ask(capability, lambda mirror: mirror.manifest(reference))
        return found or super().manifest(reference)

    def read_blob(self, reference: Reference, digest: str, size: int) -> bytes:
        found = self._ask("pull", lambda mirror: mirror.read_blob(reference, digest, size))
        return super().read_blob(reference, digest, size) if found is None else found

    def open_blob(self, reference: Reference, digest: str, offset: int = 0) -> BlobStream:
        def ask(mirror: Mirror) -> BlobStream:
            stream = mirror.open_blob(reference, digest, offset)
            self._given[digest] = mirror
            return stream

        found = self._ask("pull", ask)
        if found is None:
            self._given.pop(digest, None)
            return super().open_blob(reference, digest, offset)
        return found

    def blame(self, digest: str) -> bool:
        mirror = self._given.pop(digest, None)
        if mirror is None:
            return False
        self._forget(mirror)
        return True
