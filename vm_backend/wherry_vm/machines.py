"""Machines as they are kept: a record, keys, a data disk.

DATA/machines/NAME/
    machine.json     what `machine init` and `machine set` were told
    key, host_key    ours and the guest's, in OpenSSH's format, 0600
    data.img         images, containers and volumes: a sparse file that is its disk
    data.new         there until the guest has mounted the disk for the first time
    console.log      what the guest's kernel said since it was last started
    supervisor.log   what went wrong
    accelerator.json which one the guest has run under
    start.state, start.json   a start to go on from: see wherry_vm.saved
RUN/machines/NAME/   the supervisor's sockets, gone with it
"""

from __future__ import annotations

import os

from wherry import paths
from wherry.errors import Conflict, CorruptState, NotFound, UsageError
from wherry.files import Lock, claim_directory, make_dir, read_json, remove_file, write_json
from wherry.values import replace, value
from wherry_vm.shares.places import guest_path, is_free

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

DEFAULT = "default"

_SHAPE = {
    **dict.fromkeys(("cpus", "memory", "disk", "idle"), int),
    "image": str,
    "authorities": [str],
    "shares": [{"source!": str, "target!": str, "readonly": bool}],
}
_LOCK = "lock"
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


@value
class Share:
    """A directory of the host that the guest sees at `target`."""

    source: str
    target: str
    readonly: bool = False


@value
class Settings:
    """What a machine is to be: memory in MiB, disk in GiB, idle in seconds (0: never stops).

    `authorities` are files of certificates that it trusts beside the host's own.
    """

    cpus: int = 2
    memory: int = 2048
    disk: int = 64
    idle: int = 600
    image: str = ""
    shares: tuple[Share, ...] | None = None
    authorities: tuple[str, ...] = ()


@value
class Machine:
    """A machine that has been made."""

    name: str
    settings: Settings

    @property
    def directory(self) -> str:
        return paths.machine(self.name)

    @property
    def run_directory(self) -> str:
        return paths.run_machine(self.name)

    def file(self, name: str) -> str:
        """The path of one of the files above."""
        return os.path.join(self.directory, name)

    def shares(self) -> tuple[Share, ...]:
        """What its next start shares: the user's home, where nothing else was asked for."""
        if self.settings.shares is not None:
            return self.settings.shares
        home = os.path.realpath(os.path.expanduser("~"))
        target = guest_path(home)
        if not os.path.isdir(home) or target == "/" or not is_free(target):
            return ()
        return (Share(source=home, target=target),)

    def lock(self, *, wait: bool = True) -> Lock:
        """What whoever starts, changes or removes the machine holds."""
        make_dir(self.directory)
        return Lock(self.file(_LOCK), wait=wait)


def check_name(name: str) -> str:
    """`name`, where a machine may be called so. Raises UsageError."""
    if not name or name[0] in ".-" or set(name) - _NAME or len(name) > 64:
        raise UsageError(
            f"invalid machine name {name!r}",
            hint="letters, digits, '_', '.' and '-', 64 of them at most",
        )
    return name


def current() -> str:
    """The name of the machine that commands go to."""
    return os.environ.get("WHERRY_MACHINE") or DEFAULT


def load(name: str = DEFAULT) -> Machine:
    """The machine called `name`. Raises NotFound, CorruptState."""
    check_name(name)
    _claim_places()
    try:
        record = read_json(os.path.join(paths.machine(name), "machine.json"), _SHAPE)
    except FileNotFoundError:
        raise NotFound(
            f"no such machine: {name}", hint=f"make it: wherry machine init {name}"
        ) from None
    except CorruptState as error:
        error.hint = (
            f"wherry machine set --cpus 2 {name} makes its settings anew, and keeps its disk; "
            f"to give the machine up: wherry machine rm --force {name}"
        )
        raise
    return Machine(name=name, settings=_settings(record))


def create(name: str, settings: Settings) -> Machine:
    """Make a machine, which does not run yet. Raises Conflict where the name is taken."""
    machine = Machine(name=check_name(name), settings=settings)
    _claim_places()
    # One that runs holds the lock until it stops.
    _require_new(machine)
    with machine.lock():
        _require_new(machine)
        save(machine)
    return machine


def _require_new(machine: Machine) -> None:
    if os.path.exists(machine.file("machine.json")):
        raise Conflict(f"machine {machine.name} is there already")


def _claim_places() -> None:
    """Have directories that are this user's alone: of keys, sockets and all that containers own."""
    claim_directory(paths.data())
    claim_directory(paths.run())


def load_or_create(name: str = DEFAULT) -> Machine:
    """The machine called `name`; the default one is made where it is not there yet.

    Raises NotFound for another.
    """
    try:
        return load(name)
    except NotFound:
        if name != DEFAULT:
            raise
    try:
        return create(name, Settings())
    except Conflict:
        return load(name)


def save(machine: Machine) -> None:
    """Keep a machine's settings."""
    settings = machine.settings
    shares = None
    if settings.shares is not None:
        shares = [
            {"source": each.source, "target": each.target, "readonly": each.readonly}
            for each in settings.shares
        ]
    write_json(
        machine.file("machine.json"),
        {
            "cpus": settings.cpus,
            "memory": settings.memory,
            "disk": settings.disk,
            "idle": settings.idle,
            "image": settings.image,
            "shares": shares,
            "authorities": list(settings.authorities),
        },
        sync=True,
    )


def remove(machine: Machine) -> None:
    """Remove everything of a machine. Raises Conflict where it runs."""
    import shutil

    with machine.lock(wait=False):
        # What has no record is no machine, even if what follows is not done.
        remove_file(machine.file("machine.json"))
        shutil.rmtree(machine.run_directory, ignore_errors=True)
        for name in os.listdir(machine.directory):
            if name != _LOCK:  # Windows keeps what is open
                remove_file(machine.file(name))
    shutil.rmtree(machine.directory)


def names() -> Iterator[str]:
    """The names of all machines, in order."""
    try:
        found = sorted(os.listdir(paths.machines()))
    except FileNotFoundError:
        return
    for name in found:
        if os.path.exists(os.path.join(paths.machine(name), "machine.json")):
            yield name


def _settings(record: dict[str, Any]) -> Settings:
    """The settings of a record; what it does not say is as usual."""
    known = Settings()
    for name in ("cpus", "memory", "disk", "idle"):
        if isinstance(record.get(name), int):
            known = replace(known, **{name: record[name]})
    shares = record.get("shares")
    if isinstance(shares, list):
        shares = tuple(
            Share(
                source=each["source"],
                target=each["target"],
                readonly=bool(each.get("readonly")),
            )
            for each in shares
        )
    return replace(
        known,
        image=str(record.get("image") or ""),
        shares=shares,
        authorities=tuple(record.get("authorities") or ()),
    )
