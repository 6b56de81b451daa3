"""The tree of a busybox system: one static program under all its names.

Made of one package, `busybox-static`, and needs nothing to be run: what tests and a first
container want.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from wherry.errors import CorruptState

if TYPE_CHECKING:
    from wherry_vmimage.deb import Deb
    from wherry_vmimage.tree import Tree

PACKAGE = "busybox-static"

# The program holds its applets' names as a sorted list of strings, of which this is the start.
_LIST_START = b"[\0[[\0"
_APPLET = re.compile(rb"[a-z0-9][a-z0-9_.+-]*|\[\[?")

_FILES = {
    "etc/passwd": """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
""",
    "etc/group": """\
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
mail:x:8:
www-data:x:33:
operator:x:37:
utmp:x:43:
users:x:100:
nogroup:x:65534:
""",
}
_SHADOW = "root:*:::::::\nnobody:*:::::::\n"
_DIRECTORIES = {
    **dict.fromkeys(("bin", "dev", "etc", "home", "proc", "sys", "usr/bin", "usr/sbin"), 0o755),
    **dict.fromkeys(("var/spool/mail", "var/www"), 0o755),
    "root": 0o700,
    "tmp": 0o1777,
    "var/tmp": 0o1777,
}


def unpack_busybox(tree: Tree, deb: Deb) -> None:
    """Make the system of `deb`, the package `busybox-static`, in `tree`."""
    package = type(tree)()
    with package:
        package.unpack(io.BytesIO(deb.data))
        path = next((p for p in ("bin/busybox", "usr/bin/busybox") if p in package), None)
        if path is None:
            raise CorruptState(f"the package {PACKAGE} holds no busybox")
        program = package.read(path)
        tree.mtime = max(entry.mtime for _, entry in package.entries())
    for directory, mode in _DIRECTORIES.items():
        tree.directory(directory, mode)
    tree.file("bin/busybox", program, 0o755)
    for applet in applets(program):
        if applet != "busybox":
            tree.hardlink(f"bin/{applet}", "bin/busybox")
    # Where scripts look for it, whatever else they need.
    tree.symlink("usr/bin/env", "../../bin/env")
    for name, content in _FILES.items():
        tree.file(name, content)
    tree.file("etc/shadow", _SHADOW, 0o640)


def applets(program: bytes) -> list[str]:
    """The names that a busybox goes by, read out of it, so that no machine has to run it."""
    names: list[bytes] = []
    start = program.find(_LIST_START)
    for name in program[start : start + 65536].split(b"\0") if start >= 0 else ():
        if not _APPLET.fullmatch(name) or (names and name <= names[-1]):
            break
        names.append(name)
    if b"sh" not in names:
        raise CorruptState("this busybox does not tell its applets")
    return [name.decode() for name in names]
