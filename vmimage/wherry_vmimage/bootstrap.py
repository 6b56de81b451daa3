"""A base image out of a package mirror: from what was asked for to a tag in the image store."""

from __future__ import annotations

import hashlib
import sys
from typing import TYPE_CHECKING

from wherry import __version__, paths
from wherry.errors import NotFound
from wherry.files import make_dir
from wherry.image.transport import Patience, Transport
from wherry_vmimage import busybox
from wherry_vmimage.archive import fetch_release, load_indices, read_verified
from wherry_vmimage.configure import configure, configure_script
from wherry_vmimage.deb import read_deb
from wherry_vmimage.debian import prepare_container, unpack_system
from wherry_vmimage.download import Download, Downloader
from wherry_vmimage.image import ImageFacts, store_image
from wherry_vmimage.packages import PackageIndex
from wherry_vmimage.request import (
    Request,
    Target,
    lacks_security,
    require_runnable,
    sources_of,
    target_of,
)
from wherry_vmimage.resolver import resolve
from wherry_vmimage.sources import AptConfig
from wherry_vmimage.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wherry.image.progress import Progress
    from wherry.image.store import ImageStore
    from wherry.oci.image_spec import Descriptor
    from wherry_vmimage.archive import Release
    from wherry_vmimage.configure import RunScript
    from wherry_vmimage.packages import Package
    from wherry_vmimage.sources import Source

_LABEL = "org.opencontainers.image."
_INPUTS_LABEL = "org.wherry.bootstrap.inputs"


def bootstrap(
    request: Request, store: ImageStore, run_script: RunScript, progress: Progress
) -> str:
    """Make the image of `request` and tag it in `store`; the first of its names."""
    target = target_of(request)
    if request.configure and not request.is_busybox:
        require_runnable(target.architecture)
    config = AptConfig.of_host() if sys.platform == "linux" else AptConfig()
    sources = sources_of(request, target, config)
    if not request.suites and lacks_security(target, sources):
        progress.message(
            f"{target.distribution} {target.suite}: without security updates, "
            "as no mirror of them is known (--security-mirror names one)"
        )
    transport = Transport(
        patience=Patience(attempts=4),
        proxy=config.proxy,
        authorities=(config.authorities,) if config.authorities else (),
        on_pause=lambda seconds, reason: progress.message(f"{reason}: again in {seconds:.0f} s"),
    )
    downloader = Downloader(transport)
    builder = _Builder(request, target, store, run_script, downloader, progress)
    descriptor = builder.build(sources)
    for reference in target.references:
        store.tag(reference, descriptor)
    return target.references[0]


class _Builder:
    def __init__(
        self,
        request: Request,
        target: Target,
        store: ImageStore,
        run_script: RunScript,
        downloader: Downloader,
        progress: Progress,
    ) -> None:
        self._request = request
        self._target = target
        self._store = store
        self._run_script = run_script
        self._downloader = downloader
        self._progress = progress
        self._releases: list[Release] = []

    def build(self, sources: Sequence[Source]) -> Descriptor:
        index = self._read_archive(sources)
        base = [] if self._request.is_busybox else self._base(index)
        packages = resolve(index, base, self._included())
        facts = self._facts(packages)
        if self._request.cache and (made := self._made_before(facts)):
            self._progress.message(f"Up to date: {len(packages)} packages, none of them newer")
            return made
        self._fetch(packages)
        if self._request.is_busybox:
            return self._build_busybox(packages[0], facts)
        return self._build_system(packages, {p.name for p in resolve(index, base)}, facts)

    def _read_archive(self, sources: Sequence[Source]) -> PackageIndex:
        index = PackageIndex(self._target.architecture)
        releases = [release for source in sources if (release := self._release(source))]
        self._releases = self._own_releases(releases)
        for release in self._releases:
            self._progress.message(
                f"{release.source}: {release.fields.get('Description') or release.origin}"
                f" ({release.fields.get('Date', 'no date')})"
            )
            load_indices(self._downloader, release, index)
        return index

    def _own_releases(self, releases: Sequence[Release]) -> list[Release]:
        """Without those of others, which a host's apt may have beside its distribution's.

        Who builds a mirror of their own may call it anything: then all are taken.
        """
        own = [r for r in releases if r.origin.lower() == self._target.distribution]
        if not own:
            return list(releases)
        for release in releases:
            if release not in own:
                self._progress.message(f"{release.source}: left out, it is {release.origin}'s")
        return own

    def _release(self, source: Source) -> Release | None:
        if not self._request.check_signature and not source.trusted:
            self._progress.message(f"{source}: its signature is not checked")
        try:
            return fetch_release(
                self._downloader,
                source,
                self._target.distribution,
                keys=self._request.keys,
                check_signature=self._request.check_signature,
            )
        except NotFound:
            if not source.optional:
                raise
            self._progress.message(f"{source}: not there, and done without")
            return None

    def _base(self, index: PackageIndex) -> list[Package]:
        """The packages that the variant stands for."""
        variant = self._request.variant
        priority = {"essential": None, "apt": None, "minbase": "required"}.get(variant, variant)
        base = index.base(priority)
        # With a merged /usr, which is what is made here; without it, a package that
        # merges it would be chosen.
        names = ["usr-is-merged"]
        names += ["apt"] if variant != "essential" else []
        return base + [package for name in names if (package := index.candidate(name))]

    def _included(self) -> list[str]:
        if self._request.is_busybox:
            return [busybox.PACKAGE]
        names = list(self._request.include)
        if any(release.source.uri.startswith("https:") for release in self._releases):
            # Without them the image's own apt could not reach its mirror.
            names.append("ca-certificates")
        return names

    def _facts(self, packages: Sequence[Package]) -> ImageFacts:
        main = self._releases[0]
        is_busybox = self._request.is_busybox
        version = packages[0].version if is_busybox else main.version
        listed = "".join(f"{p.name} {p.version} {p.sha256}\n" for p in packages)
        how = f"{__version__} {self._target.slim} {self._request.configure}\n"
        apt = "".join(f"{release.source!r}\n" for release in self._releases)
        inputs = hashlib.sha256(f"{how}{apt}{self._releases_text()}{listed}".encode())
        labels = {
            f"{_LABEL}title": "busybox" if is_busybox else self._target.distribution,
            f"{_LABEL}version": version,
            f"{_LABEL}source": main.source.public_uri,
            f"{_LABEL}revision": self._releases_text().strip().replace("\n", ", "),
            _INPUTS_LABEL: inputs.hexdigest(),
        }
        return ImageFacts(
            architecture=self._target.architecture,
            created=max(release.date for release in self._releases),
            command=("sh",) if is_busybox else ("bash",),
            labels={name: text for name, text in labels.items() if text},
            created_by=f"wherry bootstrap {self._request.name}",
        )

    def _releases_text(self) -> str:
        """The suites that the packages are from, and of when they are."""
        return "".join(
            f"{release.source.suite} {release.fields.get('Date', '')}\n".replace(" \n", "\n")
            for release in self._releases
        )

    def _made_before(self, facts: ImageFacts) -> Descriptor | None:
        """The image of the same inputs that one of our names stands for already."""
        for reference in self._target.references:
            try:
                image = self._store.find(reference)
            except NotFound:
                continue
            labels = image.config.get("config", {}).get("Labels") or {}
            if labels.get(_INPUTS_LABEL) == facts.labels[_INPUTS_LABEL]:
                return image.descriptor
        return None

    def _fetch(self, packages: Sequence[Package]) -> None:
        total = sum(package.size for package in packages)
        done = 0

        def arrived(download: Download) -> None:
            nonlocal done
            done += download.size
            self._progress.update("packages", "Downloading", done, total)

        self._downloader.fetch(map(_download, packages), arrived)
        self._progress.update("packages", f"{len(packages)} verified")

    def _read(self, package: Package) -> bytes:
        return read_verified(self._downloader, _download(package))

    def _store_named(self, tree: Tree, facts: ImageFacts) -> Descriptor:
        return store_image(self._store, tree, facts, references=self._target.references)

    def _build_busybox(self, package: Package, facts: ImageFacts) -> Descriptor:
        with Tree(make_dir(paths.cache())) as tree:
            busybox.unpack_busybox(tree, read_deb(self._read(package)))
            return self._store_named(tree, facts)

    def _build_system(
        self, packages: Sequence[Package], base: set[str], facts: ImageFacts
    ) -> Descriptor:
        with Tree(make_dir(paths.cache()), mtime=facts.created) as tree:
            debs = unpack_system(
                tree,
                packages,
                self._read,
                slim=self._target.slim,
                progress=lambda _: self._progress.update("packages", "Extracting"),
            )
            prepare_container(tree, self._releases, self._target.distribution)
            self._progress.update("packages", f"{len(packages)} unpacked")
            if not self._request.configure:
                return self._store_named(tree, facts)
            first = store_image(self._store, tree, facts, compress=False)
        script = configure_script(packages, debs, base, self._target.architecture)
        with Tree(paths.cache()) as tree:
            configure(tree, first, script, facts.created, self._run_script)
            self._progress.update("packages", f"{len(packages)} configured")
            return self._store_named(tree, facts)


def _download(package: Package) -> Download:
    return Download(package.sha256, package.size, (package.uri,))
