"""What a process does that waits to become a command: once, what most commands do.

It is a fork, whose pages are its parent's until it writes to them, and to run Python is to
write to some hundreds. To copy those takes an emulated guest longer than `wherry ps` takes
after that. Where a command comes at once nobody waits for a rehearsal.
"""

from __future__ import annotations

import os
import select
import sys

from wherry_vm.protocol import ORIGINS

_MANNERS = 50
"""Milliseconds for a command to come that is on its way."""


def rehearse_unless(descriptor: int) -> None:
    """Rehearse, where for a while nothing comes at `descriptor`."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(_MANNERS):
        _rehearse()


def _rehearse() -> None:
    """List the containers of a world that has none, to nobody."""
    from wherry.cli.main import main

    place = os.path.join(os.environ.get("WHERRY_ORIGINS") or ORIGINS, "rehearsal")
    before = {name: os.environ.get(name) for name in ("WHERRY_BACKEND", "WHERRY_ROOT")}
    streams = sys.stdout, sys.stderr
    try:
        os.environ.update(WHERRY_BACKEND="linux", WHERRY_ROOT=place)
        with open(os.devnull, "w") as nothing:
            sys.stdout = sys.stderr = nothing
            main(["ps"])
    except (Exception, SystemExit):
        pass  # the command, if one comes, tells what is wrong
    finally:
        sys.stdout, sys.stderr = streams
        for name, text in before.items():
            if text is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = text
