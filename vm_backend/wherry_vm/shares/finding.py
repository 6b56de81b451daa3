"""Where the guest finds a command's paths: what commands need of shares, and nothing more."""

from __future__ import annotations

import os

from wherry.errors import CorruptState, MachineError, UsageError
from wherry.files import read_json
from wherry_vm.machines import Share
from wherry_vm.shares.places import place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wherry_vm.machines import Machine


def record(machine: Machine) -> str:
    """The file that says what a running machine shares."""
    return os.path.join(machine.run_directory, "shares.json")


def in_force(machine: Machine) -> tuple[Share, ...]:
    """The shares of the machine as it runs, or as it would start."""
    try:
        rows = read_json(record(machine), [list])
    except FileNotFoundError:
        return machine.shares()
    except CorruptState as error:
        error.hint = f"wherry machine restart {machine.name}"
        raise
    return tuple(Share(source=each[0], target=each[1], readonly=each[2]) for each in rows)


def check_shares(machine: Machine) -> None:
    """Raises MachineError for a share of the next start that is no directory."""
    for share in machine.shares():
        if not os.path.isdir(share.source):
            raise MachineError(
                f"cannot share {share.source}: no such directory",
                hint=f"wherry machine set --share DIR {machine.name}",
            )


def finder(machine: Machine) -> Callable[[str], str]:
    """A function from a path of this host to the guest's. It raises UsageError."""
    shares = in_force(machine)

    def find(path: str) -> str:
        # Links are followed here: the guest would follow them to files of its own.
        found = place(os.path.realpath(path), shares)
        if found is None:
            raise UsageError(
                f"{path} is in no directory that machine {machine.name} shares",
                hint=_hint(machine, path, shares),
            )
        return found

    return find


def _hint(machine: Machine, path: str, shares: tuple[Share, ...]) -> str:
    directory = path if os.path.isdir(path) else os.path.dirname(path)
    words = [f"--share {each.source}{':ro' if each.readonly else ''}" for each in shares]
    return (
        f"wherry machine set {' '.join((*words, f'--share {directory}'))} {machine.name}, "
        f"then wherry machine restart {machine.name}"
    )
