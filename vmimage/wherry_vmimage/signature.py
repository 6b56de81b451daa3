"""OpenPGP signatures of an archive's Release file.

The signed text is cut out of InRelease here and checked as a detached signature, so
that what is read afterwards is the very bytes that were verified. The checking itself
is done by `gpgv` or `sqv`, whichever the host has (they are what apt uses), or by
the PyPI package `pysequoia`.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import shutil
import tempfile
from typing import TYPE_CHECKING

from wherry.errors import AccessDenied, CorruptState, Unsupported

if TYPE_CHECKING:
    from collections.abc import Sequence

_CLEARSIGNED = re.compile(
    rb"-----BEGIN PGP SIGNED MESSAGE-----\n"
    rb"(?:Hash: [A-Za-z0-9, -]+\n)*\n"
    rb"(?P<text>.*?)\n"
    rb"(?P<signature>-----BEGIN PGP SIGNATURE-----\n.*?\n-----END PGP SIGNATURE-----)\s*",
    re.DOTALL,
)
_ARMOR = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----[^\n]*\n(?P<headers>(?:[^\n]*: [^\n]*\n)*)"
    rb"[ \t]*\n(?P<body>.*?)\n(?:=[A-Za-z0-9+/]{4}[ \t]*\n)?-----END PGP PUBLIC KEY BLOCK-----",
    re.DOTALL,
)


def split_clearsigned(content: bytes) -> tuple[bytes, bytes]:
    """The text of a clear-signed file (RFC 9580, 7), and its signatures. Raises CorruptState.

    Nothing may stand before or after: it would look signed and not be.
    """
    match = _CLEARSIGNED.fullmatch(content.replace(b"\r\n", b"\n"))
    if match is None or content.count(b"-----BEGIN PGP") != 2:
        raise CorruptState("it is not a clear-signed file")
    lines = match["text"].split(b"\n")
    # Trailing blanks are not signed, and dashes are escaped.
    text = b"\n".join(line.removeprefix(b"- ").rstrip(b" \t") for line in lines)
    return text, match["signature"] + b"\n"


def dearmor(content: bytes) -> bytes:
    """Public keys as plain packets, whether they are armored or not. Raises CorruptState."""
    if b"-----BEGIN PGP PUBLIC KEY BLOCK-----" not in content:
        # Every OpenPGP packet starts with the top bit set.
        if not content or not content[0] & 0x80:
            raise CorruptState("it holds no OpenPGP keys")
        return content
    try:
        return b"".join(
            base64.b64decode(b"".join(match["body"].split()), validate=True)
            for match in _ARMOR.finditer(content.replace(b"\r\n", b"\n"))
        )
    except binascii.Error as error:
        raise CorruptState(f"its armor is damaged: {error}") from error


def verify_clearsigned(content: bytes, keys: bytes, *, fingerprints: Sequence[str] = ()) -> bytes:
    """The text of `content`, if one of `keys` made a good signature of it.

    `keys` are plain packets. With `fingerprints`, only these keys of them count.
    Raises AccessDenied, CorruptState where it is not a clear-signed file, or
    Unsupported where nothing here can check.
    """
    text, signature = split_clearsigned(content)
    if shutil.which("gpgv") or shutil.which("sqv"):
        with tempfile.TemporaryDirectory(prefix="wherry-verify-") as directory:
            for name, part in (("keys", keys), ("text", text), ("signature", signature)):
                with open(os.path.join(directory, name), "wb") as file:
                    file.write(part)
            signers = _gpgv(directory) if shutil.which("gpgv") else _sqv(directory)
    else:
        signers = _pysequoia(content, text, keys)
    if fingerprints and not any(
        signer.endswith(wanted.upper().rstrip("!")) for signer in signers for wanted in fingerprints
    ):
        raise AccessDenied("it is signed, but by none of the keys that may sign it")
    return text


def _run(*command: str) -> tuple[int, str, str]:
    import subprocess

    result = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    return (
        result.returncode,
        result.stdout.decode(errors="replace"),
        result.stderr.decode(errors="replace"),
    )


def _gpgv(directory: str) -> list[str]:
    """The fingerprints of who signed, primary keys as well as subkeys."""
    _, status, output = _run(
        "gpgv", "--homedir", directory, "--status-fd", "1", "--weak-digest", "SHA1",
        "--keyring", os.path.join(directory, "keys"),
        os.path.join(directory, "signature"), os.path.join(directory, "text"),
    )  # fmt: skip
    good = False
    signers: list[str] = []
    for line in status.splitlines():
        words = line.split()
        match words[1] if len(words) > 1 else "":
            case "NEWSIG":
                good = False
            case "GOODSIG":
                good = True
            case "BADSIG":
                raise AccessDenied(
                    f"its signature is wrong: made by {' '.join(words[3:])}, but not of this text"
                )
            # An expired key has its VALIDSIG too, but no GOODSIG.
            case "VALIDSIG" if good:
                signers += [words[2], words[-1]]
    if not signers:
        raise AccessDenied(f"no key in the keyring made a good signature of it: {_reason(output)}")
    return signers


def _sqv(directory: str) -> list[str]:
    code, output, errors = _run(
        "sqv", "--keyring", os.path.join(directory, "keys"),
        os.path.join(directory, "signature"), os.path.join(directory, "text"),
    )  # fmt: skip
    if code:
        raise AccessDenied(f"no key in the keyring made a good signature of it: {_reason(errors)}")
    return output.split()


def _pysequoia(content: bytes, text: bytes, keys: bytes) -> list[str]:
    try:
        import pysequoia
    except ImportError:
        raise Unsupported(
            "nothing here can check its signature",
            hint="install gpgv or sqv, or `pip install pysequoia`; "
            "--no-check-signature does without",
        ) from None
    try:
        certificates = pysequoia.Cert.split_bytes(keys)
        result = pysequoia.verify(content, store=lambda _: certificates)
    except Exception as error:  # whatever the library underneath says
        raise AccessDenied(f"no key in the keyring made a good signature of it: {error}") from error
    if result.bytes != text:
        raise AccessDenied("what was signed is not what the file shows")
    return [
        fingerprint.upper()
        for valid in result.valid_sigs
        for fingerprint in (valid.certificate, valid.signing_key)
    ]


def _reason(output: str) -> str:
    lines = [line.strip().removeprefix("gpgv: ") for line in output.splitlines() if line.strip()]
    return "; ".join(lines[-2:]) or "it gave no reason"
