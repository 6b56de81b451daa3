"""Pulls and pushes as tests do them: in this process with little patience, or in their own."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from wherry.config_file import ConfigFile
from wherry.image.auth import find_credentials
from wherry.image.progress import Progress
from wherry.image.pull import pull_image
from wherry.image.reference import parse_reference
from wherry.image.registry import Registry
from wherry.image.transport import Patience, Transport

if TYPE_CHECKING:
    from wherry.image.store import ImageStore
    from wherry.oci.image_spec import Descriptor

# Waits of milliseconds: what is retried is under test, not the clock.
HASTY = Patience(first=0.001, longest=0.01, longest_asked=0.5, read_timeout=20)

_PULL = """
import sys
from wherry.image.progress import Progress
from wherry.image.pull import pull_image
from wherry.image.reference import parse_reference
from wherry.image.store import ImageStore

class Loud(Progress):
    def update(self, name, status, current=0, total=0):
        print(status, current, flush=True)

pull_image(ImageStore(), parse_reference(sys.argv[1]), progress=Loud())
"""


class Recorder(Progress):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.statuses: dict[str, list[str]] = {}

    def message(self, text: str) -> None:
        self.messages.append(text)

    def update(self, name: str, status: str, current: int = 0, total: int = 0) -> None:
        seen = self.statuses.setdefault(name, [])
        if seen[-1:] != [status]:
            seen.append(status)


def hasty_registry(domain: str, path: str = "", *, chunk_size: int = 64 << 20) -> Registry:
    """The registry of `domain`, asked again at once where it fails."""
    config = ConfigFile()
    insecure = frozenset(config.insecure_registries())
    return Registry(
        domain,
        transport=Transport(patience=HASTY, insecure=insecure),
        credentials=find_credentials(config, domain, path),
        chunk_size=chunk_size,
    )


def pull(
    store: ImageStore, name: str, progress: Progress | None = None, *, platform: str | None = None
) -> Descriptor:
    """Pull `name` into `store`."""
    reference = parse_reference(name)
    registry = hasty_registry(reference.domain, reference.path)
    return pull_image(store, reference, platform=platform, progress=progress, registry=registry)


def start_pull(name: str) -> subprocess.Popen[str]:
    """A process of its own that pulls `name` into the store of WHERRY_ROOT.

    It prints a line for every step, `Downloading 123456`.
    """
    return subprocess.Popen(
        [sys.executable, "-c", _PULL, name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_bytes(process: subprocess.Popen[str], count: int) -> None:
    """Return when `process` has written `count` bytes of a layer."""
    assert process.stdout
    for line in process.stdout:
        status, _, current = line.rpartition(" ")
        if status == "Downloading" and int(current) >= count:
            return
    raise AssertionError(f"the pull ended before: {process.communicate()[1]}")
