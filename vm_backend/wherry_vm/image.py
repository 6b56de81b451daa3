"""Guest images: what a machine boots.

An image is what `wherry_vmimage` makes: a kernel, an initramfs, a root and manifest.json,
which has their digests; in a directory, or compressed in the wheel `wherry-guest`, installed
or not. `machine init --image` and WHERRY_GUEST name others than the installed one. Machines
boot what is in the store, DATA/machines/.images/DIGEST. It is verified there before the
first start after it came, after the host has booted, and after a file of it has changed.

A guest and its host come from one release of wherry: an image of another one is not booted.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager

from wherry import __version__, paths
from wherry.errors import CorruptState, MachineError, NotFound
from wherry.files import Lock, make_dir, read_file, read_json, storage_error, write_json
from wherry.lean import load_json
from wherry.shapes import fits
from wherry.values import value
from wherry_vm import machines
from wherry_vm.qemu.host import boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any
    from zipfile import ZipFile

    from wherry_vm.machines import Machine

_DISTRIBUTION, _PACKAGE = "wherry-guest", "wherry_guest"
_MANIFEST = "manifest.json"
_FILES = ("kernel", "initramfs", "root.erofs")
_VERIFIED = "verified.json"
_SCHEMA = 1
_SHAPE = {
    "version!": str,
    "architecture!": str,
    "command_line!": {"always!": [str], "emulated!": [str]},
    "files!": {f"{name}!": {"sha256!": str} for name in _FILES},
}


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


def architecture(machine: Machine) -> str:
    """Debian's name of the architecture that a machine's image is for, before it is unpacked.

    Raises as find_image does.
    """
    if machine.settings.image and _is_of_this_release(manifest := _load(machine).manifest):
        return str(manifest["architecture"])
    source = _source(machine)
    return str(_checked(Source(source).read(_MANIFEST), source)["architecture"])


def find_image(machine: Machine, report: Callable[[str], None]) -> GuestImage:
    """The image that a machine boots: its own, or the one of this release.

    Raises NotFound, CorruptState; MachineError where all there is is another release's.
    """
    if machine.settings.image:
        image = _load(machine)
        if _is_of_this_release(image.manifest):
            with _to_be_set_again(machine):
                _verify(image)
            return image
        report(f"the image of machine {machine.name} {_of_another_release(image.manifest)}")
    image = _stored(_source(machine), report)
    _forget_others(image.digest)
    return image


def _source(machine: Machine) -> str:
    """Where this release's image is, outside the store. Raises NotFound."""
    source = os.environ.get("WHERRY_GUEST") or _installed()
    if source is None:
        raise NotFound(
            f"no guest image of wherry {__version__} is installed",
            # `init` would find the machine there already.
            hint=f"pip install {_DISTRIBUTION}, or: wherry machine set --image FILE {machine.name}",
        )
    return source


def _stored(source: str, report: Callable[[str], None]) -> GuestImage:
    """The image at `source`, in the store."""
    image = _kept_as(add_image(source, report))
    if not _is_of_this_release(image.manifest):
        raise MachineError(
            f"the guest image {source} {_of_another_release(image.manifest)}",
            hint=f"pip install {_DISTRIBUTION}=={__version__}",
        )
    return image


def _load(machine: Machine) -> GuestImage:
    """The image that a machine has of its own."""
    with _to_be_set_again(machine):
        return _kept_as(machine.settings.image)


@contextmanager
def _to_be_set_again(machine: Machine) -> Iterator[None]:
    """Say of an image of a machine's own that is damaged what mends it."""
    try:
        yield
    except CorruptState as error:
        error.hint = f"wherry machine set --image FILE {machine.name}"
        raise


def _kept_as(digest: str) -> GuestImage:
    """An image in the store. Raises CorruptState."""
    return GuestImage(digest=digest, directory=_directory(digest), manifest=_manifest(digest))


def _is_of_this_release(manifest: dict[str, Any]) -> bool:
    return bool(manifest["version"] == __version__)


def _of_another_release(manifest: dict[str, Any]) -> str:
    return f"is of wherry {manifest['version']}, and this is {__version__}"


def add_image(path: str, report: Callable[[str], None] = lambda _: None) -> str:
    """Put an image into the store, if it is not there, and whole; its digest.

    `path` is a directory or a wheel. Raises NotFound; CorruptState where the image is
    damaged, and then nothing of it is kept.
    """
    import hashlib

    source = Source(path)
    content = source.read(_MANIFEST)
    digest = hashlib.sha256(content).hexdigest()
    _checked(content, path)
    if _is_whole(digest, report):
        return digest
    make_dir(images())
    with Lock(os.path.join(images(), "lock")):
        if not _is_whole(digest, lambda _: None):
            report("Unpacking the guest image")
            shutil.rmtree(_directory(digest), ignore_errors=True)
            _store(source, digest)
    return digest


def _is_whole(digest: str, report: Callable[[str], None]) -> bool:
    """Whether an image is in the store as it came."""
    if not os.path.exists(_directory(digest)):
        return False
    try:
        _verify(_kept_as(digest))
    except CorruptState as error:
        report(f"{error.message}; unpacking it again")
        return False
    return True


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


def _store(source: Source, digest: str) -> None:
    """Put an image into the store, which nobody else changes now."""
    draft = f"{_directory(digest)}.tmp"
    shutil.rmtree(draft, ignore_errors=True)
    make_dir(draft)
    try:
        for name in (_MANIFEST, *_FILES):
            with open(os.path.join(draft, name), "wb") as file:
                file.write(source.read(name))
        manifest = _checked(source.read(_MANIFEST), source.path)
        _verify(GuestImage(digest=digest, directory=draft, manifest=manifest))
        os.replace(draft, _directory(digest))
    except CorruptState as error:
        if source.path == _installed():
            error.hint = f"pip install --force-reinstall {_DISTRIBUTION}"
        raise
    except OSError as error:
        raise storage_error(error, f"unpack the guest image {source.path}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _verify(image: GuestImage) -> None:
    """Raise CorruptState where the files are not what the manifest says.

    What was found is kept for as long as the files are the same, and the host is up: a power
    failure may have taken of them what their length does not tell.
    """
    record = os.path.join(image.directory, _VERIFIED)
    try:
        state = [boot_id(), *(state_of(os.path.join(image.directory, name)) for name in _FILES)]
        if _kept(record) == state:
            return
    except OSError as error:
        name = os.path.basename(error.filename)
        raise CorruptState(f"the guest image is damaged: {name}: {error.strerror}") from error
    for name in _FILES:
        found = _digest_of(os.path.join(image.directory, name))
        expected = image.manifest["files"][name]["sha256"]
        if found != expected:
            raise CorruptState(
                f"the guest image is damaged: {name} has the digest {found[:12]}…, its manifest "
                f"says {expected[:12]}…"
            )
    write_json(record, state)


def state_of(path: str) -> list[int]:
    """What of a file changes when it does. Raises OSError."""
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


def _kept(path: str) -> Any:
    try:
        return read_json(path)
    except (FileNotFoundError, CorruptState):
        return None


def _directory(digest: str) -> str:
    return os.path.join(images(), digest)


def _manifest(digest: str) -> dict[str, Any]:
    """The manifest of an image in the store. Raises NotFound, CorruptState."""
    import hashlib

    directory = _directory(digest)
    if not os.path.isdir(directory):
        raise CorruptState(f"the guest image {digest[:12]} is not there any more")
    try:
        content = read_file(os.path.join(directory, _MANIFEST))
    except FileNotFoundError as error:
        raise CorruptState(f"the guest image in {directory} has no manifest") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise CorruptState(f"the guest image is damaged: {_MANIFEST} is not the one that came")
    return _checked(content, directory)


def _checked(content: bytes, where: str) -> dict[str, Any]:
    """What a manifest says. Raises CorruptState, MachineError."""
    try:
        manifest: dict[str, Any] = load_json(content)
    except ValueError as error:
        raise CorruptState(f"the guest image {where} is damaged: {error}") from error
    if not fits(manifest, {"schema!": int}):
        raise CorruptState(f"{where} is no guest image: its {_MANIFEST} is another's")
    if manifest["schema"] != _SCHEMA:
        raise MachineError(
            f"the guest image {where} is of another release: its schema is {manifest['schema']}"
        )
    if not fits(manifest, _SHAPE):
        raise CorruptState(f"the guest image {where} is damaged: {_MANIFEST} is not whole")
    return manifest


def _installed() -> str | None:
    """The directory of the installed wheel; None where there is none."""
    from importlib.util import find_spec

    spec = find_spec(_PACKAGE)
    return next(iter(spec.submodule_search_locations or ()), None) if spec else None


def _forget_others(digest: str) -> None:
    """Remove the images that no machine boots, those of other releases, and half of one."""
    try:
        kept = {digest, *(machines.load(name).settings.image for name in machines.names())}
    except CorruptState:
        return  # what the machine boots cannot be read
    with Lock(os.path.join(images(), "lock")):
        for name in os.listdir(images()):
            if name != "lock" and name not in kept:
                shutil.rmtree(_directory(name), ignore_errors=True)


def _digest_of(path: str) -> str:
    import hashlib

    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise CorruptState(f"the guest image has no {os.path.basename(path)}") from error
