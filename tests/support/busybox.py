"""An image with busybox, made in memory from Debian's static binary."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from support.requirements import need_tool

if TYPE_CHECKING:
    from collections.abc import Mapping

_PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
_GROUP = """\
root:x:0:
daemon:x:1:
tty:x:5:
wheel:x:10:root
www-data:x:33:
users:x:100:nobody
nogroup:x:65534:
"""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def busybox_archive(
    name: str = "busybox:latest",
    *,
    config: Mapping[str, object] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> bytes:
    """A docker archive, as `docker save` writes it.

    `config` is added to the image's configuration (Env, Cmd, User, …); `files` come in a
    second layer.
    """
    layers = [busybox_layer()]
    if files:
        layers.append(_layer({path: (content, 0o644) for path, content in files.items()}))
    diff_ids = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
    machine = subprocess.run(["uname", "-m"], capture_output=True, text=True, check=True)
    image_config = json.dumps(
        {
            "architecture": _ARCHITECTURES.get(machine.stdout.strip(), machine.stdout.strip()),
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": {
                "Cmd": ["sh"],
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                **(config or {}),
            },
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [
                {"created": "2024-01-01T00:00:00Z", "created_by": f"layer {number}"}
                for number in range(len(layers))
            ],
        }
    ).encode()
    config_name = hashlib.sha256(image_config).hexdigest() + ".json"
    layer_names = [f"{diff_id.removeprefix('sha256:')}/layer.tar" for diff_id in diff_ids]
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": layer_names}]
    return _tar(
        {
            config_name: image_config,
            **dict(zip(layer_names, layers, strict=True)),
            "manifest.json": json.dumps(manifest).encode(),
        }
    )


@functools.cache
def busybox_layer() -> bytes:
    """A root file system with every applet of busybox, as a tar."""
    busybox = need_tool("busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for directory in (
            "bin",
            "dev",
            "etc",
            "home",
            "proc",
            "root",
            "sys",
            "tmp",
            "usr",
            "usr/bin",
            "var",
        ):
            member = tarfile.TarInfo(directory)
            member.type = tarfile.DIRTYPE
            member.mode = {"tmp": 0o1777, "root": 0o700}.get(directory, 0o755)
            tar.addfile(member)
        _add(tar, "bin/busybox", Path(busybox).read_bytes(), 0o755)
        for applet in applets.stdout.split():
            if applet != "busybox":
                _link(tar, f"bin/{applet}", "bin/busybox")
        _link(tar, "usr/bin/env", "bin/busybox")
        _add(tar, "etc/passwd", _PASSWD.encode(), 0o644)
        _add(tar, "etc/group", _GROUP.encode(), 0o644)
    return output.getvalue()


def _layer(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, (content, mode) in files.items():
            _add(tar, path.lstrip("/"), content, mode)
    return output.getvalue()


def _tar(files: Mapping[str, bytes]) -> bytes:
    return _layer({path: (content, 0o644) for path, content in files.items()})


def _add(tar: tarfile.TarFile, path: str, content: bytes, mode: int) -> None:
    member = tarfile.TarInfo(path)
    member.size = len(content)
    member.mode = mode
    tar.addfile(member, io.BytesIO(content))


def _link(tar: tarfile.TarFile, path: str, target: str) -> None:
    member = tarfile.TarInfo(path)
    member.type = tarfile.LNKTYPE
    member.linkname = target
    # Some set it on what they link: it is the file's own.
    member.mode = 0o755
    tar.addfile(member)
