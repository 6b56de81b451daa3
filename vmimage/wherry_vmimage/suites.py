"""An archive's suites together: read, verified, and searched for packages as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wherry.errors import NotFound
from wherry.image.transport import Patience, Transport
from wherry_vmimage.archive import fetch_release, load_indices, read_verified
from wherry_vmimage.download import Download, Downloader
from wherry_vmimage.packages import PackageIndex

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from wherry.image.progress import Progress
    from wherry_vmimage.archive import Release
    from wherry_vmimage.packages import Package
    from wherry_vmimage.sources import AptConfig, Source


def make_downloader(config: AptConfig, progress: Progress) -> Downloader:
    """What fetches as the host's apt would: through its proxy, and trusting whom it trusts."""
    transport = Transport(
        patience=Patience(attempts=4),
        proxy=config.proxy,
        authorities=(config.authorities,) if config.authorities else (),
        on_pause=lambda seconds, reason: progress.message(f"{reason}: again in {seconds:.0f} s"),
    )
    return Downloader(transport)


class Archive:
    """The suites of one distribution, for one architecture."""

    def __init__(
        self,
        downloader: Downloader,
        progress: Progress,
        distribution: str,
        architecture: str,
        *,
        keys: bytes = b"",
        check_signature: bool = True,
    ) -> None:
        self._downloader = downloader
        self._progress = progress
        self._distribution = distribution
        self._architecture = architecture
        self._keys = keys
        self._check_signature = check_signature
        self.releases: list[Release] = []

    def read(self, sources: Sequence[Source]) -> PackageIndex:
        """The packages of `sources`, whose releases are kept."""
        index = PackageIndex(self._architecture)
        releases = [release for source in sources if (release := self._release(source))]
        self.releases = self._own(releases)
        for release in self.releases:
            self._progress.message(
                f"{release.source}: {release.fields.get('Description') or release.origin}"
                f" ({release.fields.get('Date', 'no date')})"
            )
            load_indices(self._downloader, release, index)
        return index

    @property
    def date(self) -> int:
        """When the archive was last changed, in seconds since the epoch."""
        return max(release.date for release in self.releases)

    def _own(self, releases: Sequence[Release]) -> list[Release]:
        """Without those of others, which a host's apt may have beside its distribution's.

        Who builds a mirror of their own may call it anything: then all are taken.
        """
        own = [r for r in releases if r.origin.lower() == self._distribution]
        if not own:
            return list(releases)
        for release in releases:
            if release not in own:
                self._progress.message(f"{release.source}: left out, it is {release.origin}'s")
        return own

    def _release(self, source: Source) -> Release | None:
        if not self._check_signature and not source.trusted:
            self._progress.message(f"{source}: its signature is not checked")
        try:
            return fetch_release(
                self._downloader,
                source,
                self._distribution,
                keys=self._keys,
                check_signature=self._check_signature,
            )
        except NotFound:
            if not source.optional:
                raise
            self._progress.message(f"{source}: not there, and done without")
            return None

    def fetch(self, packages: Iterable[Package]) -> None:
        """Have every one of `packages`, verified."""
        packages = list(packages)
        total = sum(package.size for package in packages)
        done = 0

        def arrived(download: Download) -> None:
            nonlocal done
            done += download.size
            self._progress.update("packages", "Downloading", done, total)

        self._downloader.fetch(map(_download, packages), arrived)
        self._progress.update("packages", f"{len(packages)} verified")

    def content(self, package: Package) -> bytes:
        """A package that was fetched. Raises CorruptState where the disk has changed it."""
        return read_verified(self._downloader, _download(package))


def _download(package: Package) -> Download:
    return Download(package.sha256, package.size, package.uris)
