"""What a check of `wherry doctor` found, and what several checks need to word it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Verdict = Literal["ok", "limited", "missing"]

_INSTALL = {
    "apt-get": "sudo apt-get install",
    "dnf": "sudo dnf install",
    "zypper": "sudo zypper install",
    "pacman": "sudo pacman -S",
    "apk": "sudo apk add",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The outcome of one check."""

    subject: str
    # "missing" is what no container can do without.
    verdict: Verdict
    # What works, or what does not and why.
    text: str
    # A line to type, or "" where none helps.
    mend: str = ""
    # Who can carry it out: whoever asks, or the machine's administrator.
    who: Literal["", "you", "administrator"] = ""
    # What works as long as nobody has.
    meanwhile: str = ""


def read(path: str) -> str:
    """The text of a small file; "" where there is none."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def user_name() -> str:
    """Who asks: by the user database, since USER may be another's after su(1)."""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def install(package: str, **elsewhere: str) -> str:
    """The line that installs `package`; `elsewhere` names it for other package managers."""
    from wherry_linux.idmap import find_program

    for manager, line in _INSTALL.items():
        if find_program(manager):
            return f"{line} {elsewhere.get(manager, package)}"
    return f"install the package {package}"


def set_sysctl(name: str, value: str) -> str:
    """The line that sets a kernel parameter, now and at each start of the machine."""
    return (
        f"echo '{name} = {value}' | sudo tee /etc/sysctl.d/99-wherry-{name.rpartition('.')[2]}.conf"
        " && sudo sysctl --system"
    )
