"""`wherry machine`: the virtual machine that containers run in where this is no Linux.

These are about the host, and are carried out here: `wherry_vm.verbs` does the work.
"""

# ruff: noqa: A002 - an option's name is its parameter's

from __future__ import annotations

import sys

from wherry.backend import load_machines
from wherry.cli import common
from wherry.cli.grammar import argument, command, option
from wherry.errors import UsageError
from wherry.words import read_bytes, read_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DEFAULT = "default"
_MIB, _GIB = 1 << 20, 1 << 30
_LEAST_MEMORY = 256


def _memory(text: str) -> int:
    """Memory in MiB; a number without a unit is of MiB."""
    size = int(text) if text.isdigit() else read_bytes(text) // _MIB
    if size < _LEAST_MEMORY:
        raise ValueError(f"a machine needs {_LEAST_MEMORY} MiB of memory at least")
    return size


def _disk(text: str) -> int:
    """A disk in GiB; a number without a unit is of GiB."""
    size = int(text) if text.isdigit() else read_bytes(text) // _GIB
    if not 1 <= size <= 16384:
        raise ValueError("a machine's disk has from 1 to 16384 GiB")
    return size


def _cpus(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 256:
        raise ValueError("a machine has from 1 to 256 processors")
    return int(text)


def _idle(text: str) -> int:
    """Seconds; "never" is none of them."""
    return 0 if text == "never" else read_duration(text) // 1_000_000_000


# fmt: off
_SETTINGS = (
    option("--cpus", convert=_cpus, default=None, metavar="int",
           help="Number of processors (default 2)"),
    option("-m", "--memory", convert=_memory, default=None, metavar="bytes",
           help="Memory (default 2g)"),
    option("--disk", convert=_disk, default=None, metavar="bytes",
           help="Size that the disk can grow to (default 64g)"),
    option("--idle", convert=_idle, write="{}s".format, default=None, metavar="duration",
           help="Stop after so long without a container or a command (default 10m; never)"),
    option("--share", multiple=True, metavar="list",
           help="Directory that the machine sees, DIR or DIR:ro (default: your home)"),
    option("--image", metavar="file",
           help="A guest image: a wheel or a directory (default: what is installed)"),
    option("--ca", multiple=True, metavar="file",
           help="Certificates in PEM that the machine trusts beside those that this host does"),
)
# fmt: on

_NAME = argument("machine", required=False)


@command(
    *_SETTINGS,
    _NAME,
    name="machine init",
    examples="""\
  $ wherry machine init --cpus 4 --memory 4g           the default machine
  $ wherry machine init --share ~/src:ro builder       a second one (env WHERRY_MACHINE)
""",
)  # fmt: skip
def init(machine: str, **values: Any) -> int:
    """Make a virtual machine, which the first command that needs it starts"""
    print(load_machines().init(machine or _DEFAULT, values))
    return 0


@command(*_SETTINGS, _NAME, name="machine set")
def set_(machine: str, **values: Any) -> int:
    """Change what a machine is, from its next start on"""
    if all(each in (None, "", ()) for each in values.values()):
        raise UsageError("nothing to set: name at least one option")
    load_machines().change(machine or _DEFAULT, values)
    return 0


@command(_NAME, name="machine start")
def start(machine: str) -> int:
    """Start a machine, and return when it is up"""
    load_machines().start(machine or _DEFAULT)
    return 0


@command(
    option("-f", "--force", type=bool, help="End the machine at once, as if its power failed"),
    _NAME,
    name="machine stop",
)
def stop(machine: str, force: bool) -> int:
    """Stop a machine, and the containers in it"""
    load_machines().stop(machine or _DEFAULT, force=force)
    return 0


@command(_NAME, name="machine restart")
def restart(machine: str) -> int:
    """Stop a machine and start it again"""
    load_machines().restart(machine or _DEFAULT)
    return 0


@command(
    option("-f", "--force", type=bool, help="Do not ask, and stop it first if it runs"),
    argument("machine", nargs=-1),
    name="machine rm",
)
def rm(machine: tuple[str, ...], force: bool) -> int:
    """Remove machines, with the images, containers and volumes in them"""
    from wherry.cli.each import for_each
    from wherry.cli.prune import confirm

    machines = load_machines()
    # Where nothing can be removed there is nothing to be sure of.
    confirm(
        "WARNING! This will remove the images, containers and volumes in the machine.",
        "machine rm",
        force or not any(map(machines.is_there, machine)),
    )
    return for_each(machine, lambda name: machines.remove(name, force=force))


@command(
    common.FORMAT,
    option("-q", "--quiet", type=bool, help="Only display names"),
    name="machine ls",
)
def ls(format: str, quiet: bool) -> int:
    """List machines; commands go to the one with an asterisk"""
    from wherry.cli.tables import Table, print_rows
    from wherry.human import binary_size

    table = Table(
        columns=("Name", "State", "Accelerator", "CPUs", "Memory", "Disk", "DiskUsed"),
        titles={"CPUs": "CPUS", "DiskUsed": "DISK USED"},
        quiet="Name",
    )
    marks = not (format or quiet)
    rows = [
        {
            **each,
            "Name": f"{each['Name']} *" if marks and each["Current"] else each["Name"],
            "Memory": binary_size(each["Memory"]),
            "Disk": binary_size(each["Disk"]),
            "DiskUsed": binary_size(each["DiskUsed"]),
        }
        for each in load_machines().list_all()
    ]
    print_rows(rows, table, template=format, quiet=quiet)
    return 0


@command(
    common.DOCUMENT_FORMAT,
    argument("machine", nargs=-1, required=False),
    name="machine inspect",
)
def inspect(machine: tuple[str, ...], format: str) -> int:
    """Display detailed information on machines"""
    from wherry.cli.inspect import print_found

    return print_found(machine or (_DEFAULT,), load_machines().inspect, format)


@command(
    argument("machine", required=False),
    argument("command", nargs=-1, required=False),
    interspersed=False,
    usage="[MACHINE] [COMMAND] [ARG...]",
    name="machine ssh",
    examples="""\
  $ wherry machine ssh                                 a shell in the default machine
  $ wherry machine ssh default dmesg
""",
)
def ssh(machine: str, command: tuple[str, ...]) -> int:
    """Run a shell, or a command, in a machine"""
    return int(load_machines().shell(machine or _DEFAULT, command))


@command(_NAME, name="machine logs")
def logs(machine: str) -> int:
    """Show what QEMU and the machine's supervisor have said"""
    sys.stdout.write(load_machines().logs(machine or _DEFAULT))
    return 0


@command(_NAME, name="machine console")
def console(machine: str) -> int:
    """Show what the machine's kernel has said since it started"""
    sys.stdout.write(load_machines().console(machine or _DEFAULT))
    return 0


@command(common.FORMAT, _NAME, name="machine bench")
def bench(machine: str, format: str) -> int:
    """Measure how fast a machine's files, ports and commands are"""
    from wherry.cli.tables import Table, print_rows

    columns = ("Measure", "Where", "Value", "Unit")
    print_rows(load_machines().bench(machine or _DEFAULT), Table(columns=columns), template=format)
    return 0
