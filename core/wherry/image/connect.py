"""The registry of an image, reached as the user wants it: credentials, patience, mirrors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wherry.config_file import ConfigFile
from wherry.container.request import PullOptions
from wherry.errors import UsageError
from wherry.image.auth import Credentials, find_credentials
from wherry.image.mirrors import Mirror, MirroredRegistry, find_mirrors
from wherry.image.registry import Registry
from wherry.image.transport import Patience, Transport
from wherry.words import read_natural

if TYPE_CHECKING:
    from wherry.image.progress import Progress
    from wherry.image.reference import Reference

_SECOND = 1_000_000_000


def _check_port(domain: str) -> None:
    host, colon, port = domain.rpartition(":")
    if colon and host and not port.endswith("]") and not 0 < read_natural(port) < 65536:
        raise UsageError(f"invalid registry {domain}: {port} is no port")


def connect(
    reference: Reference, progress: Progress, options: PullOptions | None = None
) -> Registry:
    """The registry of `reference`, its waits and warnings told to `progress`."""
    options = options or PullOptions()
    config = ConfigFile()
    domain = reference.domain
    _check_port(domain)
    insecure = {*config.insecure_registries(), *(() if options.tls_verify else (domain,))}
    transport = Transport(
        insecure=frozenset(insecure),
        patience=_patience(options),
        on_pause=lambda seconds, reason: progress.message(
            f"{reason}; retrying in {seconds:.0f} seconds"
        ),
    )
    credentials = _credentials(reference, options, config)

    def on_warning(text: str) -> None:
        progress.message(f"{domain} warns: {text}")

    hosts = find_mirrors(domain)
    if not hosts:
        return Registry(domain, transport=transport, credentials=credentials, on_warning=on_warning)
    return MirroredRegistry(
        [Mirror(host, domain, config) for host in hosts],
        domain,
        transport=transport,
        credentials=credentials,
        on_warning=on_warning,
    )


def _patience(options: PullOptions) -> Patience:
    retries, delay = options.retries, options.retry_delay / _SECOND
    if (retries is not None and retries < 0) or delay < 0:
        raise UsageError("--retry and --retry-delay cannot be negative")
    usual = Patience()
    return Patience(
        attempts=usual.attempts if retries is None else retries + 1,
        first=delay or usual.first,
        longest=delay or usual.longest,
    )


def _credentials(
    reference: Reference, options: PullOptions, config: ConfigFile
) -> Credentials | None:
    """Those that were given, or those stored in the file that was, or in docker's and podman's."""
    if options.credentials:
        username, colon, password = options.credentials.partition(":")
        if not colon:
            raise UsageError("--creds wants USER:PASSWORD")
        return Credentials(username=username, password=password)
    stored = ConfigFile(options.auth_file) if options.auth_file else config
    return find_credentials(stored, reference.domain, reference.path)
