"""Kernel modules: which of them a guest gets, and what depmod would write about them.

A package has its modules compressed, and without the files that modprobe looks into:
its maintainer script makes them. Here a soft dependency counts as a dependency, because
busybox's modprobe, which the guest uses, knows no other.
"""

from __future__ import annotations

import lzma
import posixpath
import re
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from wherry.errors import CorruptState, NotFound
from wherry_vmimage.guest.elf import Elf

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from wherry_vmimage.tree import Tree

_SIGNED = b"~Module signature appended~\n"
_SIGNATURE = struct.Struct(">8xI")

_FILE = re.compile(
    r"usr/lib/modules/(?P<version>[^/]+)/(?P<path>.+)/(?P<name>[^/]+)\.ko(?P<z>\.\w+)?"
)


@dataclass(frozen=True)
class Module:
    """A kernel module, decompressed."""

    path: str  # below the directory of its kernel: kernel/fs/fat/vfat.ko
    content: bytes

    @property
    def name(self) -> str:
        return _name(posixpath.basename(self.path).removesuffix(".ko"))

    @cached_property
    def info(self) -> list[tuple[str, str]]:
        """Its .modinfo: what it says about itself."""
        section = Elf(self.content).section(".modinfo")
        lines = (line.decode("utf-8", "replace") for line in section.split(b"\0") if line)
        return [(key, value) for key, _, value in (line.partition("=") for line in lines)]

    def values(self, key: str) -> list[str]:
        return [value for name, value in self.info if name == key]

    @property
    def depends(self) -> list[str]:
        """The names of the modules whose symbols it uses."""
        names = (name for value in self.values("depends") for name in value.split(","))
        return [_name(name) for name in names if name]

    @property
    def soft_depends(self) -> list[str]:
        """The names that it says are to be loaded before it, modules' or aliases'."""
        names: list[str] = []
        for value in self.values("softdep"):
            wanted = False
            for word in value.split():
                if word.endswith(":"):
                    wanted = word == "pre:"
                elif wanted:
                    names.append(word)
        return names

    @cached_property
    def exports(self) -> list[str]:
        """The symbols that it has for other modules."""
        return Elf(self.content).exports()


def _name(name: str) -> str:
    """The kernel takes the one for the other, and calls modules with the second."""
    return name.replace("-", "_")


class ModuleSet:
    """The modules of one kernel, by name."""

    def __init__(self, version: str, modules: Iterable[Module], builtin: Iterable[str]) -> None:
        self.version = version
        self._modules = {module.name: module for module in modules}
        self._builtin = set(builtin)

    @classmethod
    def of_package(cls, tree: Tree) -> ModuleSet:
        """Those of a kernel's package."""
        matches = [match for path in tree.paths() if (match := _FILE.fullmatch(path))]
        if not matches:
            raise NotFound("the kernel's package holds no modules")
        version = matches[0]["version"]
        contents = [tree.read(match[0]) for match in matches]
        with ThreadPoolExecutor() as pool:
            modules = [
                Module(f"{match['path']}/{match['name']}.ko", _unsigned(content))
                for match, content in zip(
                    matches, pool.map(_decompressed, matches, contents), strict=True
                )
            ]
        return cls(version, modules, _builtin_names(tree, version))

    def __iter__(self) -> Iterator[Module]:
        return iter(sorted(self._modules.values(), key=lambda module: module.path))

    def needed(self, names: Iterable[str]) -> list[Module]:
        """The modules of these names and all they need, each after what it needs.

        What is built into the kernel needs no module. Raises NotFound.
        """
        ordered: dict[str, Module] = {}
        for name in names:
            self._add(_name(name), ordered, set())
        return list(ordered.values())

    def _add(self, name: str, ordered: dict[str, Module], begun: set[str]) -> None:
        if name in ordered or name in begun or name in self._builtin:
            return
        begun.add(name)
        module = self._modules.get(name)
        if module is None:
            raise NotFound(f"this kernel has no module {name}")
        for needed in self._direct(module):
            self._add(needed, ordered, begun)
        ordered[name] = module

    def _direct(self, module: Module) -> Iterator[str]:
        yield from module.depends
        for wanted in map(_name, module.soft_depends):
            if wanted not in self._builtin:
                yield from self._providers.get(wanted, ())

    @cached_property
    def _providers(self) -> Mapping[str, list[str]]:
        """The modules that a plain name stands for, as `crypto-crc32c` does for several."""
        found: dict[str, list[str]] = {name: [name] for name in self._modules}
        for module in self:
            for alias in module.values("alias"):
                found.setdefault(_name(alias), []).append(module.name)
        # An alias asks for what can do it, and the generic one does it on every machine.
        return {
            name: [n for n in names if n.endswith("_generic")] or names[:1]
            for name, names in found.items()
        }

    def only(self, wanted: Iterable[str]) -> ModuleSet:
        """A set of what the patterns `wanted` say, paths below `kernel/`, and all it needs."""
        pattern = re.compile("|".join(f"(?:{each})" for each in wanted))
        names = [module.name for module in self if pattern.match(module.path, len("kernel/"))]
        return ModuleSet(self.version, self.needed(names), self._builtin)

    def write(self, tree: Tree) -> None:
        """Put the modules into `tree`, and what depmod would write about them."""
        directory = f"usr/lib/modules/{self.version}"
        for module in self:
            tree.file(f"{directory}/{module.path}", module.content)
        for name, lines in self.index().items():
            tree.file(f"{directory}/{name}", "".join(f"{line}\n" for line in lines))

    def index(self) -> dict[str, list[str]]:
        """The files that modprobe looks into, as depmod(8) writes them, by name."""
        return {
            "modules.dep": [
                f"{module.path}: {' '.join(m.path for m in reversed(needed))}".rstrip()
                for module in self
                for needed in [self.needed([module.name])[:-1]]
            ],
            "modules.alias": [
                f"alias {alias} {module.name}"
                for module in self
                for alias in module.values("alias")
            ],
            "modules.symbols": [
                f"alias symbol:{symbol} {module.name}"
                for module in self
                for symbol in module.exports
            ],
            "modules.softdep": [
                f"softdep {module.name} {value}"
                for module in self
                for value in module.values("softdep")
            ],
            # modprobe asks it for what is no module, and looks at the names only.
            "modules.builtin": [f"kernel/{name}.ko" for name in sorted(self._builtin)],
        }


def _builtin_names(tree: Tree, version: str) -> set[str]:
    """What is built into the kernel: modules, and what their aliases ask for."""
    directory = f"usr/lib/modules/{version}"
    paths = tree.read(f"{directory}/modules.builtin").decode().split()
    names = {_name(posixpath.basename(path).removesuffix(".ko")) for path in paths}
    for line in tree.read(f"{directory}/modules.builtin.modinfo").split(b"\0"):
        name, _, value = line.decode("utf-8", "replace").partition("=")
        if name.endswith(".alias"):
            names.add(_name(value))
    return names


def _unsigned(content: bytes) -> bytes:
    """A module without its signature: include/linux/module_signature.h.

    The image has a digest, and that of a signature takes an emulated processor longer than
    loading the module.
    """
    if not content.endswith(_SIGNED):
        return content
    end = len(content) - len(_SIGNED) - _SIGNATURE.size
    (size,) = _SIGNATURE.unpack_from(content, end)
    return content[: end - size]


def _decompressed(match: re.Match[str], content: bytes) -> bytes:
    try:
        match match["z"]:
            case None:
                return content
            case ".xz":
                return lzma.decompress(content)
            case ".zst":
                import zstandard

                return zstandard.ZstdDecompressor().decompressobj().decompress(content)
    except lzma.LZMAError as error:
        raise CorruptState(f"/{match[0]} is damaged: {error}") from error
    raise CorruptState(f"/{match[0]} is compressed in a way that is not known here")
