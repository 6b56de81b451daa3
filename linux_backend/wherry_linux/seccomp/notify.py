"""Decisions left to another program (SCMP_ACT_NOTIFY): handing it the listener's descriptor."""

from __future__ import annotations

import os

from wherry.errors import UsageError, WherryError
from wherry.lean import dump_json, load_json, sockets
from wherry.oci import OCI_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.oci.runtime_spec import ContainerProcessState, LinuxSeccomp

_NOTIFY = "SCMP_ACT_NOTIFY"
# What the process itself calls between the filter and the moment the listener has it.
_NEEDED = ("sendmsg", "close")


def check_notify(seccomp: LinuxSeccomp) -> None:
    """Raise UsageError for a profile that would wait for itself."""
    if seccomp["defaultAction"] == _NOTIFY:
        raise UsageError("seccomp: SCMP_ACT_NOTIFY cannot be the default action")
    for rule in seccomp.get("syscalls") or ():
        if rule["action"] == _NOTIFY:
            for name in _NEEDED:
                if name in rule["names"]:
                    raise UsageError(
                        f"seccomp: SCMP_ACT_NOTIFY cannot be used for {name}: "
                        "the listener is made known by it"
                    )


def connect(path: str) -> sockets.socket:
    """A connection to `listenerPath`."""
    connection = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM | sockets.SOCK_CLOEXEC)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise WherryError(
            f"cannot reach the seccomp listener at {path}: {error.strerror}"
        ) from error
    return connection


def send_listener(descriptor: int, listener: sockets.socket, state: str, metadata: str) -> None:
    """Send the notifications' descriptor with a ContainerProcessState; both are closed."""
    message: ContainerProcessState = {
        "ociVersion": OCI_VERSION,
        "fds": ["seccompFd"],
        "pid": os.getpid(),
        "metadata": metadata,
        "state": load_json(state),
    }
    # In a PID namespace of its own the process calls itself 1.
    if outside := message["state"].get("pid"):
        message["pid"] = outside
    rights = descriptor.to_bytes(4, "little")
    try:
        listener.sendmsg(
            [dump_json(message).encode()], [(sockets.SOL_SOCKET, sockets.SCM_RIGHTS, rights)]
        )
    except OSError as error:
        raise WherryError(
            f"cannot hand the seccomp notifications over: {error.strerror}"
        ) from error
    finally:
        listener.close()
        os.close(descriptor)
