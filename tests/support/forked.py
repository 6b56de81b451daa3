"""A function of ours, called as another user: in a fork, without the command line."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.accounts import Account


def call_as(account: Account, function: Callable[[], Any]) -> Any:
    """The result of `function()` as `account`; it crosses as JSON, a WherryError as itself."""
    if sys.platform != "linux":
        raise NotImplementedError
    if account.uid == os.geteuid():
        return function()
    from wherry.forked import Child

    with Child(lambda: _become(account, function)) as child:
        return child.result()


def _become(account: Account, function: Callable[[], Any]) -> Any:
    from wherry_linux.constants import PR_SET_DUMPABLE
    from wherry_linux.syscalls import prctl

    os.setgroups([])
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)
    # A change of ids takes /proc/self from us, and the maps of namespaces with it.
    prctl(PR_SET_DUMPABLE, 1)
    return function()
