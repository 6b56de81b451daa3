"""A client of one registry: the distribution specification, version 1.1.

It moves manifests and blobs, and turns what a registry answers into our errors. What
an image is made of, and where it is kept, is for `pull` and `push` to know.
"""

from __future__ import annotations

import hashlib
import json
import threading
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit  # noqa: TID253

from wherry.config_file import ConfigFile
from wherry.errors import AccessDenied, CorruptState, NotFound, RegistryError, Unsupported
from wherry.image.auth import Authenticator, find_credentials, pull_scopes, push_scopes
from wherry.image.reference import DEFAULT_DOMAIN
from wherry.image.transport import Transport, http_errors
from wherry.values import value
from wherry.words import read_natural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from urllib3 import BaseHTTPResponse

    from wherry.image.auth import Credentials
    from wherry.image.reference import Reference
    from wherry.oci.image_spec import Descriptor

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEXES = frozenset((OCI_INDEX, DOCKER_INDEX))
MANIFESTS = frozenset((OCI_MANIFEST, DOCKER_MANIFEST))

# Asked for by content type too, so that a registry need not convert to what we refuse.
_ACCEPT = ", ".join((OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST))

_DOCKER_IO_HOST = "registry-1.docker.io"
_MAX_MANIFEST = 4 << 20
_MAX_ERROR = 64 << 10
_PIECE = 1 << 18


@value
class Manifest:
    """A manifest or an index, byte for byte as the registry keeps it."""

    content: bytes
    media_type: str
    digest: str

    @property
    def descriptor(self) -> Descriptor:
        return {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": len(self.content),
        }

    def document(self) -> dict[str, Any]:
        """The manifest read as JSON. Raises CorruptState."""
        try:
            document = json.loads(self.content)
        except ValueError as error:
            raise CorruptState(f"manifest {self.digest} is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise CorruptState(f"manifest {self.digest} is not a JSON object")
        return document


class Registry:
    """One registry, as one user; safe to use from several threads."""

    def __init__(
        self,
        domain: str,
        *,
        transport: Transport,
        credentials: Credentials | None = None,
        on_warning: Callable[[str], None] | None = None,
        chunk_size: int = 64 << 20,
        keep_identity: bool = False,
    ) -> None:
        """A blob larger than `chunk_size` is sent in several requests.

        `keep_identity` asks token servers for a token to be kept in the password's place.
        """
        self.domain = domain
        self.chunk_size = chunk_size
        self.transport = transport
        self.host = _DOCKER_IO_HOST if domain == DEFAULT_DOMAIN else domain
        self.auth = Authenticator(transport, credentials, self.host, keep_identity=keep_identity)
        self._on_warning = on_warning
        self._warned: set[str] = set()
        # What the registry has said of its pull limit last; "" where it has none.
        self.limit = ""
        self._base = ""
        self._lock = threading.Lock()

    # --- the registry itself ------------------------------------------------------

    def check_access(self) -> None:
        """Ask for the registry's root with our credentials. Raises AccessDenied."""
        response = self.call("GET", "/v2/", frozenset())
        if response.status == 404:
            response.drain_conn()
            raise RegistryError(f"{self.host} is not a registry: it knows no /v2/")
        self.expect(response, (200,), f"cannot log in to {self.domain}")
        response.drain_conn()

    def get(self, path: str, scope: str = "") -> BaseHTTPResponse:
        """The answer to a GET of what is not in the specification."""
        return self.call("GET", path, frozenset((scope,)) if scope else frozenset())

    def url(self, path: str) -> str:
        if "://" in path:
            return path
        with self._lock:
            if not self._base:
                self._base = f"{self._find_scheme()}://{self.host}"
            return urljoin(self._base, path)

    def _find_scheme(self) -> str:
        """`https`, or `http` where that is acceptable and all that the registry speaks."""
        if not self.transport.is_insecure(self.host):
            return "https"
        try:
            self.transport.request("HEAD", f"https://{self.host}/v2/", {}, retry=False).drain_conn()
        except RegistryError as error:
            if "certificate" in error.message:
                raise
            return "http"
        return "https"

    # --- manifests ----------------------------------------------------------------

    def head_manifest(self, reference: Reference) -> Descriptor | None:
        """What a tag stands for now, without its content; None where that cannot be said."""
        response = self.call(
            "HEAD", _manifest_path(reference), pull_scopes(reference.path), {"Accept": _ACCEPT}
        )
        response.drain_conn()
        digest = response.headers.get("Docker-Content-Digest", "")
        size = read_natural(response.headers.get("Content-Length", ""))
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        if response.status != 200 or not digest or size < 0 or not media_type:
            return None
        return {"mediaType": media_type, "digest": digest, "size": size}

    def manifest(self, reference: Reference) -> Manifest:
        """The manifest or index that `reference` names, its digest verified."""
        response = self.call(
            "GET", _manifest_path(reference), pull_scopes(reference.path), {"Accept": _ACCEPT}
        )
        if response.status == 404:
            self._raise_not_found(response, reference)
        self.expect(response, (200,), f"cannot pull {reference.familiar()}", reference)
        content = self._read(response, _MAX_MANIFEST, f"the manifest of {reference.familiar()}")
        promised = reference.digest or response.headers.get("Docker-Content-Digest")
        if promised:
            verify_digest(content, promised, f"the manifest of {reference.familiar()}")
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        return read_manifest(content, reference, media_type)

    def put_manifest(self, reference: Reference, content: bytes, media_type: str) -> str:
        """Put a manifest under `reference`'s tag or digest; the digest is returned."""
        response = self.call(
            "PUT",
            _manifest_path(reference),
            push_scopes(reference.path),
            {"Content-Type": media_type},
            content,
        )
        self.expect(response, (200, 201, 202), f"cannot push {reference.familiar()}", reference)
        response.drain_conn()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        kept = response.headers.get("Docker-Content-Digest", digest)
        if kept.startswith("sha256:") and kept != digest:
            raise RegistryError(
                f"cannot push {reference.familiar()}: {self.host} keeps {kept} instead of {digest}"
            )
        if b'"subject"' in content and "OCI-Subject" not in response.headers:
            from wherry.image.referrers import add_referrer

            pushed = Manifest(content=content, media_type=media_type, digest=digest)
            add_referrer(self, reference, pushed)
        return digest

    def tags(self, reference: Reference) -> list[str]:
        """All tags of a repository, however many pages they take."""
        tags: list[str] = []
        url = f"/v2/{reference.path}/tags/list?n=1000"
        seen: set[str] = set()
        while url not in seen:
            seen.add(url)
            response = self.call("GET", url, pull_scopes(reference.path))
            self.expect(response, (200,), f"cannot list {reference.familiar_name}", reference)
            content = self._read(response, _MAX_MANIFEST, f"the tags of {reference.familiar_name}")
            try:
                tags.extend(map(str, json.loads(content).get("tags") or ()))
            except (ValueError, AttributeError) as error:
                raise RegistryError(
                    f"cannot list {reference.familiar_name}: {self.host} gave no list of tags"
                ) from error
            link = response.headers.get("Link", "")
            if 'rel="next"' not in link and "rel=next" not in link:
                break
            target = link[link.find("<") + 1 : link.find(">")]
            url = urljoin(self.url(url), target)
        return tags

    # --- blobs --------------------------------------------------------------------

    def open_blob(self, reference: Reference, digest: str, offset: int = 0) -> BlobStream:
        """The content of a blob from `offset` on, or from its start where that cannot be had.

        `BlobStream.offset` says which.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        response = self.call(
            "GET", f"/v2/{reference.path}/blobs/{digest}", pull_scopes(reference.path), headers
        )
        if response.status == 416:
            response.drain_conn()
            return self.open_blob(reference, digest)
        self.expect(response, (200, 206), f"cannot pull {digest}", reference)
        return BlobStream(response, self.host, _range_start(response))

    def open_url(self, url: str, offset: int = 0) -> BlobStream:
        """The content behind a foreign layer's URL, as `open_blob`; nobody is told who we are."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        response = self.transport.request("GET", url, headers)
        host = urlsplit(url).netloc
        if response.status == 416:
            response.drain_conn()
            return self.open_url(url)
        if response.status not in (200, 206):
            response.drain_conn()
            raise RegistryError(f"cannot fetch {url}: {host} answered {response.status}")
        return BlobStream(response, host, _range_start(response))

    def blame(self, digest: str) -> bool:  # noqa: ARG002
        """A blob came with the wrong content; whether another source may have the right one."""
        return False

    def read_blob(self, reference: Reference, digest: str, size: int) -> bytes:
        """The content of a small blob, verified."""
        response = self.call(
            "GET", f"/v2/{reference.path}/blobs/{digest}", pull_scopes(reference.path)
        )
        self.expect(response, (200,), f"cannot pull {digest}", reference)
        content = self._read(response, size, f"blob {digest}")
        verify_digest(content, digest, f"blob {digest}")
        return content

    def has_blob(self, reference: Reference, digest: str) -> bool:
        """Whether the repository has a blob."""
        response = self.call(
            "HEAD", f"/v2/{reference.path}/blobs/{digest}", push_scopes(reference.path)
        )
        response.drain_conn()
        if response.status in (401, 403):
            # A HEAD carries no body to explain itself.
            raise self._denied("push access denied", reference, "")
        return response.status == 200

    # --- asking -------------------------------------------------------------------

    def call(
        self,
        method: str,
        path: str,
        scopes: frozenset[str],
        headers: dict[str, str] | None = None,
        body: bytes | Callable[[], Iterator[bytes]] | None = None,
    ) -> BaseHTTPResponse:
        """One request with our authorization; a body that is not bytes is sent once only."""
        url = self.url(path)
        ours = urlsplit(url).netloc == self.host
        for attempt in range(3):
            sent = dict(headers or {})
            authorization = self.auth.header(scopes) if ours else None
            if authorization:
                sent["Authorization"] = authorization
            is_stream = callable(body)
            response = self.transport.request(
                method, url, sent, body=body() if callable(body) else body, retry=not is_stream
            )
            self._show_warnings(response)
            self.limit = _limit(response) or self.limit
            challenge = response.headers.get("WWW-Authenticate", "")
            if response.status != 401 or not ours or attempt == 2:
                break
            if not self.auth.answer(challenge, scopes, authorization):
                break
            response.drain_conn()
        return response

    def _show_warnings(self, response: BaseHTTPResponse) -> None:
        """Pass on what the registry wants its users to read (`Warning: 299 - "…"`)."""
        for header in response.headers.getlist("Warning"):
            code, _, rest = header.partition(" ")
            text = rest.partition(" ")[2].strip()
            if code == "299" and text and text not in self._warned:
                self._warned.add(text)
                if self._on_warning:
                    self._on_warning(text.strip('"').replace('\\"', '"'))

    def _read(self, response: BaseHTTPResponse, limit: int, what: str) -> bytes:
        with http_errors(self.host):
            content = response.read(limit + 1)
            if len(content) > limit:
                response.close()
                raise CorruptState(f"{what} is larger than {limit} bytes")
            response.release_conn()
        return content

    # --- what went wrong ----------------------------------------------------------

    def expect(
        self,
        response: BaseHTTPResponse,
        statuses: tuple[int, ...],
        action: str,
        reference: Reference | None = None,
    ) -> None:
        """Raise the error that the answer stands for, unless it is one of `statuses`."""
        if response.status in statuses:
            return
        codes, text = self._error(response)
        if response.status in (401, 403):
            verb = "push" if action.startswith("cannot push") else "pull"
            raise self._denied(f"{verb} access denied", reference, text)
        if response.status == 429 or "TOOMANYREQUESTS" in codes:
            limit = response.headers.get("RateLimit-Limit", "").partition(";")[0]
            allowed = f", {limit} are allowed" if limit else ""
            raise RegistryError(
                f"{action}: {self.host} says: too many requests{allowed}"
                f"{f' ({text})' if text else ''}",
                hint=f"wherry login {self.domain} may raise the limit",
            )
        if response.status == 404 and "NAME_UNKNOWN" in codes and reference:
            raise self._denied("pull access denied", reference, text)
        if response.status == 404:
            raise NotFound(f"{action}: {text or 'not found'}")
        raise RegistryError(
            f"{action}: {self.host} answered {response.status}{f': {text}' if text else ''}"
        )

    def _raise_not_found(self, response: BaseHTTPResponse, reference: Reference) -> None:
        codes, text = self._error(response)
        if "NAME_UNKNOWN" in codes:
            raise self._denied("pull access denied", reference, text)
        raise NotFound(f"manifest for {reference.familiar()} not found: manifest unknown")

    def _denied(self, what: str, reference: Reference | None, text: str) -> AccessDenied:
        if reference is None:
            why = "incorrect username or password" if self.auth.credentials else text
            return AccessDenied(f"{self.domain} denied access: {why or 'unauthorized'}")
        to_domain = "" if self.domain == DEFAULT_DOMAIN else f" {self.domain}"
        return AccessDenied(
            f"{what} for {reference.familiar_name}, repository does not exist or may require "
            f"'wherry login{to_domain}'{f': {text}' if text else ''}"
        )

    def _error(self, response: BaseHTTPResponse) -> tuple[frozenset[str], str]:
        """The codes and the words of an error's body."""
        with http_errors(self.host):
            content = response.read(_MAX_ERROR)
            response.drain_conn()
        try:
            errors = json.loads(content)["errors"]
            codes = frozenset(str(error.get("code", "")) for error in errors)
            words = [str(e.get("message") or e.get("code") or "") for e in errors]
            return codes, "; ".join(word for word in words if word)
        except (ValueError, KeyError, TypeError, AttributeError):
            text = content[:200].decode("utf-8", "replace").strip()
            return frozenset(), "" if text.startswith("<") else " ".join(text.split())


class BlobStream:
    """The body of an answer, piece by piece."""

    def __init__(self, response: BaseHTTPResponse, host: str, offset: int) -> None:
        self.offset = offset
        self._response = response
        self._host = host

    def __iter__(self) -> Iterator[bytes]:
        """The pieces. Raises Interrupted where the connection is lost on the way."""
        with http_errors(self._host):
            while piece := self._response.read1(_PIECE):
                yield piece

    def close(self) -> None:
        """Let go of the connection; one that was read to the end is used again."""
        if self._response.closed:
            self._response.release_conn()
        else:
            self._response.close()


def open_registry(
    domain: str,
    *,
    config: ConfigFile | None = None,
    credentials: Credentials | None = None,
    insecure: bool = False,
    keep_identity: bool = False,
    on_pause: Callable[[float, str], None] | None = None,
) -> Registry:
    """The registry of `domain` itself, with `credentials` or those stored for it."""
    config = config or ConfigFile()
    names = frozenset(config.insecure_registries()) | ({domain} if insecure else set())
    return Registry(
        domain,
        transport=Transport(insecure=names, on_pause=on_pause),
        credentials=credentials or find_credentials(config, domain),
        keep_identity=keep_identity,
    )


def verify_digest(content: bytes, digest: str, what: str) -> None:
    """Raise CorruptState unless `content` has `digest`."""
    algorithm, _, expected = digest.partition(":")
    if algorithm not in ("sha256", "sha384", "sha512"):
        raise Unsupported(f"{what} has a digest that cannot be verified: {digest}")
    actual = hashlib.new(algorithm, content).hexdigest()
    if actual != expected:
        raise CorruptState(f"{what} is corrupt: digest mismatch: it has {algorithm}:{actual}")


def read_manifest(content: bytes, reference: Reference, media_type: str = "") -> Manifest:
    """`content` as a manifest; what it says itself counts where `media_type` is vague."""
    digest = reference.digest or f"sha256:{hashlib.sha256(content).hexdigest()}"
    known = INDEXES | MANIFESTS
    manifest = Manifest(content=content, media_type=media_type, digest=digest)
    if media_type in known:
        return manifest
    document = manifest.document()
    if document.get("schemaVersion") == 1:
        raise Unsupported(
            f"cannot pull {reference.familiar()}: its manifest has the old schema 1",
            hint="push the image again with a current docker, podman or skopeo",
        )
    said = document.get("mediaType")
    if said is None and document.get("schemaVersion") == 2:
        said = OCI_INDEX if "manifests" in document else OCI_MANIFEST
    if said not in known:
        raise Unsupported(
            f"cannot pull {reference.familiar()}: unsupported manifest type "
            f"{said or media_type or 'unknown'}"
        )
    return Manifest(content=content, media_type=str(said), digest=digest)


def _limit(response: BaseHTTPResponse) -> str:
    """`3 of 100 pulls left in 6 hours`, from docker.io's `ratelimit-remaining: 3;w=21600`."""
    remaining, _, window = response.headers.get("RateLimit-Remaining", "").partition(";w=")
    allowed = response.headers.get("RateLimit-Limit", "").partition(";")[0]
    if read_natural(remaining) < 0:
        return ""
    of = f" of {allowed}" if read_natural(allowed) >= 0 else ""
    seconds = read_natural(window)
    hours = f" in {seconds / 3600:.3g} hours" if seconds >= 0 else ""
    return f"{remaining}{of} pulls left{hours}"


def _manifest_path(reference: Reference) -> str:
    return f"/v2/{reference.path}/manifests/{reference.digest or reference.tag}"


def _range_start(response: BaseHTTPResponse) -> int:
    """Where the body begins: 0 unless it is the part that was asked for."""
    if response.status != 206:
        return 0
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    start = read_natural(rest.partition("-")[0])
    if unit != "bytes" or start < 0:
        raise RegistryError("a registry answered 206 without saying which part it sends")
    return start
