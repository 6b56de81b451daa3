"""The keys of a machine: ours, which its sshd lets in, and the guest's, which we expect.

Both are made here and given to the guest when it boots, so that there is no first
connection to trust. ed25519, in OpenSSH's private key format.
"""

from __future__ import annotations

import os

from wherry.files import write_atomic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry_vm.machines import Machine


def ensure_keys(machine: Machine) -> None:
    """Make the keys that are not there yet."""
    for name in ("key", "host_key"):
        path = machine.file(name)
        if os.path.exists(path) and os.path.exists(f"{path}.pub"):
            continue
        private, public = _new_key()
        write_atomic(f"{path}.pub", public + f" wherry-{machine.name}\n".encode())
        write_atomic(path, private)


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
