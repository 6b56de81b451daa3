"""The initramfs: busybox, a dozen modules and one script, which finds the root and enters it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wherry.errors import NotFound
from wherry_vmimage.cpio import write_cpio
from wherry_vmimage.guest.contents import FIRST_MODULES, OPTIONAL_FIRST_MODULES
from wherry_vmimage.guest.settings import own_file
from wherry_vmimage.tree import Entry, Tree

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

    from wherry_vmimage.guest.modules import ModuleSet

# What the script calls: busybox finds its own applets by /proc, which is not mounted yet.
_APPLETS = ("cat", "insmod", "mkdir", "mount", "poweroff", "sh", "switch_root")


def write_initramfs(
    output: SupportsWrite[bytes], busybox: bytes, modules: ModuleSet, *, mtime: int
) -> None:
    with Tree() as tree:
        tree.directory("bin")
        tree.directory("modules")
        tree.directory("dev")
        # The kernel opens it before anything is mounted.
        tree.add("dev/console", Entry(kind="char", mode=0o600, device=(5, 1)))
        tree.file("bin/busybox", busybox, 0o755)
        for name in _APPLETS:
            tree.symlink(f"bin/{name}", "busybox")
        tree.file("init", own_file("initramfs-init"), 0o755)
        needed = modules.needed(_first(modules))
        for module in needed:
            tree.file(f"modules/{module.name}.ko", module.content)
        tree.file("modules/order", "".join(f"{module.name}.ko\n" for module in needed))
        write_cpio(tree, output, mtime=mtime)


def _first(modules: ModuleSet) -> list[str]:
    """The modules to load: those that every guest needs, and what else this kernel has."""
    names = list(FIRST_MODULES)
    for name in OPTIONAL_FIRST_MODULES:
        try:
            modules.needed([name])
        except NotFound:
            continue
        names.append(name)
    return names
