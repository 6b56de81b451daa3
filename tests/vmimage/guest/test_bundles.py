"""What the guest's runner imports is in one file, and Python takes it from there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from wherry_vm.guest import bundle
from wherry_vm.guest.warm import LATER, WARM
from wherry_vmimage.guest.bundle import write_bundle
from wherry_vmimage.guest.bytecode import compile_tree
from wherry_vmimage.guest.settings import wherry_files
from wherry_vmimage.tree import Tree

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
PACKAGES = "usr/lib/python3/dist-packages"
BUNDLE = bundle.PLACE.lstrip("/")


def bundled(roots: tuple[str, ...], **sources: str | bytes) -> Tree:
    """A tree of modules, each by its name with "__" for a dot, and the bundle of `roots`."""
    tree = Tree()
    for name, source in sources.items():
        tree.file(f"{PACKAGES}/{name.replace('__', '/').replace('/init', '/__init__')}.py", source)
    compile_tree(tree, VERSION, [sys.executable], {})
    write_bundle(tree, VERSION, roots, [sys.executable], {})
    return tree


def run(directory: Path, program: str) -> list[str]:
    """What a program prints that has installed the bundle in `directory`."""
    start = (
        f"import sys; sys.path.append({str(Path(bundle.__file__).parents[2])!r})\n"
        "from wherry_vm.guest.bundle import install\n"
        f"install({str(directory / 'bundle')!r})\n"
    )
    words = [sys.executable, "-I", "-c", start + program]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.stderr == ""
    return result.stdout.split()


def test_modules_come_out_of_it_without_a_source(tmp_path: Path) -> None:
    with bundled(
        ("house.door",),
        house__init="NAME = 'house'\n",
        house__door="from .wall import brick\nfrom . import NAME\n",
        house__wall__init="",
        house__wall__brick="import plain\n",
        plain="",
    ) as tree:
        (tmp_path / "bundle").write_bytes(tree.read(BUNDLE))

    said = run(
        tmp_path,
        "from house import door\n"
        "import house.wall, plain\n"
        "print(door.NAME, door.__package__, door.__file__, house.wall.__path__[0])",
    )

    place = f"/{PACKAGES}/house"
    assert said == ["house", "house", f"{place}/door.py", f"{place}/wall"]


def test_what_only_functions_and_type_checkers_import_is_not_in_it(tmp_path: Path) -> None:
    with bundled(
        ("root",),
        root="TYPE_CHECKING = False\n"
        "if TYPE_CHECKING:\n import typed\nelse:\n import told\n"
        "try:\n import tried\nexcept ImportError:\n pass\n"
        "def later():\n import late\n"
        "if __name__ == '__main__':\n import program\n",
        **dict.fromkeys(("typed", "told", "tried", "late", "program"), "pass\n"),
    ) as tree:
        (tmp_path / "bundle").write_bytes(tree.read(BUNDLE))

    names = run(tmp_path, "print(*sorted(sys.meta_path[0]._modules))")

    assert names == ["root", "told", "tried"]


def test_where_there_is_none_all_is_imported_as_ever(tmp_path: Path) -> None:
    assert run(tmp_path, "import json; print(json.__name__)") == ["json"]


def test_all_of_ours_that_the_runner_imports_is_in_it(tmp_path: Path) -> None:
    with Tree() as tree:
        for path, content in wherry_files():
            tree.file(f"{PACKAGES}/{path}", content)
        compile_tree(tree, VERSION, [sys.executable], {})
        write_bundle(tree, VERSION, (*WARM, *LATER), [sys.executable], {})
        first = tree.read(BUNDLE)
        (tmp_path / "bundle").write_bytes(first)
        write_bundle(tree, VERSION, (*WARM, *LATER), [sys.executable], {})
        assert tree.read(BUNDLE) == first

    said = run(
        tmp_path,
        "from wherry_vm.guest.warm import LATER, WARM\n"
        "for name in (*WARM, *LATER): __import__(name)\n"
        "ours = {name: module for name, module in sys.modules.items() if name[:6] == 'wherry'}\n"
        "print(*(name for name in ours if '/dist-packages/' not in ours[name].__file__))",
    )

    # Those that are there before the bundle is.
    assert sorted(said) == ["wherry_vm", "wherry_vm.guest", "wherry_vm.guest.bundle"]
