"""The host that a command was typed on, where another wherry carries it out.

A machine's guest is asked for all of a command, but some of what it needs is the host's:
credentials and their helpers, contents of secrets, files such as --cidfile. It asks for
them, one JSON object a connection, at the UNIX socket that WHERRY_ORIGIN names; the
command on the host answers what its own words entitle the guest to, and nothing else.

    {"ask": "credentials", "registry": "ghcr.io", "path": …}   {"username": …, "password": …}
    {"ask": "secret", "name": …}                               {"content": base64}
    {"ask": "file", "path": …, "content": base64}              {}
    {"ask": "files", …}                                        {}, see wherry.builder.offer
    {"ask": "agent", "name": …, "message": base64}             {"message": base64}
    {"ask": "cache", …}                                        see wherry.builder.directories

Where it cannot be done the answer is {"error": …}, see wherry.errors.
"""

from __future__ import annotations

import os

from wherry.errors import MachineError, from_json
from wherry.lean import dump_json, load_json, sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def is_elsewhere() -> bool:
    """Whether this command was typed on another host."""
    return "WHERRY_ORIGIN" in os.environ


def ask(**question: Any) -> dict[str, Any]:
    """The host's answer. Raises what kept it from being given."""
    return ask_at(os.environ["WHERRY_ORIGIN"], question)


def ask_at(path: str, question: Mapping[str, Any], patience: float | None = None) -> dict[str, Any]:
    """The answer to a question at a socket that leads to the host, within `patience` seconds.

    Raises MachineError where none comes, and what is answered in the place of one.
    """
    socket = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM | sockets.SOCK_CLOEXEC)
    try:
        socket.settimeout(patience)
        socket.connect(path)
        socket.sendall(dump_json(question).encode() + b"\n")
        answer = b""
        while data := socket.recv(1 << 16):
            answer += data
    except OSError as error:
        raise MachineError(f"cannot ask the host: {error.strerror or error}") from error
    finally:
        socket.close()
    if not answer:
        raise MachineError("the host has not answered: whoever carries its answers is gone")
    message: dict[str, Any] = load_json(answer)
    if "error" in message:
        raise from_json(message["error"])
    return message


def read_secret(name: str) -> bytes:
    """The content of a secret that the host has."""
    from binascii import a2b_base64

    return a2b_base64(ask(ask="secret", name=name)["content"])


def write_file(path: str, content: bytes) -> None:
    """Write a file that the command's own options name, on the host it was typed on."""
    if not is_elsewhere():
        from wherry.files import write_asked

        write_asked(path, content)
        return
    from binascii import b2a_base64

    ask(ask="file", path=path, content=b2a_base64(content, newline=False).decode())
