"""Kernel modules: what modprobe finds in a guest."""

from __future__ import annotations

import lzma
import struct
from typing import TYPE_CHECKING

import pytest
import zstandard

from support.elf import make_module, make_program
from wherry.errors import CorruptState, NotFound
from wherry_vmimage.guest.elf import require_libraries
from wherry_vmimage.guest.modules import Module, ModuleSet
from wherry_vmimage.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = "usr/lib/modules/6.1-test"


def module(path: str, *info: str, exports: Iterable[str] = ()) -> Module:
    return Module(f"kernel/{path}.ko", make_module(info, exports))


def module_set(*modules: Module, builtin: Iterable[str] = ()) -> ModuleSet:
    return ModuleSet("6.1-test", modules, builtin)


def names(modules: Iterable[Module]) -> list[str]:
    return [module.name for module in modules]


MODULES = (
    module("fs/top", "depends=left,right-side"),
    module("fs/left", "depends=base", "alias=fs-left"),
    module("fs/right-side", "depends=base"),
    module("lib/base", "depends=", exports=["base_do", "base_undo"]),
)


def test_module_comes_after_all_it_needs() -> None:
    assert names(module_set(*MODULES).needed(["top"])) == ["base", "left", "right_side", "top"]


def test_soft_dependency_is_a_dependency() -> None:
    modules = module_set(
        module("fs/erofs", "depends=libcrc32c"),
        module("lib/libcrc32c", "softdep=pre: crc32c post: later"),
        module("crypto/crc32c_special", "alias=crc32c"),
        module("crypto/crc32c_generic", "alias=crc32c"),
        module("lib/later"),
    )

    assert names(modules.needed(["erofs"])) == ["crc32c_generic", "libcrc32c", "erofs"]


def test_modules_of_a_package_lose_their_signatures() -> None:
    plain = make_module(("depends=",), ())
    signature = b"a signature"
    trailer = struct.pack(">8xI", len(signature)) + b"~Module signature appended~\n"
    with Tree() as tree:
        tree.file(f"{ROOT}/kernel/fs/signed.ko.xz", lzma.compress(plain + signature + trailer))
        tree.file(f"{ROOT}/kernel/fs/plain.ko", plain)
        tree.file(f"{ROOT}/modules.builtin", "")
        tree.file(f"{ROOT}/modules.builtin.modinfo", "")

        found = {module.name: module.content for module in ModuleSet.of_package(tree)}

    assert found == {"signed": plain, "plain": plain}


def test_what_is_built_in_needs_no_module() -> None:
    modules = module_set(
        module("fs/erofs", "softdep=pre: crc32c", "depends=zlib"),
        module("crypto/crc32c_special", "alias=crc32c"),
        builtin=["crc32c", "zlib"],
    )

    assert names(modules.needed(["erofs", "zlib"])) == ["erofs"]


def test_unknown_module_is_an_error() -> None:
    with pytest.raises(NotFound, match="no module nothing"):
        module_set(*MODULES).needed(["nothing"])


def test_choice_by_path_brings_what_it_needs() -> None:
    modules = module_set(*MODULES, module("drivers/other")).only([r"fs/left\b"])

    assert names(modules) == ["left", "base"]


def test_index_has_what_modprobe_asks_for() -> None:
    index = module_set(*MODULES, builtin=["ext4"]).index()

    assert index["modules.dep"][0] == "kernel/fs/left.ko: kernel/lib/base.ko"
    assert index["modules.dep"][3] == "kernel/lib/base.ko:"
    assert index["modules.alias"] == ["alias fs-left left"]
    assert index["modules.symbols"] == ["alias symbol:base_do base", "alias symbol:base_undo base"]
    assert index["modules.builtin"] == ["kernel/ext4.ko"]


def compressors() -> list[tuple[str, Callable[[bytes], bytes]]]:
    return [("", bytes), (".xz", lzma.compress), (".zst", zstandard.ZstdCompressor().compress)]


@pytest.mark.parametrize(("ending", "compress"), compressors())
def test_modules_of_a_package_are_decompressed(
    ending: str, compress: Callable[[bytes], bytes]
) -> None:
    content = make_module(["alias=x"])
    with Tree() as tree:
        tree.file(f"{ROOT}/kernel/fs/x.ko{ending}", compress(content))
        tree.file(f"{ROOT}/modules.builtin", "kernel/fs/ext4/ext4.ko\n")
        tree.file(
            f"{ROOT}/modules.builtin.modinfo", b"crc32c_generic.alias=crc32c\0ext4.author=x\0"
        )

        modules = ModuleSet.of_package(tree)

    assert modules.version == "6.1-test"
    assert [module.content for module in modules] == [content]
    assert not modules.needed(["ext4", "crc32c"])


def test_damaged_module_is_an_error() -> None:
    with Tree() as tree:
        tree.file(f"{ROOT}/kernel/fs/x.ko.xz", lzma.compress(b"x" * 1000)[:30])
        tree.file(f"{ROOT}/modules.builtin", "")

        with pytest.raises(CorruptState, match=r"x\.ko\.xz is damaged"):
            ModuleSet.of_package(tree)


def test_program_without_its_library_is_an_error() -> None:
    with Tree() as tree:
        tree.file("usr/lib/machine/libgood.so.1", make_program([]))
        tree.file("usr/bin/good", make_program(["libgood.so.1"]))
        require_libraries(tree)

        tree.file("usr/bin/bad", make_program(["libgood.so.1", "libbad.so.2"]))
        with pytest.raises(NotFound, match=r"/usr/bin/bad needs libbad\.so\.2"):
            require_libraries(tree)
