"""The tree of a Debian or Ubuntu base system, unpacked and not yet configured.

What `dpkg --unpack` leaves is made here without dpkg: the files of every package, and
dpkg's own records of them, so that `dpkg --configure` goes on from there. The only
things that come from neither a package nor dpkg are the links of the merged /usr, the
sources that apt shall use, and how apt and dpkg behave in a container.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from wherry.errors import CorruptState, Unsupported
from wherry_vmimage.control import write_paragraph
from wherry_vmimage.deb import Deb, read_deb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from wherry_vmimage.archive import Release
    from wherry_vmimage.packages import Package
    from wherry_vmimage.tree import Tree

    Unpacked = Callable[[Package, Deb, Sequence[str]], None]

INFO = "var/lib/dpkg/info"

# The directories that /usr swallowed, with all the libraries' of any architecture.
_MERGED = re.compile(r"bin|sbin|lib(?:32|64|o32|x32)?")

# What is in these only explains packages: a "slim" image does without, but for the licences.
_SLIM = re.compile(
    r"usr/share/(?:doc|info|groff|linda|lintian|locale|man|gnome/help|omf)/.+"
)  # fmt: skip
_SLIM_KEPT = re.compile(r"usr/share/doc/[^/]+/copyright|usr/share/locale/locale\.alias")
_SLIM_CONFIG = """\
# This is a slim image: what only explains packages is left out of those installed later, too.
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/groff/*
path-exclude /usr/share/info/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/locale/*
path-include /usr/share/locale/locale.alias
path-exclude /usr/share/man/*
"""

# How apt and dpkg behave in a container. The names are those of docker's images, which
# builds rely on: a build with a cache mount for apt begins by removing `docker-clean`.
_CLEAN = (
    "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/* /var/cache/apt/*.bin"
)
_CONTAINER_FILES = {
    "etc/apt/apt.conf.d/docker-clean": f"""\
// What apt downloaded only makes a layer larger.
DPkg::Post-Invoke {{ "{_CLEAN} || true"; }};
APT::Update::Post-Invoke {{ "{_CLEAN} || true"; }};
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
""",
    "etc/apt/apt.conf.d/docker-gzip-indexes": """\
// Package lists stay compressed.
Acquire::GzipIndexes "true";
""",
    "etc/apt/apt.conf.d/docker-no-languages": """\
// Nobody reads translated package descriptions here.
Acquire::Languages "none";
""",
    "etc/apt/apt.conf.d/docker-autoremove-suggests": """\
// A package that is only suggested goes away with what brought it.
Apt::AutoRemove::SuggestsImportant "false";
""",
    "etc/dpkg/dpkg.cfg.d/docker-apt-speedup": """\
# A layer is built again, not repaired: no fsync for every file.
force-unsafe-io
""",
}
_POLICY = """\
#!/bin/sh
# Nothing here starts services when a package is installed.
exit 101
"""


def unpack_packages(
    tree: Tree, packages: Sequence[Package], read: Callable[[Package], bytes], done: Unpacked
) -> dict[str, Deb]:
    """Put the files of `packages` into `tree`, with a merged /usr; each package by its name.

    `done` is told of each package that is in, and of the paths that it brought.
    """
    for name in ("bin", "sbin", "lib"):
        _merge(tree, name)
    debs: dict[str, Deb] = {}
    for package, deb in _read_ahead(packages, read):
        debs[package.name] = deb
        try:
            listed = tree.unpack(io.BytesIO(deb.data), before=partial(_merge_usr, tree))
        except CorruptState as error:
            raise CorruptState(f"cannot unpack {package}: {error.message}") from error
        done(package, deb, listed)
    return debs


def unpack_system(
    tree: Tree,
    packages: Sequence[Package],
    read: Callable[[Package], bytes],
    *,
    slim: bool = False,
    progress: Callable[[Package], None] | None = None,
) -> dict[str, Deb]:
    """Unpack `packages` into `tree` in this order, with dpkg's records of them."""
    records: list[str] = []

    def record(package: Package, deb: Deb, listed: Sequence[str]) -> None:
        records.append(_record(tree, package, deb, listed))
        if progress:
            progress(package)

    debs = unpack_packages(tree, packages, read, record)
    _write_dpkg_database(tree, packages, debs, records)
    if slim:
        tree.remove(_is_documentation)
        tree.file("etc/dpkg/dpkg.cfg.d/docker", _SLIM_CONFIG)
    return debs


def _read_ahead(
    packages: Iterable[Package], read: Callable[[Package], bytes]
) -> Iterator[tuple[Package, Deb]]:
    """The packages, decompressed by a second thread while the first unpacks."""

    def load(package: Package) -> tuple[Package, Deb]:
        try:
            deb = read_deb(read(package))
        except (CorruptState, Unsupported) as error:
            raise type(error)(f"cannot read {package}: {error.message}") from error
        for field in ("Package", "Version", "Architecture"):
            if deb.control.get(field) != package.fields[field]:
                raise CorruptState(
                    f"the archive's {package} is {deb.control.get('Package')} "
                    f"{deb.control.get('Version')} for {deb.control.get('Architecture')}"
                )
        return package, deb

    with ThreadPoolExecutor(2) as pool:
        # A few at a time: together they may be larger than the memory.
        waiting: deque[Future[tuple[Package, Deb]]] = deque(maxlen=4)
        try:
            for package in packages:
                if len(waiting) == waiting.maxlen:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(load, package))
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _merge(tree: Tree, name: str) -> None:
    tree.directory(f"usr/{name}")
    tree.symlink(name, f"usr/{name}")


def _merge_usr(tree: Tree, path: str) -> None:
    """Make the link that a library directory at the root has to be, before `path` is in it."""
    top = path.partition("/")[0]
    if top not in tree and _MERGED.fullmatch(top):
        _merge(tree, top)


def _is_documentation(path: str) -> bool:
    return bool(_SLIM.fullmatch(path)) and not _SLIM_KEPT.fullmatch(path)


# dpkg's records


def info_name(package: Package) -> str:
    """What dpkg calls the files of `package` in its `info` directory."""
    same = package.fields.get("Multi-Arch") == "same"
    return f"{package.name}:{package.architecture}" if same else package.name


def _record(tree: Tree, package: Package, deb: Deb, listed: Sequence[str]) -> str:
    """Write dpkg's files about `package`; its paragraph of the status file."""
    name = info_name(package)
    lines = "".join(f"/{path}\n" if path else "/.\n" for path in listed)
    tree.file(f"{INFO}/{name}.list", lines)
    for script, content in deb.scripts.items():
        if "/" in script or not script:
            raise CorruptState(f"cannot unpack {package}: it has a control file {script!r}")
        is_script = script in ("preinst", "postinst", "prerm", "postrm", "config")
        tree.file(f"{INFO}/{name}.{script}", content, 0o755 if is_script else 0o644)
    return _status(tree, package, deb)


def _status(tree: Tree, package: Package, deb: Deb) -> str:
    fields = {"Package": package.name, "Status": "install ok unpacked", **deb.control}
    try:
        digests = [
            f"\n{path} {hashlib.md5(tree.read(path), usedforsecurity=False).hexdigest()}"
            for path in deb.conffiles
        ]
    except KeyError as error:
        raise CorruptState(f"cannot unpack {package}: it has no {error}") from error
    if digests:
        fields["Conffiles"] = "".join(digests)
    return write_paragraph(fields)


def _write_dpkg_database(
    tree: Tree, packages: Sequence[Package], debs: dict[str, Deb], records: Sequence[str]
) -> None:
    tree.file(f"{INFO}/format", "1\n")
    tree.file("var/lib/dpkg/status", "".join(f"{record}\n" for record in sorted(records)))
    for name in ("available", "diversions", "statoverride", "lock", "lock-frontend"):
        mode = 0o640 if name.startswith("lock") else 0o644
        tree.file(f"var/lib/dpkg/{name}", b"", mode)
    for name in ("updates", "parts", "triggers", "alternatives"):
        tree.directory(f"var/lib/dpkg/{name}")
    for path, interested in sorted(_triggers(packages, debs).items()):
        tree.file(f"var/lib/dpkg/triggers/{path}", "".join(f"{line}\n" for line in interested))


def _triggers(packages: Sequence[Package], debs: dict[str, Deb]) -> dict[str, list[str]]:
    """dpkg's lists of who is interested in which trigger: files in one, the others each in its own.

    dpkg writes them when it unpacks a package (deb-triggers(5)).
    """
    lists: dict[str, list[str]] = {"File": []}
    for package in packages:
        name = info_name(package)
        for line in debs[package.name].scripts.get("triggers", b"").decode().splitlines():
            directive, _, trigger = line.partition("#")[0].strip().partition(" ")
            if not directive.startswith("interest"):
                continue
            trigger = trigger.strip()
            noawait = "/noawait" if directive == "interest-noawait" else ""
            if trigger.startswith("/"):
                lists["File"].append(f"{trigger} {name}{noawait}")
            else:
                lists.setdefault(trigger, []).append(f"{name}{noawait}")
    return lists


# What makes a container's base image of it


def prepare_container(tree: Tree, releases: Sequence[Release], distribution: str) -> None:
    """Add what a base image has besides its packages."""
    _first_steps(tree)
    for path, content in _CONTAINER_FILES.items():
        tree.file(path, content)
    tree.file("usr/sbin/policy-rc.d", _POLICY, 0o755)
    # An empty one is filled by whoever boots this; a copied one would not be unique.
    tree.file("etc/machine-id", b"", 0o444)
    tree.file(
        f"etc/apt/sources.list.d/{distribution}.sources", apt_sources(tree, releases, distribution)
    )


def _first_steps(tree: Tree) -> None:
    """What maintainer scripts find on every system, and packages' own scripts only make later."""
    for name in ("passwd", "group"):
        master = f"usr/share/base-passwd/{name}.master"
        if f"etc/{name}" not in tree and master in tree:
            tree.file(f"etc/{name}", tree.read(master))
    if "usr/bin/mawk" in tree and "usr/bin/awk" not in tree:
        tree.symlink("usr/bin/awk", "mawk")
    if "usr/bin/dash" in tree and "usr/bin/sh" not in tree:
        tree.symlink("usr/bin/sh", "dash")


def apt_sources(tree: Tree, releases: Sequence[Release], distribution: str) -> str:
    """The sources of the image's own apt: where its packages came from."""
    suites: dict[tuple[str, ...], list[str]] = {}
    for release in releases:
        source = release.source
        lines = [f"URIs: {source.public_uri}", f"Components: {' '.join(source.components)}"]
        if source.trusted:
            lines.append("Trusted: yes")
        elif keyring := _keyring(tree, release, distribution):
            lines.append(f"Signed-By: {keyring}")
        if not source.check_valid_until:
            lines.append("Check-Valid-Until: no")
        suites.setdefault(tuple(lines), []).append(source.suite)
    return "\n".join(
        "".join(f"{line}\n" for line in ("Types: deb", f"Suites: {' '.join(names)}", *lines))
        for lines, names in suites.items()
    )


def _keyring(tree: Tree, release: Release, distribution: str) -> str:
    """The image's file with the keys of `release`: its distribution's, or a copy of ours."""
    for ending in ("pgp", "gpg"):
        path = f"usr/share/keyrings/{distribution}-archive-keyring.{ending}"
        if path in tree and (
            not release.keys or release.by_distribution or tree.read(path) == release.keys
        ):
            return f"/{path}"
    if not release.keys:
        return ""
    path = f"etc/apt/keyrings/{distribution}-{hashlib.sha256(release.keys).hexdigest()[:8]}.gpg"
    tree.file(path, release.keys)
    return f"/{path}"
