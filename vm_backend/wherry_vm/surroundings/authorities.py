"""The certificate authorities that this host trusts beyond those that everybody does.

Linux's distributions keep what an administrator adds in a directory; macOS has keychains
and Windows a store, of which all are taken. `wherry machine set --ca` names others.
"""

from __future__ import annotations

import contextlib
import os
import ssl  # noqa: TID253 - the supervisor's, for which paramiko has loaded more
import subprocess
import sys
import tempfile

from wherry.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Debian's, Fedora's, Arch Linux's, openSUSE's.
DIRECTORIES = (
    "/usr/local/share/ca-certificates",
    "/etc/pki/ca-trust/source/anchors",
    "/etc/ca-certificates/trust-source/anchors",
    "/etc/pki/trust/anchors",
)
_KEYCHAINS = ("/Library/Keychains/System.keychain", "~/Library/Keychains/login.keychain-db")
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_PATIENCE = 20


class Authorities:
    """What the host trusts, read again when it has changed."""

    def __init__(self) -> None:
        self._state: object = None
        self._text = ""

    def read(self, files: Iterable[str]) -> str:
        """The host's and those in `files`, in PEM; what cannot be read is left out."""
        if sys.platform == "win32":
            return as_pem([*_of_windows(), *_of_files(files)])
        # What costs a program's start is asked again only when a file has changed.
        keepers = _keychains() if sys.platform == "darwin" else files_below(DIRECTORIES)
        state = [(path, _changed(path)) for path in (*files, *keepers)]
        if state != self._state:
            found = _of_keychains() if sys.platform == "darwin" else _of_files(keepers)
            self._state, self._text = state, as_pem([*found, *_of_files(files)])
        return self._text


def check(path: str) -> str:
    """The absolute path of a file with certificates in PEM. Raises UsageError."""
    absolute = os.path.abspath(os.path.expanduser(path))
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=absolute)
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}") from None
    except (ssl.SSLError, OSError) as error:
        raise UsageError(f"{path} holds no certificate in PEM: {error}") from error
    return absolute


def as_pem(certificates: Iterable[str]) -> str:
    """Each certificate once."""
    return "".join(dict.fromkeys(each.strip() + "\n" for each in certificates))


def certificates_in(content: bytes) -> list[str]:
    """The certificates of a file, in PEM or DER; nothing of what is none."""
    if _BEGIN.encode() not in content:
        content = ssl.DER_cert_to_PEM_cert(content).encode()
    parts = content.decode("ascii", "replace").split(_BEGIN)[1:]
    found = [f"{_BEGIN}{part.partition(_END)[0]}{_END}" for part in parts]
    # One that is damaged would keep the guest from all that follow it.
    return found if _is_whole("\n".join(found)) else list(filter(_is_whole, found))


def _is_whole(certificates: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificates)
    except (ValueError, ssl.SSLError):
        return False
    return True


def _of_files(paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        with contextlib.suppress(OSError), open(path, "rb") as file:
            yield from certificates_in(file.read())


def files_below(directories: Iterable[str]) -> list[str]:
    return sorted(
        os.path.join(directory, name)
        for top in directories
        for directory, _, names in os.walk(top)
        for name in names
        if name.endswith((".crt", ".pem", ".cer"))
    )


def _changed(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _keychains() -> list[str]:
    return [os.path.expanduser(each) for each in _KEYCHAINS]


def _of_keychains() -> Iterator[str]:
    """What macOS's keychains hold and macOS trusts."""
    for keychain in _keychains():
        found = _security("find-certificate", "-a", "-p", keychain)
        yield from filter(_is_trusted, certificates_in(found or b""))


def _is_trusted(certificate: str) -> bool:
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(certificate)
        file.flush()
        return _security("verify-cert", "-l", "-L", "-q", "-c", file.name) is not None


def _security(*words: str) -> bytes | None:
    """What macOS's security(1) says; None where it fails."""
    try:
        result = subprocess.run(
            ["/usr/bin/security", *words], capture_output=True, check=False, timeout=_PATIENCE
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if result.returncode else result.stdout


def _of_windows() -> Iterator[str]:
    """The stores of Windows, for what servers are verified with."""
    if sys.platform != "win32":
        return
    servers = ssl.Purpose.SERVER_AUTH.oid
    for store in ("ROOT", "CA"):
        for content, encoding, trust in ssl.enum_certificates(store):
            for_servers = trust if isinstance(trust, bool) else servers in trust
            if encoding == "x509_asn" and for_servers:
                yield from certificates_in(content)
