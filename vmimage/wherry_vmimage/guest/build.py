"""A guest, out of packages, into a directory: see `FILES` for what is in it."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wherry import __version__, paths
from wherry.errors import UsageError
from wherry.files import make_dir, remove_file, write_atomic
from wherry.image.platform import host_platform
from wherry_vm.guest.warm import LATER, WARM
from wherry_vmimage.debian import unpack_packages
from wherry_vmimage.erofs import write_erofs
from wherry_vmimage.guest import bytecode, contents
from wherry_vmimage.guest.bundle import write_bundle
from wherry_vmimage.guest.elf import require_libraries
from wherry_vmimage.guest.initramfs import write_initramfs
from wherry_vmimage.guest.kernel import bootable_kernel
from wherry_vmimage.guest.licences import copyright_of, licence_names, licence_texts, source_of
from wherry_vmimage.guest.lock import Lock, read_lock
from wherry_vmimage.guest.modules import ModuleSet
from wherry_vmimage.guest.settings import prepare_guest, wherry_files
from wherry_vmimage.image import ARCHITECTURES
from wherry_vmimage.request import Request, sources_of, target_of
from wherry_vmimage.resolver import resolve
from wherry_vmimage.sources import AptConfig
from wherry_vmimage.suites import Archive, make_downloader
from wherry_vmimage.tree import Tree
from wherry_vmimage.versions import satisfies

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wherry.image.progress import Progress
    from wherry_vmimage.deb import Deb
    from wherry_vmimage.packages import Package
    from wherry_vmimage.sources import Source

KERNEL, INITRAMFS, ROOT = "kernel", "initramfs", "root.erofs"
MANIFEST, LICENCES, LOCK = "manifest.json", "LICENSES.txt", "packages.lock"
FILES = (KERNEL, INITRAMFS, ROOT, MANIFEST, LICENCES, LOCK)

SCHEMA = 1
SUITE = "trixie"

# What the kernel is told. What it is told under emulation trades its defences, self-tests
# and kinds of keys that nothing here uses for a start that is a second shorter; another
# processor than the first is started later, beside other things (files/initramfs-init).
_CONSOLES = {"amd64": "ttyS0", "arm64": "ttyAMA0"}
_ALWAYS = ("quiet", "loglevel=3", "panic=-1", "random.trust_cpu=on")
_NOT_NEEDED = (
    "jent_mod_init,crypto_kdf108_init,init_encrypted,load_system_certificate_list,trace_eval_init"
)
_EMULATED = (
    "mitigations=off", "cryptomgr.notests", "rcupdate.rcu_expedited=1", "init_on_alloc=0",
    "maxcpus=1", f"initcall_blacklist={_NOT_NEEDED}",
)  # fmt: skip
_EMULATED_ON = {
    "amd64": (
        "no_timer_check", "8250.nr_uarts=1", "noreplace-smp", "rodata=off",
        # To copy and to clear pages by one instruction that repeats itself is the slowest way.
        "clearcpuid=rep_good",
    ),
    "arm64": (),
}  # fmt: skip

# The first sshd that shuts out a source with too many failures, and can be told not to.
_PENALTIES_SINCE = "1:9.8"


@dataclass(frozen=True, kw_only=True)
class GuestRequest:
    """What guest is to be made, out of what."""

    architecture: str = ""  # Debian's word or an image's; "" for this machine's
    suite: str = SUITE
    mirror: str = ""
    security_mirror: str = ""
    keys: bytes = b""
    locked: str = ""  # a file that LOCK was copied to
    epoch: int | None = None  # the time of every file; None: the archive's


def build_guest(request: GuestRequest, output: str, progress: Progress) -> dict[str, Any]:
    """Make a guest in the directory `output`; its manifest."""
    builder = _Builder(request, progress)
    lock = builder.lock()
    return builder.build(lock, make_dir(output))


class _Builder:
    def __init__(self, request: GuestRequest, progress: Progress) -> None:
        self._progress = progress
        self._request = Request(
            name=f"debian:{request.suite}",
            mirror=request.mirror,
            security_mirror=request.security_mirror,
            architecture=request.architecture,
            keys=request.keys,
        )
        self._locked = request.locked
        self._epoch = request.epoch
        self._config = AptConfig.of_host() if sys.platform == "linux" else AptConfig()
        self._downloader = make_downloader(self._config, progress)
        self.architecture = target_of(self._request).architecture
        if self.architecture not in _CONSOLES:
            raise UsageError(f"no guest is made for {self.architecture}")
        self._archive = self._open(self.architecture)

    def _open(self, architecture: str) -> Archive:
        keys = self._request.keys
        return Archive(self._downloader, self._progress, "debian", architecture, keys=keys)

    def _sources(self, architecture: str) -> list[Source]:
        request = replace(self._request, architecture=architecture)
        return sources_of(request, target_of(request), self._config)

    # Which packages

    def lock(self) -> Lock:
        """What the guest is made of: what the lock says, or what the suite has now."""
        if self._locked:
            bases = list(dict.fromkeys(s.uri for s in self._sources(self.architecture)))
            lock = read_lock(self._locked, bases)
            if lock.architecture != self.architecture:
                raise UsageError(f"{self._locked} is for {lock.architecture}")
            return lock
        index = self._archive.read(self._sources(self.architecture))
        wanted = contents.packages(self.architecture)
        return Lock(
            architecture=self.architecture,
            suite=target_of(self._request).suite,
            date=self._archive.date,
            packages=tuple(resolve(index, [], wanted, without=contents.OMITTED)),
            python=tuple(self._foreign_python()),
        )

    def _foreign_python(self) -> list[Package]:
        """This machine's architecture's Python, where the guest's cannot run here."""
        own = _own_architecture()
        if not own or own == self.architecture:
            return []
        index = self._open(own).read(self._sources(own))
        return resolve(index, [], [contents.PYTHON], without=contents.OMITTED)

    # What is made of them

    def build(self, lock: Lock, output: str) -> dict[str, Any]:
        # It is written last: what has one is whole.
        remove_file(os.path.join(output, MANIFEST))
        epoch = lock.date if self._epoch is None else self._epoch
        self._archive.fetch([*lock.packages, *lock.python])
        with Tree(make_dir(paths.cache()), mtime=epoch) as tree:
            debs = self._unpack(tree, lock.packages)
            licences = licence_texts(tree, lock.packages)
            packages = [_described(tree, package, debs) for package in lock.packages]
            python = bytecode.python_version(tree)
            modules = ModuleSet.of_package(tree)
            vmlinuz = tree.read(f"boot/vmlinuz-{modules.version}")
            with self._python(tree, lock, python) as interpreter:
                self._make_root(tree, lock, modules)
                compiled = self._compile(tree, python, interpreter)
            busybox = tree.read("usr/bin/busybox")
            with open(os.path.join(output, ROOT), "wb") as file:
                write_erofs(tree, file, mtime=epoch)
        with open(os.path.join(output, KERNEL), "wb") as file:
            file.write(bootable_kernel(vmlinuz))
        with open(os.path.join(output, INITRAMFS), "wb") as file:
            write_initramfs(file, busybox, modules, mtime=epoch)
        manifest = {
            "schema": SCHEMA,
            "version": __version__,
            "tree": tree_digest(),
            "architecture": self.architecture,
            "platform": "/".join(("linux", ARCHITECTURES[self.architecture][0])),
            "suite": lock.suite,
            "date": epoch,
            "kernel": modules.version,
            "python": python,
            "bytecode": compiled,
            "command_line": {
                "always": [f"console={_CONSOLES[self.architecture]}", *_ALWAYS],
                "emulated": [*_EMULATED, *_EMULATED_ON[self.architecture]],
            },
            "files": {name: _file_facts(output, name) for name in (KERNEL, INITRAMFS, ROOT)},
            "packages": packages,
        }
        _write(output, LICENCES, licences)
        _write(output, LOCK, lock.to_json())
        _write(output, MANIFEST, json.dumps(manifest, indent=1) + "\n")
        return manifest

    def _unpack(self, tree: Tree, packages: Sequence[Package]) -> dict[str, Deb]:
        return unpack_packages(
            tree,
            packages,
            self._archive.content,
            lambda *_: self._progress.update("packages", "Extracting"),
        )

    def _make_root(self, tree: Tree, lock: Lock, modules: ModuleSet) -> None:
        contents.remove_unwanted(tree)
        require_libraries(tree)
        modules.only(contents.MODULES).write(tree)
        sshd = next(p.version for p in lock.packages if p.name == "openssh-server")
        prepare_guest(
            tree, lock.suite, per_source_penalties=satisfies(sshd, ">=", _PENALTIES_SINCE)
        )

    @contextmanager
    def _python(
        self, tree: Tree, lock: Lock, version: str
    ) -> Iterator[tuple[list[str], dict[str, str]] | None]:
        """An interpreter of the guest's version: a package's, or one that is installed."""
        if _own_architecture() == self.architecture:
            with bytecode.unpacked_python(tree, version) as found:
                yield found
        elif _own_architecture() and lock.python:
            with Tree(paths.cache()) as other:
                self._unpack(other, lock.python)
                with bytecode.unpacked_python(other, version) as found:
                    yield found
        elif command := bytecode.installed_python(version):
            yield command, {}
        else:
            yield None

    def _compile(
        self, tree: Tree, version: str, interpreter: tuple[list[str], dict[str, str]] | None
    ) -> int:
        if interpreter is None:
            self._progress.message(
                f"no Python {version} is here: the guest compiles what it imports at each start, "
                "which makes its commands slower"
            )
            return 0
        made = bytecode.compile_tree(tree, version, *interpreter)
        write_bundle(tree, version, (*WARM, *LATER), *interpreter)
        return made


def _own_architecture() -> str:
    """Debian's word for the architecture whose Linux programs run here; "" for none."""
    if sys.platform != "linux":
        return ""
    own = host_platform().architecture
    return next((word for word, (name, _) in ARCHITECTURES.items() if name == own), "")


def _described(tree: Tree, package: Package, debs: dict[str, Deb]) -> dict[str, Any]:
    control = debs[package.name].control
    source, version = source_of(package, control)
    return {
        "name": package.name,
        "version": package.version,
        "architecture": package.architecture,
        "source": source,
        "source_version": version,
        "homepage": control.get("Homepage", ""),
        "file": package.fields["Filename"],
        "sha256": package.sha256,
        "licences": licence_names(copyright_of(tree, package.name)),
    }


def tree_digest() -> str:
    """What tells this wherry from another of the same version."""
    digest = hashlib.sha256()
    for path, content in wherry_files():
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _write(output: str, name: str, text: str) -> None:
    write_atomic(os.path.join(output, name), text.encode(), mode=0o644)


def _file_facts(output: str, name: str) -> dict[str, Any]:
    with open(os.path.join(output, name), "rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return {"sha256": digest.hexdigest(), "size": file.tell()}
