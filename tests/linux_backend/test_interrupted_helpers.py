"""An interrupt at the worst moment leaves no helper waiting, with the locks that it was given."""

from __future__ import annotations

import os
import signal

import pytest

from wherry_linux import userns
from wherry_linux.constants import CLONE_NEWNS, CLONE_NEWUSER
from wherry_linux.idmap import rootless_maps

pytestmark = pytest.mark.linux


def test_an_interrupt_right_after_the_fork_ends_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    fork = os.fork
    before = set(os.listdir("/proc/self/fd"))
    children = []

    def interrupted() -> int:
        child = fork()
        if child:
            children.append(child)
            signal.raise_signal(signal.SIGINT)
        return child

    monkeypatch.setattr(os, "fork", interrupted)
    uid, gid = os.geteuid(), os.getegid()
    flags, maps = CLONE_NEWNS | CLONE_NEWUSER, rootless_maps(uid, gid)
    with pytest.raises(KeyboardInterrupt):
        userns.in_child(lambda: None, flags, maps)

    with pytest.raises(ChildProcessError):
        os.waitpid(children[0], os.WNOHANG)
    assert set(os.listdir("/proc/self/fd")) == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
