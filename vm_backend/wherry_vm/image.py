"""Guest images: what a machine boots.

An image is what `wherry_vmimage` makes: a kernel, an initramfs, a root and manifest.json,
which has their digests; in a directory, or compressed in the wheel `wherry-guest`, installed
or not. `machine init --image` and WHERRY_GUEST name others than the installed one. It is
verified when it is put into the store, DATA/machines/.images/DIGEST, and machines boot what
is there.
"""

from __future__ import annotations

import os
import shutil

from wherry import paths
from wherry.errors import CorruptState, MachineError, NotFound
from wherry.files import Lock, make_dir, read_json, storage_error
from wherry.values import value
from wherry_vm import machines
from wherry_vm.qemu.host import DEBIAN_ARCHITECTURE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any
    from zipfile import ZipFile

    from wherry_vm.machines import Machine
    from wherry_vm.qemu.host import Host

_PACKAGE = "wherry_guest"
_MANIFEST = "manifest.json"
_FILES = ("kernel", "initramfs", "root.erofs")
_SCHEMA = 1


@value
class GuestImage:
    """An image in the store. `digest` is that of its manifest."""

    digest: str
    directory: str
    manifest: dict[str, Any]

    @property
    def kernel(self) -> str:
        return os.path.join(self.directory, "kernel")

    @property
    def initramfs(self) -> str:
        return os.path.join(self.directory, "initramfs")

    @property
    def root(self) -> str:
        return os.path.join(self.directory, "root.erofs")

    def kernel_options(self, accelerator: str) -> tuple[str, ...]:
        """What the image wants its kernel to be told."""
        options = self.manifest["command_line"]
        return (*options["always"], *(options["emulated"] if accelerator == "tcg" else ()))


def images() -> str:
    """The store of images."""
    return os.path.join(paths.machines(), ".images")


def find_image(machine: Machine, host: Host, report: Callable[[str], None]) -> GuestImage:
    """The image that a machine boots: its own, or the one of this release. Raises NotFound."""
    if machine.settings.image:
        return _load(machine.settings.image)
    source = os.environ.get("WHERRY_GUEST") or _installed()
    if source is None:
        raise NotFound(
            "no guest image is installed",
            hint=f"pip install wherry-guest, or: wherry machine init --image FILE {machine.name}",
        )
    image = _load(add_image(source, report))
    architecture = DEBIAN_ARCHITECTURE[host.architecture]
    if image.manifest["architecture"] != architecture:
        raise MachineError(
            f"the guest image {source} is for {image.manifest['architecture']}, "
            f"and this host is {architecture}"
        )
    _forget_others(image.digest)
    return image


def add_image(path: str, report: Callable[[str], None] = lambda _: None) -> str:
    """Put an image into the store, if it is not there; its digest.

    `path` is a directory or a wheel. Raises NotFound; CorruptState where the image is
    damaged, and then nothing of it is kept.
    """
    import hashlib

    source = Source(path)
    digest = hashlib.sha256(source.read(_MANIFEST)).hexdigest()
    target = os.path.join(images(), digest)
    if os.path.exists(target):
        return digest
    make_dir(images())
    with Lock(os.path.join(images(), "lock")):
        if not os.path.exists(target):
            report("Unpacking the guest image")
            _store(source, target)
    return digest


class Source:
    """An image outside the store: its files as they are, or compressed, or in a wheel."""

    def __init__(self, path: str) -> None:
        """Raises NotFound, CorruptState."""
        self.path = path
        self._wheel: ZipFile | None = None
        if os.path.isdir(path):
            return
        from zipfile import BadZipFile, ZipFile

        try:
            self._wheel = ZipFile(path)
        except FileNotFoundError:
            raise NotFound(f"no such guest image: {path}") from None
        except (OSError, BadZipFile) as error:
            raise CorruptState(f"{path} is no guest image: {error}") from error

    def read(self, name: str) -> bytes:
        """A file of the image. Raises CorruptState where it is not there or damaged."""
        from lzma import LZMAError, decompress
        from zipfile import BadZipFile
        from zlib import error as ZlibError  # noqa: N812

        try:
            try:
                return self._content(name)
            except (FileNotFoundError, KeyError):
                return decompress(self._content(f"{name}.xz"))
        except (FileNotFoundError, KeyError):
            raise CorruptState(f"{self.path} is no guest image: it has no {name}") from None
        except (OSError, EOFError, LZMAError, BadZipFile, ZlibError) as error:
            raise CorruptState(f"the guest image {self.path} is damaged: {error}") from error

    def _content(self, name: str) -> bytes:
        if self._wheel is not None:
            return self._wheel.read(f"{_PACKAGE}/{name}")
        with open(os.path.join(self.path, name), "rb") as file:
            return file.read()


def _store(source: Source, target: str) -> None:
    draft = f"{target}.{os.getpid()}.tmp"
    shutil.rmtree(draft, ignore_errors=True)
    make_dir(draft)
    try:
        for name in (_MANIFEST, *_FILES):
            with open(os.path.join(draft, name), "wb") as file:
                file.write(source.read(name))
        _verify(draft)
        os.replace(draft, target)
    except OSError as error:
        raise storage_error(error, f"unpack the guest image {source.path}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _verify(directory: str) -> None:
    """Raise CorruptState where the files are not what the manifest says."""
    manifest = _manifest(directory)
    for name in _FILES:
        path = os.path.join(directory, name)
        found = _digest_of(path)
        if found != manifest["files"][name]["sha256"]:
            raise CorruptState(
                f"the guest image is damaged: {name} has the digest {found[:12]}…, its manifest "
                f"says {manifest['files'][name]['sha256'][:12]}…",
                hint="pip install --force-reinstall wherry-guest",
            )


def _manifest(directory: str) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = read_json(os.path.join(directory, _MANIFEST))
    except FileNotFoundError as error:
        raise CorruptState(f"the guest image in {directory} has no manifest") from error
    if manifest.get("schema") != _SCHEMA:
        raise MachineError(
            f"the guest image is of another release: its schema is {manifest.get('schema')}"
        )
    return manifest


def _load(digest: str) -> GuestImage:
    directory = os.path.join(images(), digest)
    if not os.path.isdir(directory):
        raise NotFound(f"the guest image {digest[:12]} is not there any more")
    return GuestImage(digest=digest, directory=directory, manifest=_manifest(directory))


def _installed() -> str | None:
    """The directory of the installed wheel; None where there is none."""
    from importlib.util import find_spec

    spec = find_spec(_PACKAGE)
    return next(iter(spec.submodule_search_locations or ()), None) if spec else None


def _forget_others(digest: str) -> None:
    """Remove the images that no machine boots: those of other releases."""
    try:
        kept = {digest, *(machines.load(name).settings.image for name in machines.names())}
    except CorruptState:
        return  # what the machine boots cannot be read
    for name in os.listdir(images()):
        if len(name) == 64 and name not in kept:
            shutil.rmtree(os.path.join(images(), name), ignore_errors=True)


def _digest_of(path: str) -> str:
    import hashlib

    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise CorruptState(f"the guest image has no {os.path.basename(path)}") from error
