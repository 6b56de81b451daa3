"""The second stage: maintainer scripts, run in a container of our own without a network.

The first stage leaves packages unpacked. What is left of an installation is what their
scripts do: `preinst` of each in the order of what they need, then `dpkg --configure`.
"""

from __future__ import annotations

import re
import shlex
from typing import IO, TYPE_CHECKING, Protocol

from wherry_vmimage.debian import INFO, info_name
from wherry_vmimage.resolver import Selection

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from wherry.oci.image_spec import Descriptor
    from wherry_vmimage.deb import Deb
    from wherry_vmimage.packages import Package
    from wherry_vmimage.tree import Tree

_PRELUDE = f"""\
set -eu
umask 022
preinst() {{
    DPKG_MAINTSCRIPT_PACKAGE="$1" DPKG_MAINTSCRIPT_ARCH="$2" DPKG_MAINTSCRIPT_NAME=preinst \\
    DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1 DPKG_ADMINDIR=/var/lib/dpkg DPKG_ROOT= \\
    "/{INFO}/$3.preinst" install </dev/null || {{
        echo "the preinst script of $1 failed" >&2
        exit 1
    }}
}}
configure() {{
    dpkg --force-confold --force-unsafe-io --configure "$@" </dev/null
}}
"""

# What tells nothing about the system: logs, caches, and the backups of each tool's last
# change. A log that some program expects to find stays, empty; so does the identity
# that is made anew for every machine.
_EPILOGUE = """\
find /var/log -type f '(' -name '*.log' -o -path '/var/log/apt/*' ')' -delete
find /var/log -type f -size +0 -exec truncate -s 0 '{}' +
find /var/cache/ldconfig /var/lib/apt/lists /tmp /var/tmp /run -xdev -type f -delete || true
: >/etc/machine-id
rm -f /var/lib/dpkg/*-old /var/cache/debconf/*-old /var/cache/apt/*.bin
rm -f /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /etc/subuid- /etc/subgid- /etc/.pwd.lock
"""

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
    # Debconf writes its database in the order of a hash table.
    "PERL_HASH_SEED": "0",
    "PYTHONHASHSEED": "0",
}


class RunScript(Protocol):
    """Runs a shell script as root in a container of an image, without a network.

    The result is that container's whole file system afterwards, as a tar archive; what
    the script says goes to whoever watches. Raises WherryError where the script fails.
    """

    def __call__(
        self, image: Descriptor, script: str, environment: Mapping[str, str]
    ) -> AbstractContextManager[IO[bytes]]: ...


def configure(
    tree: Tree, unpacked: Descriptor, script: str, epoch: int, run_script: RunScript
) -> None:
    """Run `script` in a container of the image `unpacked`; what comes of it is added to `tree`.

    What the container got from its runtime is not part of it, and what the script made
    is as old as `epoch`, whenever it ran.
    """
    environment = {**_ENVIRONMENT, "SOURCE_DATE_EPOCH": str(epoch)}
    with run_script(unpacked, script, environment) as tar:
        tree.unpack(tar)
    tree.remove(_is_of_runtime)


_RUNTIME_FILES = re.compile(r"\.dockerenv|(?:dev|proc|sys)/.+|etc/(?:hosts|hostname|resolv\.conf)")


def _is_of_runtime(path: str) -> bool:
    return _RUNTIME_FILES.fullmatch(path) is not None


def configure_script(
    packages: Sequence[Package], debs: dict[str, Deb], base: Collection[str], architecture: str
) -> str:
    """The shell script that configures `packages`, which are in the order of what they need.

    The names in `base` are the system itself: their scripts work when all of them are
    unpacked. Others may count on their Pre-Depends being configured (policy 7.2).
    """
    selection = Selection(architecture, packages)
    configured: set[str] = set()
    lines: list[str] = []
    for package in sorted(packages, key=lambda package: package.name not in base):
        if "preinst" not in debs[package.name].scripts:
            continue
        if package.name not in base:
            needed = _closure(selection, selection.needs(package.pre_depends))
            if missing := [name for name in needed if name not in configured]:
                lines.append(shlex.join(["configure", *missing]))
                configured.update(missing)
        lines.append(
            shlex.join(["preinst", package.name, package.architecture, info_name(package)])
        )
    return _PRELUDE + "\n".join(lines) + "\nconfigure -a\n" + _EPILOGUE


def _closure(selection: Selection, packages: Iterable[Package]) -> list[str]:
    """The names of `packages` and of all that they need."""
    names: dict[str, None] = {}
    waiting = list(packages)
    while waiting:
        package = waiting.pop()
        if package.name not in names:
            names[package.name] = None
            waiting += selection.needs(package.depends)
    return sorted(names)
