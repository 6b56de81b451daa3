"""A host of the test's own: a network namespace with a neighbour, apart from this machine's.

neighbour 10.200.0.2 ─── 10.200.0.1 host: wherry's bridges, rules and ports

Everybody may open /dev/net/tun there, as on most hosts.
"""

from __future__ import annotations

import os
import stat
import subprocess
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.accounts import Account
    from support.cli import Cli

HOST = "10.200.0.1"
NEIGHBOUR = "10.200.0.2"
_STAY = "echo ready; exec sleep infinity"
# In a mount namespace of one's own.
OPEN_TUN = "mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200"


class PrivateHost:
    """Two network namespaces that are connected; they go when it is closed."""

    def __init__(self) -> None:
        if os.geteuid() != 0:
            pytest.skip("needs root to make a host of its own")
        self._host, self._neighbour = (_namespace("--net", "--mount") for _ in range(2))
        pair = ["ip", "link", "add", "outside", "type", "veth", "peer", "name", "inside"]
        self.run(*pair, "netns", str(self._neighbour.pid))
        for name in ("lo", "outside"):
            self.run("ip", "link", "set", name, "up")
        self.run("ip", "address", "add", f"{HOST}/24", "dev", "outside")
        self.run("ip", "route", "add", "default", "via", NEIGHBOUR)
        for name in ("lo", "inside"):
            self.run_outside("ip", "link", "set", name, "up")
        self.run_outside("ip", "address", "add", f"{NEIGHBOUR}/24", "dev", "inside")

    @property
    def enter(self) -> list[str]:
        """What a command line starts with whose program is to run on the host."""
        return _enter(self._host.pid)

    def enter_as(self, account: Account) -> list[str]:
        """The same for a program of an account's."""
        return _prefix(account, self._host.pid, "--net", "--mount", "--wdns=/")

    def close(self) -> None:
        for process in (self._host, self._neighbour):
            process.kill()
            process.wait()

    def adopt(self, wherry: Cli) -> None:
        """Have the command run on this host."""
        adopt(wherry, self._host.pid, "--net", "--mount")

    def run(self, *argv: str, check: bool = True) -> str:
        """What a program on the host prints."""
        return _run([*self.enter, *argv], check=check)

    def run_outside(self, *argv: str, check: bool = True) -> str:
        """What a program at the neighbour's prints."""
        return _run([*_enter(self._neighbour.pid), *argv], check=check)

    def start_outside(self, *argv: str) -> subprocess.Popen[bytes]:
        return _start([*_enter(self._neighbour.pid), *argv])

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        return _start([*self.enter, *argv])

    def links(self) -> set[str]:
        """The names of the host's interfaces."""
        lines = self.run("ip", "-brief", "link").splitlines()
        return {line.split()[0].partition("@")[0] for line in lines}


def adopt(wherry: Cli, pid: int, *namespaces: str) -> None:
    """Have the command run in namespaces of process `pid`."""
    account = wherry.account
    prefix = _prefix(account, pid, *namespaces, f"--wdns={wherry.directory}")
    wherry.account = replace(
        account, uid=os.geteuid(), gid=os.getegid(), command=(*prefix, *account.command)
    )


def _prefix(account: Account, pid: int, *options: str) -> list[str]:
    """What root starts a command line with that is an account's, in namespaces of `pid`."""
    prefix = ["nsenter", "--target", str(pid), *options, "--"]
    if account.is_root:
        return prefix
    prefix += ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}"]
    return [*prefix, "--clear-groups", "--"]


@contextmanager
def private_host(wherry: Cli) -> Iterator[PrivateHost]:
    """Have the command run on a host of its own meanwhile; nothing may be left there."""
    host = PrivateHost()
    account = wherry.account
    host.adopt(wherry)
    yield host
    for name in wherry("ps", "--all", "--quiet").lines:
        wherry("rm", "--force", name)
    wherry("system", "reset", "--force")
    left = {name for name in host.links() if name.startswith("wherry")}
    host.close()
    wherry.account = account
    assert not left


@contextmanager
def open_tun(wherry: Cli) -> Iterator[None]:
    """Let the command's user open /dev/net/tun, as on most hosts; this one is left alone."""
    if wherry.account.is_root or os.stat("/dev/net/tun").st_mode & stat.S_IWOTH:
        yield
        return
    if os.geteuid() != 0:
        pytest.skip("this host lets only root open /dev/net/tun")
    account = wherry.account
    with user_who_opens_tun(account, wherry.directory) as prefix:
        command = (*prefix, *account.command)
        wherry.account = replace(account, uid=os.geteuid(), gid=os.getegid(), command=command)
        yield
        wherry.account = account


@contextmanager
def user_who_opens_tun(account: Account, directory: str) -> Iterator[list[str]]:
    """What root starts command lines of an account with that may open /dev/net/tun."""
    process = _namespace("--mount")
    try:
        yield _prefix(account, process.pid, "--mount", f"--wdns={directory}")
    finally:
        process.kill()
        process.wait()


def _namespace(*kinds: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        ["unshare", *kinds, "sh", "-ec", f"{OPEN_TUN}; {_STAY}"],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    return process


def _enter(pid: int) -> list[str]:
    return ["nsenter", "--target", str(pid), "--net", "--mount", "--"]


def _start(argv: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _run(argv: list[str], *, check: bool) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(argv)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
