"""What makes a system of unpacked packages: what maintainer scripts would have done, and ours."""

from __future__ import annotations

import os
from importlib.resources import files
from importlib.util import find_spec
from typing import TYPE_CHECKING

from wherry import __version__
from wherry_vmimage.busybox import applets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wherry_vmimage.tree import Tree

LIBRARY = "usr/lib/wherry"
_PYTHON_PACKAGES = "usr/lib/python3/dist-packages"
_OWN_PACKAGES = ("wherry", "wherry_linux", "wherry_vm", "wherry_vmimage")

_PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
sshd:x:102:65534:sshd:/run/sshd:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
_GROUP = """\
root:x:0:
daemon:x:1:
tty:x:5:
disk:x:6:
kmem:x:15:
shadow:x:42:
users:x:100:
nogroup:x:65534:
"""
# The ids that containers with a user namespace of their own are given.
_SUBIDS = "root:1000000:1000000000\n"

_FILES = {
    "etc/passwd": _PASSWD,
    "etc/group": _GROUP,
    "etc/subuid": _SUBIDS,
    "etc/subgid": _SUBIDS,
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/machine-id": "",
    "etc/shells": "/bin/sh\n",
    "etc/profile": "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n",
    "etc/fuse.conf": "user_allow_other\n",
    "usr/local/bin/.keep": "",
}
_SHADOW = "root:*:::::::\nsshd:!:::::::\nnobody:*:::::::\n"
_DIRECTORIES = {
    **dict.fromkeys(("data", "dev", "etc", "home", "proc", "run", "sys", "var/lib/wherry"), 0o755),
    **dict.fromkeys(("etc/ssh", "mnt", "opt", "usr/local/sbin", "var/log", "var/cache"), 0o755),
    "root": 0o700,
    "tmp": 0o1777,
    "var/tmp": 0o1777,
}
_LINKS = {
    "etc/mtab": "../proc/self/mounts",
    "var/run": "/run",
    "usr/lib/ssl/certs": "/etc/ssl/certs",
    "usr/lib/ssl/cert.pem": "/etc/ssl/certs/ca-certificates.crt",
}
_PROGRAMS = ("boot", "modules", "power-button", "runner", "shutdown", "sshd")
_WHERRY = """\
#!/usr/bin/python3
from wherry.__main__ import main

main()
"""


def prepare_guest(tree: Tree, suite: str, *, per_source_penalties: bool) -> None:
    """Make a system that boots of the packages in `tree`, which are of `suite`."""
    for path, mode in _DIRECTORIES.items():
        tree.directory(path, mode)
    for path, content in _FILES.items():
        tree.file(path, content)
    tree.file("etc/shadow", _SHADOW, 0o640)
    # A package has an empty directory where its script makes a link.
    tree.remove(_LINKS.__contains__)
    for path, target in _LINKS.items():
        tree.symlink(path, target)
    _link_busybox(tree)
    _write_certificates(tree)
    _write_own_files(tree, per_source_penalties)
    # What `bootstrap` goes by; not where the packages of this very guest came from, which
    # may be nobody else's mirror.
    sources = own_file("debian.sources").decode().format(suite=suite)
    tree.file("etc/apt/sources.list.d/debian.sources", sources)
    _copy_wherry(tree)


def _link_busybox(tree: Tree) -> None:
    """busybox under all its names that no package has a program for."""
    for name in applets(tree.read("usr/bin/busybox")):
        if not any(f"usr/{directory}/{name}" in tree for directory in ("bin", "sbin")):
            tree.symlink(f"usr/bin/{name}", "busybox")
    for name in ("init", "modprobe", "nologin", "poweroff"):
        # Where the kernel and others look for them by their whole path.
        tree.symlink(f"usr/sbin/{name}", "../bin/busybox")


def _write_certificates(tree: Tree) -> None:
    """All authorities in one file, as update-ca-certificates(8) makes it.

    The agent puts another with the host's own in the place of the link.
    """
    directory = "usr/share/ca-certificates/"
    paths = [path for path in tree.paths() if path.startswith(directory) and path.endswith(".crt")]
    bundle = b"".join(tree.read(path).strip() + b"\n" for path in paths)
    tree.remove(lambda path: path.startswith(directory))
    tree.file("usr/share/ca-certificates.crt", bundle)
    tree.symlink("etc/ssl/certs/ca-certificates.crt", "../../../usr/share/ca-certificates.crt")


def _write_own_files(tree: Tree, per_source_penalties: bool) -> None:
    for name in _PROGRAMS:
        tree.file(f"{LIBRARY}/{name}", own_file(name), 0o755)
    tree.file(f"{LIBRARY}/common", own_file("common"))
    tree.file(f"{LIBRARY}/version", f"{__version__}\n")
    for name in ("fstab", "inittab", "sysctl.conf"):
        tree.file(f"etc/{name}", own_file(name))
    sshd = own_file("sshd_config")
    if per_source_penalties:
        # All connections have one source here: it must not be shut out for its mistakes.
        sshd += b"PerSourcePenalties no\n"
    tree.file("etc/ssh/sshd_config", sshd, 0o600)


def own_file(name: str) -> bytes:
    return files(__package__).joinpath("files", name).read_bytes()


def _copy_wherry(tree: Tree) -> None:
    """The program of this release: both sides of a machine are of one tree."""
    for path, content in wherry_files():
        tree.file(f"{_PYTHON_PACKAGES}/{path}", content)
    tree.file("usr/bin/wherry", _WHERRY, 0o755)


def wherry_files() -> Iterator[tuple[str, bytes]]:
    """The files of our own packages, by their paths in one directory."""
    for package in _OWN_PACKAGES:
        for root in _locations(package):
            for directory, names, found in os.walk(root):
                names[:] = sorted(name for name in names if name != "__pycache__")
                for name in sorted(found):
                    path = os.path.join(directory, name)
                    with open(path, "rb") as file:
                        relative = os.path.relpath(path, os.path.dirname(root))
                        yield relative.replace(os.sep, "/"), file.read()


def _locations(package: str) -> list[str]:
    spec = find_spec(package)
    return list(spec.submodule_search_locations or ()) if spec else []
