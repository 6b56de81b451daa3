"""Whether ids can be mapped at a mount: what `--userns auto` and `-v …:idmap` are made of."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from wherry import paths
from wherry.container.overlay import overlay_mount as overlay_entry
from wherry.errors import WherryError
from wherry.files import make_dir
from wherry_linux import idmap
from wherry_linux.doctor.finding import Finding
from wherry_linux.idmapped import file_system, stage
from wherry_linux.mounts import Options
from wherry_linux.overlay import mount_overlay
from wherry_linux.userns import run_unshared

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wherry.oci.runtime_spec import IDMapping, Spec


def idmapped_mounts() -> Iterator[Finding]:
    base = make_dir(paths.data())
    kind = file_system(base)
    if os.geteuid() != 0:
        yield Finding(
            subject="idmapped mounts",
            verdict="limited",
            text=f"the kernel lets only root idmap {kind}: no -v …:idmap here",
            meanwhile=":U changes owners, --userns keep-id keeps yours",
        )
        return
    place = tempfile.mkdtemp(prefix="doctor-", dir=base)
    for name in ("lower", "own", "own/upper", "own/work"):
        os.mkdir(f"{place}/{name}")
    overlay = overlay_entry(
        "/", [f"{place}/lower"], upper=f"{place}/own/upper", work=f"{place}/own/work"
    )
    overlay["options"].append("idmap")
    spec: Spec = {"root": {"path": place}, "mounts": [overlay]}
    shifted: list[IDMapping] = [{"containerID": 0, "hostID": 100000, "size": 1}]

    def attempt() -> None:
        users = idmap.open_users(shifted, shifted)
        stage(spec, place, users)
        mount_overlay(Options(spec["mounts"][0]["options"]), spec["root"]["path"])

    try:
        run_unshared(attempt, mounts=True)
    except WherryError as error:
        yield Finding(
            subject="idmapped mounts",
            verdict="limited",
            text=f"--userns auto does not work on {base} ({kind}): {error.message}",
            meanwhile="containers without --userns auto",
        )
    else:
        yield Finding(
            subject="idmapped mounts",
            verdict="ok",
            text=f"work on {base} ({kind}), below overlayfs too",
        )
    finally:
        from wherry.container.copy import remove_tree

        remove_tree(place)
