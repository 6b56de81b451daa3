"""Where the host's paths are in the guest: pure functions of the shares.

A directory has the same path on both sides, so that what containers and `inspect` say is
right on both; a drive of Windows is a directory, `C:\\Users` is `/c/Users`.
"""

from __future__ import annotations

import posixpath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from wherry_vm.machines import Share

# The guest's own: what hides one of these, or is in one, breaks it.
_GUESTS_OWN = (
    "/bin", "/boot", "/data", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc",
    "/run", "/sbin", "/sys", "/usr", "/var/lib", "/var/run",
)  # fmt: skip


def guest_path(path: str) -> str:
    """What an absolute path of the host is called in the guest."""
    text = path.replace("\\", "/") if path[1:2] == ":" or path.startswith("\\") else path
    text = text.replace("//?/UNC/", "//", 1).removeprefix("//?/")
    if text[1:2] == ":":
        text = f"/{text[0].lower()}{text[2:] or '/'}"
    return posixpath.normpath("/" + text.lstrip("/"))


def is_free(target: str) -> bool:
    """Whether a share may be mounted at `target` in the guest."""
    hides = any(_holds(target, own) for own in _GUESTS_OWN)
    return not hides and not any(_holds(own, target) for own in _GUESTS_OWN)


def place(path: str, shares: Iterable[Share]) -> str | None:
    """The guest's path of the host's file `path`, which is absolute; None in no share."""
    wanted = guest_path(path)
    for share in shares:
        if _holds(guest_path(share.source), wanted):
            rest = posixpath.relpath(wanted, guest_path(share.source))
            return posixpath.normpath(posixpath.join(share.target, rest))
    return None


def in_order(shares: Sequence[Share]) -> list[Share]:
    """`shares` in the order in which they are mounted: one inside another comes after it."""
    return sorted(shares, key=lambda share: share.target.count("/") if share.target != "/" else 0)


def _holds(directory: str, path: str) -> bool:
    return directory == "/" or path == directory or path.startswith(directory + "/")
