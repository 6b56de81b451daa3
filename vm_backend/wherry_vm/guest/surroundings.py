"""What the guest makes of its host's surroundings: see wherry_vm.surroundings.

The host says {"op": "surroundings", …} with

    resolv.conf   the file
    names         a port of the host where questions for names are answered
    environment   variables that name proxies, for commands that bring none
    authorities   certificates in PEM, which are trusted beside Debian's
"""

from __future__ import annotations

import os

from wherry.files import write_atomic
from wherry_vm.guest.rules import lead_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_ENVIRONMENT = "/etc/environment"
_TRUSTED = "/etc/ssl/certs/ca-certificates.crt"
_DEBIANS = "/usr/share/ca-certificates.crt"
_BEGIN = "-----BEGIN CERTIFICATE-----"


def adopt(message: Mapping[str, Any]) -> None:
    """Go by what the host says; commands that begin now do."""
    _write("/etc/resolv.conf", message["resolv.conf"])
    variables = message["environment"]
    _write(_ENVIRONMENT, "".join(f"{name}={text}\n" for name, text in variables.items()))
    _trust(message["authorities"])
    lead_names(int(message["names"]))


def with_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """A command's environment, with the proxies of the host's settings if it brings none."""
    if any(name.lower().endswith("_proxy") for name in environment):
        return dict(environment)
    try:
        with open(_ENVIRONMENT, encoding="utf-8") as file:
            found = (line.rstrip("\n").partition("=") for line in file)
            return {**{name: text for name, _, text in found}, **environment}
    except FileNotFoundError:
        return dict(environment)


def _trust(authorities: str) -> None:
    if not authorities and os.path.islink(_TRUSTED):
        return  # Debian's are all there are
    with open(_DEBIANS, encoding="ascii") as file:
        debians = file.read()
    known = set(debians.split(_BEGIN))
    more = [each for each in authorities.split(_BEGIN)[1:] if each not in known]
    _write(_TRUSTED, debians + "".join(_BEGIN + each for each in more))


def _write(path: str, text: str) -> None:
    """Replace a file, unless it says so already."""
    try:
        with open(path, encoding="utf-8") as file:
            if file.read() == text:
                return
    except FileNotFoundError:
        pass
    write_atomic(path, text.encode(), mode=0o644)
