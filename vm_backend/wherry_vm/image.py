"""Guest images: what a machine boots.

An image is a directory as `wherry_vmimage` makes it (a kernel, an initramfs, a root and
manifest.json, which has their digests), or an archive of it: the wheel `wherry-guest`
brings one, `machine init --image` and WHERRY_GUEST name others. It is verified while it is
put into the store of images, DATA/machines/images/DIGEST, and machines boot what is there.
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

    from wherry_vm.machines import Machine
    from wherry_vm.qemu.host import Host

_MANIFEST = "manifest.json"
_FILES = ("kernel", "initramfs", "root.erofs")
_SCHEMA = 1
_PIECE = 1 << 20


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
    source = os.environ.get("WHERRY_GUEST") or _installed(host)
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


def add_image(source: str, report: Callable[[str], None] = lambda _: None) -> str:
    """Put an image into the store, if it is not there; its digest.

    `source` is a directory or an archive of one. Raises NotFound; CorruptState where
    it is damaged, and then nothing of it is kept.
    """
    if os.path.isdir(source):
        digest = _digest_of(os.path.join(source, _MANIFEST))
    elif os.path.isfile(source):
        digest = _archive_digest(source)
    else:
        raise NotFound(f"no such guest image: {source}")
    target = os.path.join(images(), digest)
    if os.path.exists(target):
        return digest
    make_dir(images())
    with Lock(os.path.join(images(), "lock")):
        if not os.path.exists(target):
            report("Unpacking the guest image")
            _store(source, target)
    return digest


def _store(source: str, target: str) -> None:
    draft = f"{target}.{os.getpid()}.tmp"
    shutil.rmtree(draft, ignore_errors=True)
    make_dir(draft)
    try:
        if os.path.isdir(source):
            for name in (_MANIFEST, *_FILES):
                shutil.copyfile(os.path.join(source, name), os.path.join(draft, name))
        else:
            _unpack(source, draft)
        _verify(draft)
        os.replace(draft, target)
    except OSError as error:
        raise storage_error(error, f"unpack the guest image {source}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _archive_digest(path: str) -> str:
    """The digest of the manifest that an archive begins with."""
    import hashlib
    import tarfile

    try:
        with tarfile.open(path, "r|*") as archive:
            first = archive.next()
            file = archive.extractfile(first) if first and first.name == _MANIFEST else None
            if file is None:
                raise CorruptState(f"{path} is no guest image: it does not begin with a manifest")
            return hashlib.sha256(file.read()).hexdigest()
    except (tarfile.TarError, EOFError) as error:
        raise CorruptState(f"{path} is no guest image: {error}") from error


def _unpack(path: str, directory: str) -> None:
    """The files of an archive that are an image's, and no others."""
    import lzma
    import tarfile

    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                if not member.isfile() or member.name not in (_MANIFEST, *_FILES):
                    continue
                file = archive.extractfile(member)
                assert file is not None
                with open(os.path.join(directory, member.name), "wb") as output:
                    shutil.copyfileobj(file, output, _PIECE)
    except (tarfile.TarError, EOFError, lzma.LZMAError) as error:
        raise CorruptState(f"the guest image {path} is damaged: {error}") from error


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


def _installed(host: Host) -> str | None:
    """The archive that the wheel for this architecture brings; None where it is not installed."""
    from importlib.util import find_spec

    spec = find_spec("wherry_guest")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = os.path.join(place, f"guest-{DEBIAN_ARCHITECTURE[host.architecture]}.tar.xz")
        if os.path.exists(path):
            return path
    return None


def _forget_others(digest: str) -> None:
    """Remove the images that no machine boots: those of other releases."""
    kept = {digest, *(machines.load(name).settings.image for name in machines.names())}
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
