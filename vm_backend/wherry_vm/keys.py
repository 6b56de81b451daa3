"""The keys of a machine: ours, which its sshd lets in, and the guest's, which we expect.

Both are made here and given to the guest when it boots, so that there is no first
connection to trust. ed25519, in OpenSSH's private key format.
"""

from __future__ import annotations

import os
from binascii import a2b_base64

from wherry.errors import CorruptState
from wherry.files import read_file, write_atomic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry_vm.machines import Machine


_BEGIN = b"-----BEGIN OPENSSH PRIVATE KEY-----\n"
_END = b"-----END OPENSSH PRIVATE KEY-----\n"


def ensure_keys(machine: Machine) -> None:
    """Make the keys that are not there, or damaged: the guest is told them at each start."""
    for name in ("key", "host_key"):
        path = machine.file(name)
        if _are_whole(path):
            os.chmod(path, 0o600)
            continue
        private, public = _new_key()
        write_atomic(f"{path}.pub", public + f" wherry-{machine.name}\n".encode())
        write_atomic(path, private)


def _are_whole(path: str) -> bool:
    """Whether there is a private key at `path`, and its public one beside it.

    The private one holds the public one, first by itself (OpenSSH's PROTOCOL.key).
    """
    try:
        private, public = read_file(path), read_file(f"{path}.pub")
        body = private.removeprefix(_BEGIN).removesuffix(_END)
        if len(body) != len(private) - len(_BEGIN) - len(_END):
            return False
        return a2b_base64(public.split()[1]) in a2b_base64(body)
    except (OSError, CorruptState, ValueError, IndexError):
        return False


def _new_key() -> tuple[bytes, bytes]:
    """A private key and its public one."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    key = Ed25519PrivateKey.generate()
    return (
        key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
        key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
    )
