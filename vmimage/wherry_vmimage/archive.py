"""An archive's suite: from a signature to the digest of every package.

InRelease is signed and holds the digests of the package indices, which hold the
digests of the packages. Each link is checked before the next is read.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple

from wherry.errors import AccessDenied, CorruptState, NotFound, Unsupported, WherryError
from wherry_vmimage.control import parse_paragraph
from wherry_vmimage.download import Download
from wherry_vmimage.signature import dearmor, verify_clearsigned
from wherry_vmimage.sources import distribution_keyrings, trusted_keyrings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wherry_vmimage.download import Downloader
    from wherry_vmimage.packages import PackageIndex
    from wherry_vmimage.sources import Source

# The smallest first.
_DECOMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    ".xz": lzma.decompress,
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    "": bytes,
}
# A clock may be a little off; one that is a day off is wrong.
_CLOCK_TOLERANCE = 24 * 3600


class _Entry(NamedTuple):
    sha256: str
    size: int


@dataclass(frozen=True)
class Release:
    """The Release file of a suite, verified (or not, where the user said so)."""

    source: Source
    fields: dict[str, str]
    keys: bytes = b""  # what its signature was checked against
    by_distribution: bool = False  # whether these are the distribution's own

    @property
    def origin(self) -> str:
        return self.fields.get("Origin", "")

    @property
    def version(self) -> str:
        return self.fields.get("Version", "")

    @property
    def date(self) -> int:
        """When the suite was last changed, in seconds since the epoch."""
        return _seconds(self.fields["Date"]) if "Date" in self.fields else 0

    @property
    def automatic(self) -> bool:
        """Whether its packages are for everybody (those of backports are not)."""
        return self.fields.get("NotAutomatic", "no") != "yes"

    def check(self, now: float) -> None:
        """Raise CorruptState unless this is the suite that was asked for, and of today."""
        names = [self.fields.get("Suite", ""), self.fields.get("Codename", "")]
        wanted = self.source.suite
        # Debian's old security archive calls "buster/updates" what the Release calls "buster".
        if wanted not in names and wanted.partition("/")[0] not in names:
            raise CorruptState(
                f"{self.source}: the mirror's Release is that of {' or '.join(filter(None, names))}"
            )
        if self.date > now + _CLOCK_TOLERANCE:
            raise CorruptState(
                f"{self.source}: its Release is of a later date than today, {self.fields['Date']}",
                hint="is this machine's clock right?",
            )
        until = self.fields.get("Valid-Until")
        if until and self.source.check_valid_until and _seconds(until) < now:
            raise CorruptState(
                f"{self.source}: its Release expired on {until}",
                hint="the mirror is out of date (or this machine's clock is wrong); "
                "--no-check-valid-until accepts it, for a snapshot",
            )

    def indices(self, components: Sequence[str], architecture: str) -> list[tuple[str, Download]]:
        """The package indices to read, each with the ending that says how it is compressed."""
        architectures = [architecture]
        if (
            "all" in self.fields.get("Architectures", "").split()
            and self.fields.get("No-Support-for-Architecture-all") != "Packages"
        ):
            architectures.append("all")
        digests = self._digests()
        found = [
            index
            for component in components
            for each in architectures
            if (index := self._index(f"{component}/binary-{each}/Packages", digests))
        ]
        if not found:
            raise NotFound(
                f"{self.source} has no packages of {', '.join(components)} for {architecture}",
                hint=f"it has {self.fields.get('Components', 'no components')} "
                f"for {self.fields.get('Architectures', 'no architecture')}",
            )
        return found

    def _index(self, path: str, digests: dict[str, _Entry]) -> tuple[str, Download] | None:
        for ending in _DECOMPRESSORS:
            if entry := digests.get(path + ending):
                return ending, self._download(path + ending, entry)
        return None

    def _download(self, path: str, entry: _Entry) -> Download:
        base = f"{self.source.uri}/dists/{self.source.suite}"
        uris = [f"{base}/{path}"]
        by_hash = self.source.by_hash
        if by_hash is None:
            by_hash = self.fields.get("Acquire-By-Hash") == "yes"
        if by_hash:
            # The name stays right while the mirror is updated.
            uris.insert(0, f"{base}/{path.rpartition('/')[0]}/by-hash/SHA256/{entry.sha256}")
        return Download(entry.sha256, entry.size, tuple(uris))

    def _digests(self) -> dict[str, _Entry]:
        if "SHA256" not in self.fields:
            raise CorruptState(f"{self.source}: its Release holds no SHA-256 digests")
        entries = (line.split() for line in self.fields["SHA256"].splitlines() if line.strip())
        try:
            return {path: _Entry(digest, int(size)) for digest, size, path in entries}
        except ValueError as error:
            raise CorruptState(f"{self.source}: its Release is damaged: {error}") from error


def fetch_release(
    downloader: Downloader,
    source: Source,
    distribution: str,
    *,
    keys: bytes = b"",
    check_signature: bool = True,
    now: float | None = None,
) -> Release:
    """The Release of `source`, verified with `keys` or those that `keyring_for` finds."""
    base = f"{source.uri}/dists/{source.suite}"
    check_signature = check_signature and not source.trusted
    keyring_used = Keyring(b"")
    try:
        content = downloader.read(f"{base}/InRelease")
    except NotFound as error:
        if check_signature:
            raise NotFound(
                f"no suite {source.suite} at {source.public_uri}: it has no signed Release file",
                hint=error.message,
            ) from error
        text = downloader.read(f"{base}/Release")
    else:
        try:
            if check_signature:
                keyring_used = Keyring(keys) if keys else keyring_for(source, distribution)
                text = verify_clearsigned(
                    content, keyring_used.keys, fingerprints=keyring_used.fingerprints
                )
            else:
                text = _unsigned(content)
        except (AccessDenied, CorruptState, Unsupported) as error:
            raise type(error)(
                f"cannot trust {source}: {error.message}", hint=error.hint or _KEYRING_HINT
            ) from error
    release = Release(source, _parse(source, text), keyring_used.keys, keyring_used.by_distribution)
    release.check(time.time() if now is None else now)
    return release


_KEYRING_HINT = "--keyring names the file with the archive's keys"


class Keyring(NamedTuple):
    """The keys that may sign a source, as plain packets."""

    keys: bytes
    fingerprints: Sequence[str] = ()  # if any, only these of the keys
    by_distribution: bool = False


def keyring_for(source: Source, distribution: str) -> Keyring:
    """What `source` names, or else what this host has of the distribution's."""
    if "-----BEGIN PGP PUBLIC KEY BLOCK-----" in source.signed_by:
        # In a deb822 field an empty line is written as a dot.
        lines = ("" if line.strip() == "." else line for line in source.signed_by.splitlines())
        return Keyring(dearmor("\n".join(lines).strip().encode()))
    words = source.signed_by.replace(",", " ").split()
    default = distribution_keyrings(distribution)
    if files := [word for word in words if word.startswith("/")]:
        return Keyring(read_keys(files), by_distribution=files == default)
    if source.from_host:
        default += trusted_keyrings()
    if not default:
        raise AccessDenied(
            f"this machine has no keyring of {distribution}",
            hint="install debian-archive-keyring or ubuntu-keyring, or name the file with "
            "--keyring; --no-check-signature does without",
        )
    return Keyring(read_keys(default), words, by_distribution=True)


def read_keys(files: Sequence[str]) -> bytes:
    """The keys in `files` as plain packets. Raises WherryError with the file's name."""
    keys = b""
    for path in files:
        try:
            with open(path, "rb") as file:
                keys += dearmor(file.read())
        except FileNotFoundError:
            raise NotFound(f"no such keyring: {path}") from None
        except OSError as error:
            raise WherryError(f"cannot read the keyring {path}: {error.strerror}") from error
        except CorruptState as error:
            raise CorruptState(f"cannot use the keyring {path}: {error.message}") from error
    return keys


def _unsigned(content: bytes) -> bytes:
    """The text of an InRelease that nobody verifies."""
    if content.startswith(b"-----BEGIN PGP SIGNED MESSAGE-----"):
        content = content.partition(b"\n\n")[2].partition(b"\n-----BEGIN PGP SIGNATURE-----")[0]
    return content


def _parse(source: Source, text: bytes) -> dict[str, str]:
    try:
        return parse_paragraph(text.decode())
    except (CorruptState, UnicodeDecodeError) as error:
        raise CorruptState(f"{source}: its Release is damaged: {error}") from error


def _seconds(date: str) -> int:
    try:
        return int(parsedate_to_datetime(date).timestamp())
    except ValueError as error:
        raise CorruptState(f"not a date: {date!r}") from error


def load_indices(downloader: Downloader, release: Release, index: PackageIndex) -> None:
    """Add the packages of `release` to `index`."""
    found = release.indices(release.source.components, index.architecture)
    downloader.fetch(download for _, download in found)
    for ending, download in found:
        content = read_verified(downloader, download)
        try:
            content = _DECOMPRESSORS[ending](content)
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise CorruptState(f"{release.source}: {download.name} is damaged: {error}") from error
        index.add(content, release.source.uri, automatic=release.automatic)


def read_verified(downloader: Downloader, download: Download) -> bytes:
    """A fetched file, held against its digest once more: a disk may forget."""
    path = downloader.path(download.sha256)
    with open(path, "rb") as file:
        content = file.read()
    if hashlib.sha256(content).hexdigest() != download.sha256:
        downloader.forget(download)
        raise CorruptState(f"{path} was damaged since it was fetched", hint="try again")
    return content
