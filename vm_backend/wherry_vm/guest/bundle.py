"""What the runner imports at its start, out of one file.

To find a module, to open its file and to read it takes an emulated guest two to four
milliseconds, and the runner needs two hundred. So the image has the bytecode of these once
more, in one file, see wherry_vmimage.guest.bundle: marshal's, and in it by a module's name

    (whether it is a package, its source, its .pyc, the bytecode)
"""

from __future__ import annotations

import marshal
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import SourceFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

PLACE = "/usr/lib/wherry/modules.bundle"


def install(place: str = PLACE) -> None:
    """Import from there what is in it; where there is none, all is imported as ever."""
    try:
        with open(place, "rb") as file:
            modules = marshal.loads(file.read())
    except FileNotFoundError:
        return
    sys.meta_path.insert(0, Bundle(modules))


class Bundle:
    """A finder of the modules in a bundle, each of which it gives away once."""

    def __init__(self, modules: dict[str, tuple[bool, str, str, bytes]]) -> None:
        self._modules = modules

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        found = self._modules.pop(name, None)
        if found is None:
            return None
        is_package, source, cached, bytecode = found
        loader = _Loader(name, source, bytecode)
        spec = ModuleSpec(name, loader, origin=source, is_package=is_package)
        spec.has_location = True
        # Else it is made up of the source's name, in a dozen steps.
        spec.cached = cached
        if is_package:
            spec.submodule_search_locations = [source.rpartition("/")[0]]
        return spec


class _Loader(SourceFileLoader):
    """A loader that has the bytecode already, until it has been asked for it."""

    def __init__(self, name: str, source: str, bytecode: bytes) -> None:
        super().__init__(name, source)
        self._bytecode = bytecode

    def get_code(self, fullname: str) -> CodeType | None:
        bytecode, self._bytecode = self._bytecode, b""
        if not bytecode:
            return super().get_code(fullname)
        code: CodeType = marshal.loads(bytecode)
        return code
