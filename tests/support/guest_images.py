"""A guest image to boot: the one that WHERRY_GUEST names, or one that is built for the tests."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from wherry.files import Lock

_REPOSITORY = Path(__file__).parents[2]
_OLD = 4 * 3600


@functools.cache
def guest_image(architecture: str = "") -> str:
    """The directory of an image of this tree, for this machine's architecture or another.

    It is kept for the next run, and made anew when a file of wherry's has changed. Runs
    beside this one may make others, and boot them.
    """
    if not architecture and (given := os.environ.get("WHERRY_GUEST")):
        return given
    place = Path(tempfile.gettempdir()) / f"wherry-test-guest-{os.getuid()}"
    place.mkdir(mode=0o700, exist_ok=True)
    newest = place / f"{_digest()}{architecture}"
    with Lock(str(place / "lock")):
        if not (newest / "manifest.json").exists():
            _forget_old(place)
            draft = place / f"draft-{os.getpid()}"
            words = ["wherry_vmimage", "build", "--arch", architecture, str(draft)]
            build = [sys.executable, "-m", *words]
            subprocess.run(build, check=True, cwd=_REPOSITORY)
            draft.rename(newest)
    os.utime(newest)
    return str(newest)


def _forget_old(place: Path) -> None:
    """Remove the images that no run has used for hours."""
    for old in place.iterdir():
        if old.is_dir() and time.time() - old.stat().st_mtime > _OLD:
            shutil.rmtree(old, ignore_errors=True)


def _digest() -> str:
    """What tells this tree from another."""
    from wherry_vmimage.guest.build import tree_digest

    return tree_digest()
