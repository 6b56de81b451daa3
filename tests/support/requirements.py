"""Whether this machine can run a marked test, and if not why.

Each function returns None where it can, and otherwise the reason that pytest prints
for the skip: what is missing and, where one line mends it, that line.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

MARKS = ("linux", "rootless", "single_uid", "network", "vm")


def cannot_run(mark: str, *, rootless: bool) -> str | None:
    """Why a test with `mark` cannot run here; `rootless`: it runs as another user than root."""
    if mark == "linux":
        return _linux() or (None if rootless else _root())
    checks: dict[str, Callable[[], str | None]] = {
        "rootless": _rootless,
        "single_uid": _single_uid,
        "network": _network,
        "vm": _vm,
    }
    return checks[mark]()


def required_marks() -> set[str]:
    """The marks whose tests must run: a skip of them is a failure."""
    return {mark for mark in os.environ.get("WHERRY_TEST_REQUIRE", "").split(",") if mark}


def need_tool(name: str) -> str:
    """The path of a program, or skip this test; where those of Linux must run, fail it."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        reason = f"needs {name}, which is not installed (see packages.txt)"
        if "linux" in required_marks():
            pytest.fail(f"{reason} (and WHERRY_TEST_REQUIRE asks for linux)", pytrace=False)
        pytest.skip(reason)
    return path


def _linux() -> str | None:
    return None if sys.platform == "linux" else f"needs a Linux kernel, this is {sys.platform}"


@functools.cache
def _root() -> str | None:
    if sys.platform == "win32" or os.geteuid() != 0:
        return "needs root: run make test as root, or with a sudo that asks for no password"
    return _failure(
        ["unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--fork", "true"],
        "needs the right to make namespaces",
    )


@functools.cache
def _rootless() -> str | None:
    if reason := _linux():
        return reason
    if sys.platform != "win32" and os.geteuid() == 0:
        if shutil.which("useradd") is None:
            return "needs useradd to make the user it runs as"
        from support.accounts import rootless_account

        return _failure(
            ["unshare", "--user", "--map-root-user", "true"],
            "needs user namespaces for unprivileged users",
            user=rootless_account().uid,
        )
    return _failure(
        ["unshare", "--user", "--map-root-user", "true"],
        "needs user namespaces for unprivileged users",
    )


def _single_uid() -> str | None:
    if sys.platform != "win32" and os.geteuid() != 0:
        return "needs root to make the user it runs as: one without subordinate ids"
    return _rootless()


@functools.cache
def _network() -> str | None:
    import urllib.error
    import urllib.request

    mirror = os.environ.get("WHERRY_DEBIAN_MIRROR")
    if mirror:
        url = f"{mirror.rstrip('/')}/dists/bookworm/InRelease"
    elif shutil.which("apt-get"):
        targets = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(REPO_URI)dists/$(RELEASE)/InRelease"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.split()
        if not targets:
            return "needs a package mirror: apt names none, and WHERRY_DEBIAN_MIRROR is not set"
        url = targets[0]
    else:
        return "needs a package mirror: WHERRY_DEBIAN_MIRROR is not set"
    try:
        with urllib.request.urlopen(url, timeout=20):
            return None
    except (OSError, ValueError) as error:
        return f"needs a package mirror: {error}"


@functools.cache
def _vm() -> str | None:
    if not any(shutil.which(f"qemu-system-{arch}") for arch in ("x86_64", "aarch64")):
        return "needs QEMU (qemu-system-x86_64 or qemu-system-aarch64)"
    return None


def _failure(argv: list[str], need: str, user: int | None = None) -> str | None:
    """None if `argv` succeeds (as `user`), else `need` with what it said."""
    try:
        result = subprocess.run(
            argv, capture_output=True, text=True, user=user, cwd="/", check=False
        )
    except OSError as error:
        return f"{need}: {error}"
    return f"{need}: {result.stderr.strip()}" if result.returncode else None
