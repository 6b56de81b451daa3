"""Where images and containers are kept, and whether a container's root can be mounted there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from wherry import paths
from wherry.errors import AccessDenied, WherryError, as_ours
from wherry.files import claim_directory, make_dir
from wherry_linux.doctor.finding import Finding, read, user_name
from wherry_linux.idmapped import file_system
from wherry_linux.mounts import Options
from wherry_linux.overlay import mount_overlay
from wherry_linux.userns import run_unshared

if TYPE_CHECKING:
    from collections.abc import Iterator

_ELSEWHERE = "export WHERRY_ROOT=/a/directory/on/a/local/disk"


def is_usable(path: str) -> bool:
    """Whether a directory of wherry's is there, or can be made, and is nobody else's."""
    try:
        _claim(path)
    except (OSError, WherryError):
        return False
    return True


def _claim(path: str) -> None:
    claim_directory(path)
    if not os.access(path, os.W_OK):
        raise AccessDenied(f"cannot write to {path}")


def _unusable(subject: str, path: str) -> Finding | None:
    """The finding about a directory that cannot be used; None for one that can."""
    try:
        _claim(path)
    except (OSError, WherryError) as error:
        return Finding(
            subject=subject,
            verdict="missing",
            text=as_ours(error).message,
            mend=_ELSEWHERE,
            who="you",
        )
    return None


def overlay() -> Iterator[Finding]:
    base = make_dir(paths.data())
    place = tempfile.mkdtemp(prefix="doctor-", dir=base)
    kind = file_system(base)
    try:
        run_unshared(lambda: _try_overlay(place), mounts=True)
    except WherryError as error:
        yield _no_overlay(base, kind, error)
    else:
        yield Finding(subject="overlayfs", verdict="ok", text=f"works on {base} ({kind})")
    finally:
        from wherry.container.copy import remove_tree

        # Root of the user's own namespace may remove what was made there.
        try:
            run_unshared(lambda: remove_tree(place))
        except WherryError:
            remove_tree(place)


def _try_overlay(place: str) -> None:
    """What each container does: a new file, one that is gone, a directory made anew."""
    for name in ("lower", "lower/gone", "lower/anew", "upper", "work", "root"):
        os.mkdir(f"{place}/{name}")
    directories = [f"{name}dir={place}/{name}" for name in ("lower", "upper", "work")]
    mount_overlay(Options([*directories, "userxattr"]), f"{place}/root")
    Path(f"{place}/root/new").touch()
    os.rmdir(f"{place}/root/gone")
    os.rmdir(f"{place}/root/anew")
    os.mkdir(f"{place}/root/anew")


def _no_overlay(base: str, kind: str, error: WherryError) -> Finding:
    text = f"cannot be mounted on {base} ({kind}): {error.message}"
    if "overlay" not in read("/proc/filesystems"):
        mend, who = "sudo modprobe overlay", "administrator"
        text = "the kernel has not loaded it"
    else:
        mend, who = _ELSEWHERE, "you"
    if kind == "overlay":
        text += "; it does not stack: inside a container, keep the directory on a volume"
    return Finding(
        subject="overlayfs",
        verdict="missing",
        text=text,
        mend=mend,
        who="you" if who == "you" else "administrator",
    )


def data_directory() -> Iterator[Finding]:
    from wherry.human import human_size

    base = paths.data()
    if missing := _unusable("data directory", base):
        yield missing
        return
    found = os.statvfs(base)
    free = found.f_bavail * found.f_frsize
    if found.f_flag & os.ST_NOEXEC:
        # Images are not concerned: an overlay has flags of its own.
        yield Finding(
            subject="data directory",
            verdict="limited",
            text=f"{base} is mounted noexec: programs in volumes cannot be executed",
            mend=_ELSEWHERE,
            who="you",
            meanwhile="programs of images run",
        )
    elif free < 1 << 30:
        yield Finding(
            subject="data directory",
            verdict="limited",
            text=f"{base} has {human_size(free)} free",
            mend="wherry system prune",
            who="you",
        )
    else:
        yield Finding(
            subject="data directory", verdict="ok", text=f"{base} has {human_size(free)} free"
        )


def runtime_directory() -> Iterator[Finding]:
    directory = paths.run()
    if missing := _unusable("runtime directory", directory):
        yield missing
    elif directory.startswith("/tmp/wherry-"):
        yield Finding(
            subject="runtime directory",
            verdict="limited",
            text="XDG_RUNTIME_DIR is not set or another user's, as after su or in cron",
            mend=f"sudo loginctl enable-linger {user_name()}",
            who="administrator",
            meanwhile=f"{directory} serves",
        )
    elif os.geteuid() != 0:
        yield Finding(subject="runtime directory", verdict="ok", text=directory)


def linger() -> Iterator[Finding]:
    if not os.path.isdir("/run/systemd/system"):
        return
    user = user_name()
    if os.path.exists(f"/var/lib/systemd/linger/{user}"):
        yield Finding(subject="after logout", verdict="ok", text="detached containers go on")
    else:
        yield Finding(
            subject="after logout",
            verdict="limited",
            text="systemd may end detached containers when you log out",
            mend=f"loginctl enable-linger {user}",
            who="you",
            meanwhile="they run as long as you are logged in",
        )
