"""A Debian archive made in a directory: a few tiny packages, signed with a key of its own."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import shutil
import subprocess
import tarfile
import tempfile
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING

import zstandard

from support.requirements import need_tool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: zstandard.ZstdCompressor().compress(content),
}
# Release files of tests are of this moment, so that images made of them have the same bytes.
RELEASE_TIME = 1_700_000_000


def tar_of(members: Iterable[tarfile.TarInfo | tuple[str, bytes]]) -> bytes:
    """A tar of members as they are, and of files given as (path, content)."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            path, content = member
            info = tarfile.TarInfo(path)
            info.size = len(content)
            info.mtime = RELEASE_TIME - 1000
            info.mode = 0o755 if "/bin/" in path or path in ("./preinst", "./postinst") else 0o644
            tar.addfile(info, io.BytesIO(content))
    return output.getvalue()


def special(path: str, kind: bytes, target: str = "", mode: int = 0o755) -> tarfile.TarInfo:
    """A member that is no file."""
    info = tarfile.TarInfo(path)
    info.type, info.linkname, info.mode = kind, target, mode
    info.mtime = RELEASE_TIME - 1000
    return info


def ar_of(members: Iterable[tuple[str, bytes]]) -> bytes:
    archive = b"!<arch>\n"
    for name, content in members:
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n"
        archive += header.encode() + content + b"\n" * (len(content) % 2)
    return archive


def make_deb(
    fields: Mapping[str, str],
    files: Iterable[tarfile.TarInfo | tuple[str, bytes]] = (),
    *,
    scripts: Mapping[str, bytes] | None = None,
    compression: str = ".xz",
) -> bytes:
    """A package. `files` are its data.tar, in this order."""
    control = "".join(f"{name}: {value}\n" for name, value in fields.items()).encode()
    inner = [("./control", control), *((f"./{n}", c) for n, c in (scripts or {}).items())]
    compress = COMPRESSORS[compression]
    return ar_of(
        [
            ("debian-binary", b"2.0\n"),
            (f"control.tar{compression}", compress(tar_of(inner))),
            (f"data.tar{compression}", compress(tar_of(files))),
        ]
    )


class SigningKey:
    """An OpenPGP key that gpg makes and keeps in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self._program = need_tool("gpg")
        # The agent's socket must have a short path.
        self._home = tempfile.mkdtemp(prefix="gpg-")
        self._gpg("--passphrase", "", "--quick-gen-key", "archive@test", "ed25519", "sign", "never")
        self.keyring = directory / "keyring.gpg"
        self.keyring.write_bytes(self._gpg("--export"))
        self.armored = self._gpg("--armor", "--export")

    def sign(self, text: bytes) -> bytes:
        """`text`, clear-signed."""
        return self._gpg("--clear-sign", input=text)

    def close(self) -> None:
        subprocess.run(
            ["gpgconf", "--homedir", self._home, "--kill", "gpg-agent"],
            check=False,
            capture_output=True,
        )
        shutil.rmtree(self._home, ignore_errors=True)

    def _gpg(self, *arguments: str, input: bytes = b"") -> bytes:  # noqa: A002
        return subprocess.run(
            [self._program, "--homedir", self._home, "--batch", "--quiet", *arguments],
            check=True,
            input=input,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ).stdout


class Mirror:
    """An archive below a directory, served from there by `file:` or by any web server."""

    def __init__(self, directory: Path, key: SigningKey | None = None) -> None:
        self.directory = directory
        self.key = key
        self._stanzas: list[str] = []

    @property
    def uri(self) -> str:
        return f"file://{self.directory}"

    def add(
        self,
        name: str,
        version: str = "1.0",
        files: Iterable[tarfile.TarInfo | tuple[str, bytes]] = (),
        *,
        scripts: Mapping[str, bytes] | None = None,
        compression: str = ".xz",
        **fields: str,
    ) -> Path:
        """Add a package; the path of its .deb. Fields are given with `_` for `-`."""
        control = {
            "Package": name,
            "Version": version,
            "Architecture": "amd64",
            "Maintainer": "nobody",
            **{field.replace("_", "-"): value for field, value in fields.items()},
            "Description": f"the package {name}\n of a test\n .\n   indented",
        }
        deb = make_deb(control, files, scripts=scripts, compression=compression)
        path = Path("pool") / f"{name}_{version.replace(':', '%3a')}.deb"
        target = self.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(deb)
        index = {
            **control,
            "Filename": str(path),
            "Size": str(len(deb)),
            "SHA256": hashlib.sha256(deb).hexdigest(),
        }
        self._stanzas.append("".join(f"{field}: {value}\n" for field, value in index.items()))
        return target

    def publish(
        self,
        suite: str = "bookworm",
        *,
        by_hash: bool = False,
        compression: str = ".xz",
        tamper: Callable[[bytes], bytes] = bytes,
        **fields: str,
    ) -> Path:
        """Write the index and the signed Release; the path of the index.

        `tamper` changes InRelease after it was signed.
        """
        directory = self.directory / "dists" / suite
        inner = f"main/binary-amd64/Packages{compression}"
        index = directory / inner
        index.parent.mkdir(parents=True, exist_ok=True)
        content = COMPRESSORS[compression]("\n".join(self._stanzas).encode())
        digest = hashlib.sha256(content).hexdigest()
        if by_hash:
            index = index.parent / "by-hash" / "SHA256" / digest
            index.parent.mkdir(parents=True, exist_ok=True)
        index.write_bytes(content)
        release = {
            "Origin": "Debian",
            "Suite": "oldstable",
            "Codename": suite,
            "Version": "12.0",
            "Date": formatdate(RELEASE_TIME, usegmt=True),
            "Architectures": "amd64",
            "Components": "main",
            "Acquire-By-Hash": "yes" if by_hash else "no",
            **{field.replace("_", "-"): value for field, value in fields.items()},
            "SHA256": f"\n {digest} {len(content)} {inner}",
        }
        text = "".join(f"{field}: {value}\n" for field, value in release.items()).encode()
        if self.key:
            (directory / "InRelease").write_bytes(tamper(self.key.sign(text)))
        else:
            (directory / "Release").write_bytes(text)
        return index
