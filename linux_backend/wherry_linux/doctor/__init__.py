"""What works here and what does not, with the line that mends it (`wherry doctor`).

Every check tries the thing itself where it can; a kernel's version says little about
a kernel that others have configured, patched or fenced in. A verdict is what `wherry
run` then finds.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from wherry import paths
from wherry.errors import WherryError
from wherry_linux.doctor import files, forwarding, idmapped, kernel, network, users
from wherry_linux.doctor.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def findings() -> list[Finding]:
    """All checks, for the user who asks."""
    rootless = os.geteuid() != 0
    checks: list[Callable[[], Iterator[Finding]]] = [
        kernel.namespaces,
        users.user_namespaces,
        *([users.subordinate_ids] if rootless else []),
        files.data_directory,
        *([files.overlay, idmapped.idmapped_mounts] if files.is_usable(paths.data()) else []),
        files.runtime_directory,
        kernel.control_groups,
        kernel.seccomp,
        kernel.mounts,
        network.network,
        *([network.own_networks] if rootless else [forwarding.forwarding]),
        *([network.low_ports, network.ping, users.groups, files.linger] if rootless else []),
    ]
    found: list[Finding] = []
    for check in checks:
        try:
            found += check()
        except (OSError, WherryError) as error:
            subject = check.__name__.replace("_", " ")
            found.append(Finding(subject=subject, verdict="missing", text=str(error)))
    return found


def as_json(found: list[Finding]) -> list[dict[str, Any]]:
    """The findings for programs."""
    return [
        {
            "Subject": finding.subject,
            "Verdict": finding.verdict,
            "Text": finding.text,
            "Mend": finding.mend,
            "Who": finding.who,
            "Meanwhile": finding.meanwhile,
        }
        for finding in found
    ]
