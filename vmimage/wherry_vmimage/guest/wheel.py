"""A guest as a wheel: what `pip install` brings to where there is no Linux.

One wheel per architecture, tagged for every system whose machines have it. The images
are compressed in it, each by itself; nothing else of it is, so that it is written once
and read once.
"""

from __future__ import annotations

import base64
import hashlib
import json
import lzma
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from time import gmtime
from typing import TYPE_CHECKING, Any

from wherry.errors import NotFound
from wherry_vmimage.guest.build import INITRAMFS, KERNEL, LICENCES, LOCK, MANIFEST, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKAGE = "wherry_guest"
_IMAGES = (KERNEL, INITRAMFS, ROOT)
_PLATFORMS = {
    "amd64": (
        "macosx_10_9_x86_64",
        "manylinux_2_17_x86_64",
        "musllinux_1_1_x86_64",
        "win_amd64",
    ),
    "arm64": (
        "macosx_11_0_arm64",
        "manylinux_2_17_aarch64",
        "musllinux_1_1_aarch64",
        "win_arm64",
    ),
}
# A zip cannot tell an earlier time.
_OLDEST = 315_532_800
_INIT = '''\
"""The Linux that `wherry` runs in a virtual machine: see manifest.json and LICENSES.txt."""
'''
_METADATA = """\
Metadata-Version: 2.1
Name: wherry-guest
Version: {version}
Summary: The Linux guest of wherry's virtual machine, for {architecture}
License: the licences of its packages, which LICENSES.txt holds
License-File: LICENSES.txt
Requires-Python: >=3.11

A kernel, an initramfs and a read-only root file system, made of the packages of Debian
{suite} that manifest.json lists, each with its version, its digest, its source package
and its licences. Debian's archive has the sources under these names and versions.
"""
_WHEEL = """\
Wheel-Version: 1.0
Generator: wherry_vmimage
Root-Is-Purelib: false
"""


# The bytecode in the bundle of the runner's modules is in files of its own before that.
_XZ = {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 32 << 20}


def build_wheel(guest: str, directory: str) -> str:
    """Write the wheel of the guest in `guest` into `directory`; its path."""
    manifest = _manifest(guest)
    version = manifest["version"]
    platforms = _PLATFORMS[manifest["architecture"]]
    info = f"{_PACKAGE}-{version}.dist-info"
    name = f"{_PACKAGE}-{version}-py3-none-{'.'.join(platforms)}.whl"
    tags = "".join(f"Tag: py3-none-{platform}\n" for platform in platforms)
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, name)
    partial = f"{path}.partial"
    record = ""
    with zipfile.ZipFile(partial, "w") as archive:

        def add(file: str, content: bytes, *, compress: bool = True) -> None:
            nonlocal record
            entry = zipfile.ZipInfo(file, gmtime(max(manifest["date"], _OLDEST))[:6])
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
            archive.writestr(entry, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            record += f"{file},sha256={digest.decode()},{len(content)}\n"

        add(f"{_PACKAGE}/__init__.py", _INIT.encode())
        for name, content in _compressed(guest):
            add(f"{_PACKAGE}/{name}.xz", content, compress=False)
        for name in (MANIFEST, LOCK):
            add(f"{_PACKAGE}/{name}", _read(guest, name))
        add(f"{info}/licenses/{LICENCES}", _read(guest, LICENCES))
        add(f"{info}/METADATA", _METADATA.format_map(manifest).encode())
        add(f"{info}/WHEEL", (_WHEEL + tags).encode())
        add(f"{info}/RECORD", f"{record}{info}/RECORD,,\n".encode())
    os.replace(partial, path)
    return path


def _manifest(guest: str) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(_read(guest, MANIFEST))
    except FileNotFoundError:
        raise NotFound(f"{guest} holds no guest", hint="`build` makes one") from None
    return manifest


def _compressed(guest: str) -> Iterator[tuple[str, bytes]]:
    """The images, compressed side by side."""

    def compress(name: str) -> tuple[str, bytes]:
        return name, lzma.compress(_read(guest, name), lzma.FORMAT_XZ, filters=[_XZ])

    with ThreadPoolExecutor() as pool:
        yield from pool.map(compress, _IMAGES)


def _read(guest: str, name: str) -> bytes:
    with open(os.path.join(guest, name), "rb") as file:
        return file.read()
