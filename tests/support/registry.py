"""Registries on loopback: Debian's `docker-registry`, a proxy that misbehaves in front of
it, and a token server; and images that are made in memory."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import io
import json
import os
import re
import select
import shutil
import subprocess
import tarfile
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from support.requirements import need_tool
from wherry.image.platform import host_platform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

_START_SECONDS = 60.0


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def descriptor_of(content: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


@dataclass(frozen=True)
class MemoryImage:
    """An image of one platform: a manifest, and its blobs by digest."""

    manifest: bytes
    blobs: dict[str, bytes]
    diff_ids: list[str]
    media_type: str = OCI_MANIFEST

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    @property
    def layers(self) -> list[dict[str, Any]]:
        layers: list[dict[str, Any]] = json.loads(self.manifest)["layers"]
        return layers


def make_layer(files: Mapping[str, bytes]) -> bytes:
    """An uncompressed layer with `files`, always the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o644
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def make_image(
    *layers: Mapping[str, bytes], architecture: str | None = None, variant: str = ""
) -> MemoryImage:
    """An OCI image with one layer for each mapping of names to contents."""
    blobs: dict[str, bytes] = {}
    descriptors, diff_ids = [], []
    for files in layers:
        tar = make_layer(files)
        blob = gzip.compress(tar, compresslevel=1, mtime=0)
        blobs[digest_of(blob)] = blob
        descriptors.append(descriptor_of(blob, OCI_LAYER))
        diff_ids.append(digest_of(tar))
    config = json.dumps(
        {
            "architecture": architecture or host_platform().architecture,
            "os": "linux",
            **({"variant": variant} if variant else {}),
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
    ).encode()
    blobs[digest_of(config)] = config
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor_of(config, OCI_CONFIG),
            "layers": descriptors,
        }
    ).encode()
    return MemoryImage(manifest=manifest, blobs=blobs, diff_ids=diff_ids)


def make_index(images: Mapping[str, MemoryImage], *, attestation: bool = False) -> bytes:
    """An OCI index with `images` by platform (`linux/arm/v7`)."""
    entries = []
    for platform, image in images.items():
        system, architecture, *variant = platform.split("/")
        entries.append(
            {
                **descriptor_of(image.manifest, image.media_type),
                "platform": {
                    "os": system,
                    "architecture": architecture,
                    **({"variant": variant[0]} if variant else {}),
                },
            }
        )
    if attestation:
        entries.insert(
            0,
            {
                **entries[0],
                "platform": {"os": "unknown", "architecture": "unknown"},
                "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
            },
        )
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()


class RegistryServer:
    """A `docker-registry` of this test's own, on a free port."""

    def __init__(
        self,
        *,
        users: Mapping[str, str] | None = None,
        token_realm: str = "",
        token_certificate: str = "",
        certificate: tuple[str, str] | None = None,
    ) -> None:
        self._directory = tempfile.mkdtemp(prefix="wherry-registry-")
        self._users = users or {}
        http: dict[str, Any] = {"addr": "127.0.0.1:0", "secret": "for tests"}
        if certificate:
            http["tls"] = {"certificate": certificate[0], "key": certificate[1]}
        self.is_tls = certificate is not None
        config: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": f"{self._directory}/data"}},
            "http": http,
        }
        if users:
            config["auth"] = {"htpasswd": {"realm": "tests", "path": self._write_htpasswd(users)}}
        if token_realm:
            config["auth"] = {
                "token": {
                    "realm": token_realm,
                    "service": "tests",
                    "issuer": "tests",
                    "rootcertbundle": token_certificate,
                }
            }
        path = f"{self._directory}/config.yml"
        with open(path, "w") as file:
            json.dump(config, file)  # JSON is YAML
        self._process = subprocess.Popen(
            ["docker-registry", "serve", path], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        self.port = self._wait_for_port()
        self._drain = threading.Thread(target=self._read_log, daemon=True)
        self._drain.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _write_htpasswd(self, users: Mapping[str, str]) -> str:
        import bcrypt

        path = f"{self._directory}/htpasswd"
        with open(path, "w") as file:
            for name, password in users.items():
                hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
                # docker-registry knows this algorithm by its older prefix.
                file.write(f"{name}:{hashed.replace('$2b$', '$2y$')}\n")
        return path

    def _wait_for_port(self) -> int:
        assert self._process.stderr
        log = b""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self._process.stderr], [], [], 0.5)
            if not ready:
                continue
            piece = os.read(self._process.stderr.fileno(), 65536)
            if not piece:
                break
            log += piece
            if found := re.search(rb"listening on 127\.0\.0\.1:(\d+)", log):
                return int(found[1])
        self.close()
        raise AssertionError(f"docker-registry did not start: {log.decode()}")

    def _read_log(self) -> None:
        assert self._process.stderr
        while os.read(self._process.stderr.fileno(), 65536):
            pass

    def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One plain request, as the first of `users` where there are any."""
        sent = dict(headers or {})
        for name, password in list(self._users.items())[:1]:
            pair = base64.b64encode(f"{name}:{password}".encode()).decode()
            sent["Authorization"] = f"Basic {pair}"
        if self.is_tls:
            import ssl

            context = ssl._create_unverified_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, context=context
            )
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port)
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def put_image(self, repository: str, tag: str, image: MemoryImage) -> None:
        """Put `image` under `tag` (or its digest where `tag` is empty)."""
        for digest, blob in image.blobs.items():
            self.put_blob(repository, digest, blob)
        self.put_manifest(repository, tag or image.digest, image.manifest, image.media_type)

    def put_blob(self, repository: str, digest: str, blob: bytes) -> None:
        _, headers, _ = self.request("POST", f"/v2/{repository}/blobs/uploads/")
        parts = urlsplit(headers["Location"])
        status, _, body = self.request(
            "PUT",
            f"{parts.path}?{parts.query}&digest={digest}",
            blob,
            {"Content-Type": "application/octet-stream"},
        )
        assert status == 201, body

    def put_manifest(
        self, repository: str, tag: str, manifest: bytes, media_type: str = OCI_MANIFEST
    ) -> None:
        status, _, body = self.request(
            "PUT", f"/v2/{repository}/manifests/{tag}", manifest, {"Content-Type": media_type}
        )
        assert status == 201, body

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stderr and not hasattr(self, "_drain"):
            self._process.stderr.close()
        elif self._process.stderr:
            self._drain.join()
            self._process.stderr.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> RegistryServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass
class Mischief:
    """What a `FlakyProxy` does to one request instead of passing it on as it is."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut_after: int | None = None  # send so many bytes of the answer, then hang up
    swallow_after: int | None = None  # read so many bytes of the request, then hang up
    change: Callable[[bytes], bytes] | None = None
    hold: threading.Event | None = None  # after `cut_after` bytes wait for this, then go on


@dataclass(frozen=True)
class Asked:
    """A request that a `FlakyProxy` got; `count` is how often it got the same before."""

    method: str
    path: str
    count: int
    headers: dict[str, str]


class FlakyProxy:
    """Passes requests on to a registry, unless `mischief` says otherwise.

    `served` counts the bytes of answers by path, `received` those of whole requests by
    method; `requests` has every request.
    """

    def __init__(
        self, backend: str, mischief: Callable[[Asked], Mischief | None] = lambda asked: None
    ) -> None:
        self.backend = backend
        self.mischief = mischief
        self.served: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.requests: list[Asked] = []
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                pass

            def handle(self) -> None:
                try:
                    super().handle()
                except ConnectionError:
                    pass  # a client that was killed, or has given up

            def _serve(self) -> None:
                proxy._serve(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def count(self, method: str, part: str) -> int:
        """How many requests of `method` had `part` in their path."""
        return sum(1 for asked in self.requests if asked.method == method and part in asked.path)

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        method, path = handler.command, handler.path
        with self._lock:
            headers = {name.title(): text for name, text in handler.headers.items()}
            asked = Asked(method, path, self._counts[method, path], headers)
            self._counts[method, path] += 1
            self.requests.append(asked)
        mischief = self.mischief(asked) or Mischief()
        length = int(handler.headers.get("Content-Length") or 0)
        if mischief.swallow_after is not None:
            handler.rfile.read(min(mischief.swallow_after, length))
            self._hang_up(handler)
            return
        content = handler.rfile.read(length)
        with self._lock:
            self.received[method] += length
        if mischief.status:
            status, headers, body = mischief.status, mischief.headers, mischief.body or b""
        else:
            status, headers, body = self._forward(method, path, handler, content)
            headers |= mischief.headers
            if mischief.change:
                body = mischief.change(body)
        self._respond(handler, status, headers, body, mischief)

    def _forward(
        self, method: str, path: str, handler: BaseHTTPRequestHandler, content: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.backend)
        try:
            # The registry writes its Location headers after this Host.
            sent = {k: v for k, v in handler.headers.items() if k.lower() != "connection"}
            connection.request(method, path, content, sent)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def _respond(
        self,
        handler: BaseHTTPRequestHandler,
        status: int,
        headers: dict[str, str],
        body: bytes,
        mischief: Mischief,
    ) -> None:
        path = handler.path.partition("?")[0]
        handler.send_response_only(status)
        head = handler.command == "HEAD"
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection") or head:
                handler.send_header(name, value)
        if not head:
            handler.send_header("Content-Length", str(len(body)))
        elif status != 200 and "Content-Length" not in headers:
            handler.send_header("Content-Length", "0")
        handler.end_headers()
        if head:
            return
        try:
            if mischief.cut_after is None:
                self._send(handler, path, body)
                return
            self._send(handler, path, body[: mischief.cut_after])
            if mischief.hold:
                mischief.hold.wait(60)
                self._send(handler, path, body[mischief.cut_after :])
            else:
                self._hang_up(handler)
        except OSError:
            handler.close_connection = True

    def _send(self, handler: BaseHTTPRequestHandler, path: str, body: bytes) -> None:
        for start in range(0, len(body), 65536):
            piece = body[start : start + 65536]
            handler.wfile.write(piece)
            handler.wfile.flush()
            with self._lock:
                self.served[path] += len(piece)

    def _hang_up(self, handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        try:
            handler.connection.shutdown(2)
        except OSError:
            pass

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> FlakyProxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass
class TokenServer:
    """Hands out tokens for a `token_registry`: by GET with Basic, or by an OAuth2 POST."""

    users: dict[str, str]
    refresh_tokens: set[str] = field(default_factory=set)
    lifetime: int = 300
    gives_identity: bool = False
    asked: list[dict[str, list[str]]] = field(default_factory=list)
    valid: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                pass

            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                header = self.headers.get("Authorization", "")
                pair = base64.b64decode(header.removeprefix("Basic ")).decode()
                name, _, password = pair.partition(":")
                outer._answer(self, query, outer.users.get(name) == password and bool(name))

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                form = parse_qs(self.rfile.read(length).decode())
                token = form.get("refresh_token", [""])[0]
                outer._answer(self, form, token in outer.refresh_tokens)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def realm(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/token"

    def _answer(
        self, handler: BaseHTTPRequestHandler, query: dict[str, list[str]], is_known: bool
    ) -> None:
        self.asked.append(query)
        if is_known:
            token = f"token-{len(self.asked)}"
            self.valid.add(token)
            answer: dict[str, Any] = {"access_token": token, "expires_in": self.lifetime}
            if self.gives_identity:
                answer["refresh_token"] = min(self.refresh_tokens)
            body = json.dumps(answer).encode()
        else:
            body = json.dumps({"errors": [{"message": "who are you?"}]}).encode()
        handler.send_response(200 if is_known else 401)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    """An empty registry on loopback, with neither users nor a certificate."""
    need_tool("docker-registry")
    with RegistryServer() as server:
        yield server


@pytest.fixture
def flaky(registry: RegistryServer) -> Iterator[FlakyProxy]:
    """A proxy in front of `registry` that does what its `mischief` says."""
    with FlakyProxy(registry.host) as proxy:
        yield proxy
