"""Where the containers of an end-to-end test are made, and who asks for them.

A test of the command runs for each of `SETTINGS`: natively as root and as another user,
and in a machine, with the same lines and the same output. One that is about a single user
of the native backend is narrowed with a mark: `@as_root`, `@as_rootless`, or
`@as_single_uid` for a user without subordinate ids; one that is about the native backend
alone, with `@on_linux`, and one that is about what only root's containers have, with
`@of_root`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import pytest


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A backend, and the user who runs the command."""

    backend: Literal["linux", "vm"]
    user: Literal["root", "rootless", "single", "current"]


_ROOT = pytest.param(Setting(backend="linux", user="root"), id="root", marks=pytest.mark.linux)
_ROOTLESS = pytest.param(
    Setting(backend="linux", user="rootless"),
    id="rootless",
    marks=[pytest.mark.linux, pytest.mark.rootless],
)
_SINGLE = pytest.param(
    Setting(backend="linux", user="single"),
    id="single-uid",
    marks=[pytest.mark.linux, pytest.mark.single_uid],
)
_VM = pytest.param(
    Setting(backend="vm", user="current"),
    id="vm",
    marks=[pytest.mark.vm, pytest.mark.network],  # the guest is made of a mirror's packages
)

_backends = (os.environ.get("WHERRY_TEST_BACKENDS") or "linux,vm").split(",")

_NATIVE = [_ROOT, _ROOTLESS] if "linux" in _backends else []
_MACHINE = [_VM] if "vm" in _backends else []

SETTINGS = [*_NATIVE, *_MACHINE]

on_linux = pytest.mark.parametrize("setting", [_ROOT, _ROOTLESS], indirect=True)
"""For what no machine can have: descriptors of the command, files of the store."""

of_root = pytest.mark.parametrize("setting", [*_NATIVE[:1], *_MACHINE], indirect=True)
"""For what only root's containers have: those of a machine are root's, too."""

for_every_user = pytest.mark.parametrize(
    "setting", [*_NATIVE, *([_SINGLE] if _NATIVE else []), *_MACHINE], indirect=True
)
"""For what comes to the same whoever asks for it, users without subordinate ids among them."""

as_root = pytest.mark.parametrize("setting", [_ROOT], indirect=True)
as_rootless = pytest.mark.parametrize("setting", [_ROOTLESS], indirect=True)
as_single_uid = pytest.mark.parametrize("setting", [_SINGLE], indirect=True)

OFFLINE = "--network=none"
"""For containers that are not about the network: it needs helpers that not every host allows."""
