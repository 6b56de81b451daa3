"""What `wherry machine` does."""

from __future__ import annotations

import os
import time

from wherry.errors import Conflict, CorruptState, MachineError, NotFound, UsageError
from wherry.values import replace
from wherry_vm import machines
from wherry_vm.disk import used
from wherry_vm.image import add_image
from wherry_vm.link import connect
from wherry_vm.machines import Machine, Settings, Share
from wherry_vm.orphan import ORPHAN_PATIENCE, end_orphan, end_supervisor, supervisor_of
from wherry_vm.shares.finding import check_shares, in_force
from wherry_vm.shares.places import guest_path, is_free
from wherry_vm.starter import Ended, Mute, ask, join, tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from wherry_vm.link import Link

_MIB, _GIB = 1 << 20, 1 << 30

_PAUSE = 0.05
_LOOK, _FORCING, _STOPPING = 5, 10, 120
"""Seconds for a supervisor to tell how it is, to end at once, and to end in order."""


def init(name: str, values: Mapping[str, Any]) -> str:
    """Make a machine; its name. Raises Conflict, UsageError."""
    machines.check_name(name)
    machines.create(name, _changed(Settings(), values))
    return name


def change(name: str, values: Mapping[str, Any]) -> None:
    """Change a machine's settings, or make them anew where they are damaged. Raises UsageError."""
    try:
        machine = machines.load(name)
    except CorruptState as error:
        tell(f"{error.message}; what is not named is as usual from now on")
        machine = _with_usual_settings(name)
    settings = _changed(machine.settings, values)
    if settings.disk < machine.settings.disk:
        raise UsageError(
            f"the disk of machine {name} has {machine.settings.disk} GiB: it can grow, not shrink"
        )
    machines.save(replace(machine, settings=settings))
    # Authorities are the next command's, already.
    later = replace(settings, authorities=machine.settings.authorities)
    if later != machine.settings and state(machine) != "stopped":
        tell(f"machine {name} runs; the change takes effect when it is restarted")


def _with_usual_settings(name: str) -> Machine:
    """A machine that has a disk, and no record that says of what size."""
    machine = Machine(name=name, settings=Settings())
    try:
        size = os.path.getsize(machine.file("data.img")) // _GIB
    except FileNotFoundError:
        return machine
    return replace(machine, settings=replace(machine.settings, disk=size or machine.settings.disk))


def start(name: str) -> None:
    """Start a machine and wait until it is up. Raises MachineError."""
    join(machines.load_or_create(name), "wait", tell).close()


def stop(name: str, *, force: bool) -> None:
    """Stop a machine, and return when QEMU is gone. One that does not run is stopped.

    Raises MachineError where that cannot be; with `force` a supervisor that does not answer
    is killed.
    """
    _stop(machines.load(name), force=force)


def restart(name: str) -> None:
    """Stop a machine and start it again. One that could not start goes on. Raises MachineError."""
    machine = machines.load(name)
    check_shares(machine)
    _check_memory(machine.settings, hint=f"wherry machine set --memory 2g {name}")
    stop(name, force=False)
    start(name)


def _stop(machine: Machine, *, force: bool) -> None:
    deadline = time.monotonic() + _STOPPING
    asked = 0
    while not _has_ended(machine, force=force):
        owner = supervisor_of(machine)
        if asked and owner not in (0, asked) and not force:
            return  # it has stopped, and somebody has started it again
        link = connect(machine.run_directory)
        if link is None and time.monotonic() > deadline:
            raise _does_not_end(machine)
        if link is not None:
            asked = owner
            _ask_to_stop(machine, link, force=force)
        time.sleep(_PAUSE)


def _has_ended(machine: Machine, *, force: bool) -> bool:
    """Whether no supervisor has the machine, and no QEMU."""
    try:
        with machine.lock(wait=False):
            end_orphan(machine, 0 if force else ORPHAN_PATIENCE)
    except Conflict:
        return False
    return True


def _ask_to_stop(machine: Machine, link: Link, *, force: bool) -> None:
    try:
        request = {"op": "stop", "force": force}
        ask(link, request, ("stopped",), patience=_FORCING if force else _STOPPING)
    except Ended:
        pass
    except Mute as error:
        if not force:
            raise _does_not_end(machine) from error
        end_supervisor(machine)
    finally:
        link.close()


def _does_not_end(machine: Machine) -> MachineError:
    return MachineError(
        f"the supervisor of machine {machine.name} does not answer",
        hint=f"wherry machine stop --force {machine.name}",
    )


def is_there(name: str) -> bool:
    """Whether there is a machine of this name, whole or damaged."""
    return name in machines.names()


def remove(name: str, *, force: bool) -> None:
    """Remove a machine. Raises Conflict where it runs; `force` asks for no whole record."""
    try:
        machine = machines.load(name)
    except CorruptState:
        if not force:
            raise
        machine = Machine(name=name, settings=Settings())
    if force:
        _stop(machine, force=True)
    elif state(machine) != "stopped":
        raise Conflict(
            f"machine {name} is running", hint=f"stop it first: wherry machine stop {name}"
        )
    machines.remove(machine)


def state(machine: Machine) -> str:
    """starting, running, unresponsive, stopping, failed or stopped."""
    return str(_describe(machine)["state"])


def _describe(machine: Machine) -> dict[str, Any]:
    link = connect(machine.run_directory)
    if link is None:
        return {"state": "stopped"}
    try:
        return ask(link, {"op": "state"}, ("state",), patience=_LOOK)
    except Ended:
        return {"state": "stopped"}
    except Mute:
        return {"state": "unresponsive"}
    finally:
        link.close()


def list_all() -> list[dict[str, Any]]:
    """Every machine, for a table; sizes in bytes."""
    rows = []
    current = machines.current()
    for name in machines.names():
        try:
            machine = machines.load(name)
        except CorruptState as error:
            tell(error.message)
            continue
        described = _describe(machine)
        rows.append(
            {
                "Name": name,
                "Current": name == current,
                "State": described["state"],
                "Accelerator": described.get("accelerator", ""),
                "CPUs": described.get("cpus") or machine.settings.cpus,
                "Memory": machine.settings.memory * _MIB,
                "Disk": machine.settings.disk * _GIB,
                "DiskUsed": used(machine),
            }
        )
    return rows


def inspect(name: str) -> dict[str, Any]:
    """Everything that is known of a machine. Raises NotFound."""
    machine = machines.load(name)
    described = _describe(machine)
    settings = machine.settings
    return {
        "Name": name,
        "State": described["state"],
        "Accelerator": described.get("accelerator", ""),
        "CPUs": described.get("cpus") or settings.cpus,
        "Memory": settings.memory * _MIB,
        "Disk": {"Size": settings.disk * _GIB, "Used": used(machine)},
        "IdleTimeout": settings.idle,
        "Image": settings.image,
        "Authorities": list(settings.authorities),
        "Shares": [
            {"Source": each.source, "Target": each.target, "ReadOnly": each.readonly}
            for each in in_force(machine)
        ],
        "Pid": described.get("pid", 0),
        "SSH": {
            "Port": described.get("ssh_port", 0),
            "User": "root",
            "IdentityFile": machine.file("key"),
        },
        "Directory": machine.directory,
        "RunDirectory": machine.run_directory,
    }


def shell(name: str, words: Sequence[str]) -> int:
    """Run a program in a machine, a shell without one; its exit code."""
    from wherry_vm.client import Client
    from wherry_vm.terminal import open_console

    try:
        machine = machines.load(name)
    except NotFound as error:
        # What stands there may be a command: there is a machine by default.
        error.hint = f"{error.hint}; a command is said so: wherry machine ssh default {name} …"
        raise
    link = join(machine, "command", tell)
    try:
        program = tuple(words) or ("/bin/sh", "-l")
        return Client(link, open_console(), program, operation="program", stdin=0).run()
    finally:
        link.close()


def bench(name: str) -> Iterator[Mapping[str, Any]]:
    """Measure a machine, which is started where it does not run. Raises MachineError."""
    from wherry_vm.bench import Bench

    start(name)
    machine = machines.load(name)
    return Bench(machine, int(_describe(machine)["ssh_port"]), tell).rows()


def ask_if_running(argv: tuple[str, ...]) -> list[str]:
    """The lines that `wherry *argv` prints where commands are carried out.

    None where no machine runs: it is not started for that. Raises WherryError.
    """
    import tempfile

    from wherry_vm.client import Client
    from wherry_vm.terminal import open_console

    machine = machines.load(machines.current())
    if state(machine) != "running":
        return []
    link = join(machine, "command", lambda _: None)
    try:
        with tempfile.TemporaryFile() as output, open(os.devnull, "wb") as nowhere:
            outputs = (output.fileno(), nowhere.fileno())
            Client(link, open_console(), argv, outputs=outputs).run()
            output.seek(0)
            return output.read().decode(errors="replace").splitlines()
    finally:
        link.close()


def logs(name: str) -> str:
    """What the supervisor and QEMU have written. Raises NotFound."""
    machine = machines.load(name)
    return _text(machine.file("supervisor.log")) + _text(machine.file("qemu.log"))


def console(name: str) -> str:
    """What the guest's kernel has written since the last start. Raises NotFound."""
    machine = machines.load(name)
    path = machine.file("console.log")
    if not os.path.exists(path):
        raise NotFound(f"machine {name} has not been started yet")
    return _text(path)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _changed(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """`settings` with what was given. Raises UsageError."""
    for name in ("cpus", "memory", "disk", "idle"):
        if values.get(name) is not None:
            settings = replace(settings, **{name: values[name]})
    if values.get("memory"):
        _check_memory(settings)
    if values.get("share"):
        settings = replace(settings, shares=tuple(map(_share, values["share"])))
    if values.get("image"):
        settings = replace(settings, image=add_image(values["image"]))
    if values.get("ca"):
        from wherry_vm.surroundings.authorities import check

        # `--ca ""` names none.
        files = tuple(check(path) for path in values["ca"] if path)
        settings = replace(settings, authorities=files)
    return settings


def _check_memory(settings: Settings, hint: str | None = None) -> None:
    """Raises UsageError for more than this host could ever give."""
    from wherry.human import binary_size
    from wherry_vm.qemu.host import memory

    there = memory()
    if 0 < there < settings.memory:
        raise UsageError(
            f"a machine cannot have {binary_size(settings.memory * _MIB)} of memory: "
            f"this host has {binary_size(there * _MIB)}",
            hint=hint,
        )


def _share(text: str) -> Share:
    """`DIR` or `DIR:ro`. Raises UsageError where there is no such directory."""
    path, readonly = (text[:-3], True) if text.endswith(":ro") else (text, False)
    # As it is without links: that is what paths are compared with, and stays what it is.
    source = os.path.realpath(os.path.expanduser(path))
    if not os.path.isdir(source):
        raise UsageError(f"cannot share {path}: no such directory")
    target = guest_path(source)
    if not is_free(target):
        raise UsageError(
            f"cannot share {path}: {target} is the machine's own",
            hint="share a directory below it, or copy: wherry cp",
        )
    return Share(source=source, target=target, readonly=readonly)
