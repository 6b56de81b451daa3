"""A guest image to boot: the one that WHERRY_GUEST names, or one that is built for the tests."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

_REPOSITORY = Path(__file__).parents[2]


@functools.cache
def guest_image() -> str:
    """The directory of an image of this tree, for this machine's architecture.

    It is kept beside the tree, and made anew when a file of wherry's has changed.
    """
    if given := os.environ.get("WHERRY_GUEST"):
        return given
    place = Path(tempfile.gettempdir()) / f"wherry-test-guest-{os.getuid()}"
    place.mkdir(mode=0o700, exist_ok=True)
    newest = place / _digest()
    if not (newest / "manifest.json").exists():
        for old in place.iterdir():
            subprocess.run(["rm", "-rf", old], check=True)
        draft = place / "draft"
        build = [sys.executable, "-m", "wherry_vmimage", "build", str(draft)]
        subprocess.run(build, check=True, cwd=_REPOSITORY)
        draft.rename(newest)
    return str(newest)


def _digest() -> str:
    """What tells this tree from another."""
    from wherry_vmimage.guest.build import tree_digest

    return tree_digest()
