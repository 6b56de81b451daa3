"""HTTP to registries: certificates, proxies, redirects, retries.

One place where `urllib3` is used and where its errors become ours. A body that is not
what it should be is the caller's to judge; here a request is sent until somebody
answers it, or until there is no more sense in asking.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit  # noqa: TID253 - light, and this module is not

from wherry import __version__, paths
from wherry.errors import AccessDenied, RegistryError
from wherry.values import value
from wherry.words import read_natural

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from urllib3 import BaseHTTPResponse, PoolManager

USER_AGENT = f"wherry/{__version__}"

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_MAX_REDIRECTS = 10
_RETRIED = frozenset((408, 429, 500, 502, 503, 504))


@value
class Patience:
    """How long to keep asking: pauses double from `first` to `longest` seconds, with jitter.

    A registry may ask for a pause of its own, up to `longest_asked`.
    """

    attempts: int = 6
    first: float = 1.0
    longest: float = 20.0
    longest_asked: float = 120.0
    connect_timeout: float = 20.0
    read_timeout: float = 120.0

    def pause(self, attempt: int, asked: float | None = None) -> float:
        """Seconds to wait after failed attempt number `attempt` (from 0)."""
        import random

        if asked is not None:
            return asked
        return min(self.first * 2.0**attempt, self.longest) * random.uniform(0.75, 1.25)

    def is_too_long(self, asked: float | None) -> bool:
        """Whether a registry asks for more waiting than anybody would do."""
        return asked is not None and asked > self.longest_asked


class Interrupted(RegistryError):
    """The connection went away; asking again may work."""


class Unreachable(Interrupted):
    """There was no connection at all; that is retried only where there was one before."""


class Transport:
    """Sends requests; safe to use from several threads."""

    def __init__(
        self,
        *,
        insecure: frozenset[str] = frozenset(),
        patience: Patience | None = None,
        on_pause: Callable[[float, str], None] | None = None,
        proxy: Callable[[str, str], str | None] | None = None,
        authorities: Sequence[str] = (),
    ) -> None:
        """`insecure` names hosts (`host[:port]`) for which plain HTTP and any certificate will do.

        `proxy(scheme, host)` names the proxy where it is not the environment that decides;
        `authorities` are files of CA certificates to trust besides the system's.

        `on_pause(seconds, reason)` is told of every wait before a retry.
        """
        self.patience = patience or Patience()
        self._insecure = insecure
        self._on_pause = on_pause
        self._proxy = proxy or proxy_for
        self._authorities = authorities
        self._pools: dict[tuple[str, str | None], PoolManager] = {}
        self._answered: set[str] = set()
        self._lock = threading.Lock()

    def is_insecure(self, host: str) -> bool:
        """Whether plain HTTP to `host` is acceptable."""
        return host in self._insecure or is_loopback(host)

    def pause(self, attempt: int, reason: str, asked: float | None = None) -> None:
        """Wait before asking again."""
        seconds = self.patience.pause(attempt, asked)
        if self._on_pause:
            self._on_pause(seconds, reason)
        time.sleep(seconds)

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        body: bytes | Iterator[bytes] | None = None,
        retry: bool = True,
    ) -> BaseHTTPResponse:
        """The answer to one request, its body not read yet (`release_conn` or read it whole).

        Redirects are followed, without Authorization to another host. With `retry`, an
        overloaded registry and a lost connection are waited out; `body` must then be bytes.
        """
        attempt = 0
        while True:
            last = not retry or attempt + 1 >= self.patience.attempts
            host = urlsplit(url).netloc
            try:
                response = self._follow(method, url, dict(headers), body)
            except Interrupted as error:
                if last or (isinstance(error, Unreachable) and host not in self._answered):
                    raise
                self.pause(attempt, error.message)
            else:
                self._answered.add(host)
                asked = _retry_after(response.headers.get("Retry-After"))
                if last or response.status not in _RETRIED or self.patience.is_too_long(asked):
                    return response
                response.drain_conn()
                reason = "too many requests" if response.status == 429 else f"{response.status}"
                self.pause(attempt, f"{host} answered: {reason}", asked)
            attempt += 1

    def _follow(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | Iterator[bytes] | None,
    ) -> BaseHTTPResponse:
        for _ in range(_MAX_REDIRECTS):
            response = self._send(method, url, headers, body)
            target = response.headers.get("Location")
            if response.status not in _REDIRECTS or not target or method not in ("GET", "HEAD"):
                return response
            response.drain_conn()
            here, there = urlsplit(url), urlsplit(urljoin(url, target))
            if there.scheme not in ("https", "http"):
                raise RegistryError(f"{here.netloc} redirects to {there.geturl()!r}")
            if here.scheme == "https" != there.scheme and not self.is_insecure(there.netloc):
                raise RegistryError(f"{here.netloc} redirects to plain HTTP ({there.netloc})")
            if (here.scheme, here.netloc) != (there.scheme, there.netloc):
                headers.pop("Authorization", None)
            url = there.geturl()
        raise RegistryError(f"{urlsplit(url).netloc} redirects more than {_MAX_REDIRECTS} times")

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Iterator[bytes] | None,
    ) -> BaseHTTPResponse:
        from urllib3 import Timeout

        parts = urlsplit(url)
        if parts.scheme != "https" and "Authorization" in headers and not is_loopback(parts.netloc):
            raise AccessDenied(
                f"refusing to send credentials to {parts.netloc} over plain HTTP",
                hint="give the registry a certificate, or log out of it",
            )
        timeout = Timeout(connect=self.patience.connect_timeout, read=self.patience.read_timeout)
        with http_errors(parts.netloc):
            return self._pool(parts.scheme, parts.netloc).request(
                method,
                url,
                headers={"User-Agent": USER_AGENT, **headers},
                body=body,
                timeout=timeout,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
            )

    def _pool(self, scheme: str, host: str) -> PoolManager:
        """The connections to hosts that share `host`'s certificates and proxy."""
        proxy = self._proxy(scheme, host)
        key = (host if scheme == "https" else "", proxy)
        with self._lock:
            pool = self._pools.get(key)
            if pool is None:
                context = self._tls_context(host) if scheme == "https" else None
                pool = self._pools[key] = _make_pool(proxy, context)
            return pool

    def _tls_context(self, host: str) -> ssl.SSLContext:
        import ssl

        import truststore
        import urllib3

        directories = list(certificate_directories(host))
        context: ssl.SSLContext
        if host in self._insecure or (is_loopback(host) and not directories):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            # It was asked for, or is loopback: nothing to warn of at every request.
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        else:
            context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for file in self._authorities:
            try:
                context.load_verify_locations(cafile=file)
            except (ssl.SSLError, OSError) as error:
                raise RegistryError(f"cannot use the certificates in {file}: {error}") from error
        for directory in directories:
            _load_certificates(context, directory)
        return context


@contextmanager
def http_errors(host: str) -> Iterator[None]:
    """Turn what `urllib3` raises about `host` into our errors."""
    import ssl

    from urllib3 import exceptions

    try:
        yield
    except exceptions.SSLError as error:
        raise _certificate_error(host, error) from error
    except exceptions.ProxyError as error:
        reason = error.original_error or error
        if isinstance(reason, (exceptions.SSLError, ssl.SSLError)):
            raise _certificate_error(host, reason) from error
        raise RegistryError(
            f"cannot reach {host} through the proxy: {_reason(error)}",
            hint="HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY say which proxy is used",
        ) from error
    except exceptions.NameResolutionError as error:
        raise Unreachable(f"cannot reach {host}: no such host") from error
    except exceptions.NewConnectionError as error:
        raise Unreachable(f"cannot reach {host}: {_reason(error)}") from error
    except exceptions.ConnectTimeoutError as error:
        raise Unreachable(f"cannot reach {host}: connection timed out") from error
    except exceptions.ReadTimeoutError as error:
        raise Interrupted(f"{host} stopped answering") from error
    except (exceptions.HTTPError, ConnectionError, TimeoutError) as error:
        raise Interrupted(f"the connection to {host} was lost: {_reason(error)}") from error


def is_loopback(host: str) -> bool:
    """Whether `host[:port]` is this machine."""
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost":
        return True
    import ipaddress

    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def proxy_for(scheme: str, host: str) -> str | None:
    """The proxy that the environment names for `host[:port]`; none for this machine itself."""
    name = urlsplit(f"//{host}").hostname or ""
    if is_loopback(host) or bypasses_proxy(name, _variable("no_proxy")):
        return None
    proxy = _variable(f"{scheme}_proxy") or _variable("all_proxy")
    if not proxy:
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def bypasses_proxy(host: str, no_proxy: str) -> bool:
    """Whether NO_PROXY's list holds `host`: names, their subdomains, addresses and networks."""
    import ipaddress

    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    for entry in no_proxy.replace(",", " ").lower().split():
        if entry == "*":
            return True
        if address is not None:
            try:
                if address in ipaddress.ip_network(entry.strip("[]"), strict=False):
                    return True
            except ValueError:
                continue
        name = entry.removeprefix("*").rpartition(":")[0] if ":" in entry else entry
        name = name.removeprefix("*").removeprefix(".")
        if host == name or host.endswith(f".{name}"):
            return True
    return False


def host_directory(parent: str, host: str) -> str:
    """The directory of `host[:port]` in the `certs.d` of `parent`."""
    # A colon cannot be in a file name on Windows; docker leaves it out there.
    return os.path.join(parent, "certs.d", host.replace(":", "") if os.name == "nt" else host)


def certificate_directories(host: str) -> Iterator[str]:
    """Where docker and podman keep the certificates of `host[:port]`, those that exist."""
    for parent in paths.certificate_parents():
        directory = host_directory(parent, host)
        if os.path.isdir(directory):
            yield directory


def _load_certificates(context: ssl.SSLContext, directory: str) -> None:
    import ssl

    try:
        names = sorted(entry.name for entry in os.scandir(directory))
        for name in names:
            path = os.path.join(directory, name)
            stem, extension = os.path.splitext(path)
            if extension == ".crt":
                context.load_verify_locations(cafile=path)
            elif extension == ".cert":
                if f"{os.path.basename(stem)}.key" not in names:
                    raise RegistryError(
                        f"missing key {stem}.key for client certificate {path}",
                        hint="CA certificates must use the extension .crt",
                    )
                context.load_cert_chain(path, f"{stem}.key")
            elif extension == ".key" and f"{os.path.basename(stem)}.cert" not in names:
                raise RegistryError(f"missing client certificate {stem}.cert for key {path}")
    except (ssl.SSLError, OSError) as error:
        raise RegistryError(f"cannot use the certificates in {directory}: {error}") from error


def _make_pool(proxy: str | None, context: ssl.SSLContext | None) -> PoolManager:
    from urllib3 import PoolManager, ProxyManager

    if proxy is None:
        return PoolManager(maxsize=8, ssl_context=context)
    parts = urlsplit(proxy)
    if parts.scheme.startswith("socks"):
        try:
            from urllib3.contrib.socks import SOCKSProxyManager
        except ImportError as error:
            raise RegistryError(
                f"cannot use the proxy {parts.hostname}: SOCKS needs PySocks",
                hint="pip install PySocks",
            ) from error
        # "socks5" in a proxy variable means that the proxy resolves names, as Go has it.
        scheme = "socks5h" if parts.scheme == "socks5" else parts.scheme
        manager: PoolManager = SOCKSProxyManager(
            parts._replace(scheme=scheme).geturl(), maxsize=8, ssl_context=context
        )
        return manager
    from urllib3.util import make_headers

    headers = None
    if parts.username is not None:
        from urllib.parse import unquote

        user, password = unquote(parts.username), unquote(parts.password or "")
        headers = make_headers(proxy_basic_auth=f"{user}:{password}")
    return ProxyManager(proxy, proxy_headers=headers, maxsize=8, ssl_context=context)


def _variable(name: str) -> str:
    return os.environ.get(name) or os.environ.get(name.upper()) or ""


def _retry_after(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or a date."""
    if not header:
        return None
    seconds = read_natural(header.strip())
    if seconds >= 0:
        return float(seconds)
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None


def _certificate_error(host: str, error: BaseException) -> RegistryError:
    reason = _reason(error)
    if "wrong version number" in reason.lower() or "record layer failure" in reason.lower():
        return PlainHttp(
            f"cannot talk to {host}: it answers HTTPS with plain HTTP",
            hint=f"if that is meant, name {host} in `insecure-registries` of "
            f"{os.path.join(paths.config(), 'config.json')}",
        )
    if "certificate" not in reason.lower():
        return RegistryError(f"cannot talk to {host}: {reason}")
    return RegistryError(
        f"cannot trust {host}: {reason}",
        hint=f"put its CA certificate into {os.path.join(paths.config(), 'certs.d', host)}/ca.crt",
    )


class PlainHttp(RegistryError):
    """A registry that does not speak TLS."""


def _reason(error: BaseException) -> str:
    """The words of the innermost cause, which is the one that tells something."""
    seen = error
    while True:
        inner = getattr(seen, "reason", None) or getattr(seen, "original_error", None)
        if not isinstance(inner, BaseException):
            inner = next((a for a in reversed(seen.args) if isinstance(a, BaseException)), None)
        if inner is None:
            inner = seen.__cause__ or seen.__context__
        if inner is None or inner is seen:
            break
        seen = inner
    text = str(getattr(seen, "strerror", None) or getattr(seen, "verify_message", None) or seen)
    return text.rstrip(".") or type(seen).__name__
