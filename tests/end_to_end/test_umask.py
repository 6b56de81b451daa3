"""A strict umask of whoever calls wherry is not the container's."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from support.busybox import busybox_archive
from support.settings import as_root, as_rootless

if TYPE_CHECKING:
    from support.cli import Cli


def strictly(wherry: Cli, *argv: str, content: bytes = b"") -> str:
    process = wherry.spawn(
        ["sh", "-c", 'umask 077; exec "$@"', "sh", *wherry.account.command, *argv],
        stdin=subprocess.PIPE,
    )
    output, errors = process.communicate(content, timeout=60)
    assert process.returncode == 0, errors.decode()
    return output.decode()


def a_user_reads_the_image_and_writes_where_he_may(wherry: Cli) -> None:
    strictly(wherry, "load", content=busybox_archive())
    script = "umask; cat /etc/passwd >/dev/null; echo x >/tmp/file; echo y >/dev/shm/file; hostname"

    said = strictly(
        wherry, "run", "--rm", "--network", "none", "--hostname", "box", "-u", "1000",
        "-v", "fresh:/fresh", "busybox", "sh", "-c", script + "; ls -d /fresh; cat /etc/hosts",
    )  # fmt: skip

    assert said.splitlines()[:3] == ["0022", "box", "/fresh"]


@as_root
def test_roots_umask_stays_outside(wherry: Cli) -> None:
    a_user_reads_the_image_and_writes_where_he_may(wherry)


@as_rootless
def test_a_users_umask_stays_outside(wherry: Cli) -> None:
    a_user_reads_the_image_and_writes_where_he_may(wherry)
