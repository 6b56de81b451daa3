"""A base image out of a package mirror: from what was asked for to a tag in the image store."""

from __future__ import annotations

import hashlib
import sys
from typing import TYPE_CHECKING

from wherry import __version__, paths
from wherry.errors import NotFound
from wherry.files import make_dir
from wherry_vmimage import busybox
from wherry_vmimage.configure import configure, configure_script
from wherry_vmimage.deb import read_deb
from wherry_vmimage.debian import prepare_container, unpack_system
from wherry_vmimage.image import ImageFacts, store_image
from wherry_vmimage.request import (
    Request,
    Target,
    lacks_security,
    sources_of,
    target_of,
)
from wherry_vmimage.resolver import resolve
from wherry_vmimage.sources import AptConfig
from wherry_vmimage.suites import Archive, make_downloader
from wherry_vmimage.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wherry.image.progress import Progress
    from wherry.image.store import ImageStore
    from wherry.oci.image_spec import Descriptor
    from wherry_vmimage.configure import RunScript
    from wherry_vmimage.packages import Package, PackageIndex
    from wherry_vmimage.sources import Source

_LABEL = "org.opencontainers.image."
_INPUTS_LABEL = "org.wherry.bootstrap.inputs"


def bootstrap(
    request: Request, store: ImageStore, run_script: RunScript, progress: Progress
) -> str:
    """Make the image of `request` and tag it in `store`; the first of its names."""
    target = target_of(request)
    config = AptConfig.of_host() if sys.platform == "linux" else AptConfig()
    sources = sources_of(request, target, config)
    if not request.suites and lacks_security(target, sources):
        progress.message(
            f"{target.distribution} {target.suite}: without security updates, "
            "as no mirror of them is known (--security-mirror names one)"
        )
    archive = Archive(
        make_downloader(config, progress),
        progress,
        target.distribution,
        target.architecture,
        keys=request.keys,
        check_signature=request.check_signature,
    )
    builder = _Builder(request, target, store, run_script, archive, progress)
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
        archive: Archive,
        progress: Progress,
    ) -> None:
        self._request = request
        self._target = target
        self._store = store
        self._run_script = run_script
        self._archive = archive
        self._progress = progress

    def build(self, sources: Sequence[Source]) -> Descriptor:
        index = self._archive.read(sources)
        base = [] if self._request.is_busybox else self._base(index)
        packages = resolve(index, base, self._included())
        facts = self._facts(packages)
        if self._request.cache and (made := self._made_before(facts)):
            self._progress.message(f"Up to date: {len(packages)} packages, none of them newer")
            return made
        self._archive.fetch(packages)
        if self._request.is_busybox:
            return self._build_busybox(packages[0], facts)
        return self._build_system(packages, {p.name for p in resolve(index, base)}, facts)

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
        if any(release.source.uri.startswith("https:") for release in self._archive.releases):
            # Without them the image's own apt could not reach its mirror.
            names.append("ca-certificates")
        return names

    def _facts(self, packages: Sequence[Package]) -> ImageFacts:
        main = self._archive.releases[0]
        is_busybox = self._request.is_busybox
        version = packages[0].version if is_busybox else main.version
        listed = "".join(f"{p.name} {p.version} {p.sha256}\n" for p in packages)
        how = f"{__version__} {self._target.slim} {self._request.configure}\n"
        apt = "".join(f"{release.source!r}\n" for release in self._archive.releases)
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
            created=max(release.date for release in self._archive.releases),
            command=("sh",) if is_busybox else ("bash",),
            labels={name: text for name, text in labels.items() if text},
            created_by=f"wherry bootstrap {self._request.name}",
        )

    def _releases_text(self) -> str:
        """The suites that the packages are from, and of when they are."""
        return "".join(
            f"{release.source.suite} {release.fields.get('Date', '')}\n".replace(" \n", "\n")
            for release in self._archive.releases
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

    def _store_named(self, tree: Tree, facts: ImageFacts) -> Descriptor:
        return store_image(self._store, tree, facts, references=self._target.references)

    def _build_busybox(self, package: Package, facts: ImageFacts) -> Descriptor:
        with Tree(make_dir(paths.cache())) as tree:
            busybox.unpack_busybox(tree, read_deb(self._archive.content(package)))
            return self._store_named(tree, facts)

    def _build_system(
        self, packages: Sequence[Package], base: set[str], facts: ImageFacts
    ) -> Descriptor:
        with Tree(make_dir(paths.cache()), mtime=facts.created) as tree:
            debs = unpack_system(
                tree,
                packages,
                self._archive.content,
                slim=self._target.slim,
                progress=lambda _: self._progress.update("packages", "Extracting"),
            )
            prepare_container(tree, self._archive.releases, self._target.distribution)
            self._progress.update("packages", f"{len(packages)} unpacked")
            if not self._request.configure:
                return self._store_named(tree, facts)
            first = store_image(self._store, tree, facts, compress=False)
        script = configure_script(packages, debs, base, self._target.architecture)
        with Tree(paths.cache()) as tree:
            configure(tree, first, script, facts.created, self._run_script)
            self._progress.update("packages", f"{len(packages)} configured")
            return self._store_named(tree, facts)
