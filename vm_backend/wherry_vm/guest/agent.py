"""The guest's end of the event channel; what it says is told in wherry_vm.events."""

from __future__ import annotations

import _thread
import errno
import os
import select
import time

from wherry import __version__, paths
from wherry.engine.published import SOCKET
from wherry.errors import WherryError
from wherry.files import make_dir, remove_file, write_all
from wherry.lean import dump_json, load_json
from wherry_vm.guest.disk import mount_disk
from wherry_vm.guest.mounts import Mounts, port_device
from wherry_vm.guest.pausing import pause
from wherry_vm.guest.questions import Questions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wherry_linux.inotify import Watch
    from wherry_vm.guest.news import News

_NAME = "org.wherry.events"

_BEAT = 5.0
"""Seconds between two beats: how long the clock may be wrong after the host has slept."""

_LOOK = 1.0
"""Seconds between two looks at what listens, while somebody may."""

_CHUNK = 4096
_TRIES = 100
_ORPHANS_GRACE = "5"
"""Seconds for containers to end where the host's side of the machine was killed."""

_SSH_PORT = 22
_POWEROFF = "/sbin/poweroff"

_saying = _thread.allocate_lock()


def find_port() -> str | None:
    """The device of the channel; None where this machine has none."""
    return port_device(_NAME)


def serve_events(
    path: str, problems: int, commands: Sequence[int], lost: int, *, pauses: bool
) -> None:
    """Say that the guest is ready, and serve the channel until the end.

    What comes by `problems` is what the host is to know of. `commands` are the numbers of the
    ports for commands; by `lost` comes, as a byte, that of one that is of no use any more, and
    with its end none is.
    """
    port = _open(path)
    ports = open_ports()
    is_new = False
    if pauses:
        is_new = pause(port, is_listening, lambda message: _say(port, message))
    data = mount_disk(is_new=is_new)
    # From here on whoever asks is heard: what is said waits in the port.
    up = {**wait_until_ready(), "data": data, "commands": commands}
    _say(port, {"event": "ready", **_beat(_running()), **up})

    # The machine's start does not wait for what this imports.
    from wherry_vm.guest.listeners import Listeners
    from wherry_vm.guest.news import News

    mounts = Mounts()
    if targets := mounts.targets():
        # Who has logged in may have mounted them before anybody looked.
        _say(port, {"event": "mounted", "mounts": targets})
    news = News(lambda message: _say(port, message))
    containers = watch_containers()
    buffer = b""
    poll = select.poll()
    poll.register(port, select.POLLIN)
    poll.register(containers, select.POLLIN)
    poll.register(mounts.table, select.POLLPRI)
    poll.register(ports, select.POLLIN)
    poll.register(problems, select.POLLIN)
    poll.register(lost, select.POLLIN)
    listeners = Listeners()
    due = time.monotonic() + _BEAT
    while True:
        seconds = min(due - time.monotonic(), _LOOK if listeners.is_wanted else _BEAT)
        for descriptor, mask in poll.poll(max(seconds, 0) * 1000):
            if descriptor == mounts.table:
                _say(port, {"event": "mounted", "mounts": mounts.targets()})
            elif descriptor == ports.fileno():
                if asked := ports.hear():
                    _say(port, {"event": "ports", "id": asked[0], **asked[1]})
            elif descriptor == problems and mask & select.POLLIN:
                text = os.read(problems, _CHUNK).decode(errors="replace")
                _say(port, {"event": "problem", "text": text})
            elif descriptor == problems:
                poll.unregister(problems)
            elif descriptor == lost:
                numbers = os.read(lost, _CHUNK)
                _say(port, {"event": "lost", "ports": list(numbers)})
                if not numbers:
                    poll.unregister(lost)
            elif descriptor == containers.fileno():
                containers(0)
                due = 0  # the beat below tells what runs
            elif descriptor != port:
                poll.unregister(descriptor)
                _say(port, mounts.ended(descriptor))
            elif mask & select.POLLHUP:
                # Nobody owns this machine any more, and who starts it again waits for its end.
                power_off("-t", _ORPHANS_GRACE)
                return
            else:
                *lines, buffer = (buffer + os.read(port, 1 << 16)).split(b"\n")
                for line in lines:
                    for each in _obey(port, line, mounts, ports, news):
                        poll.register(each, select.POLLIN)
        if time.monotonic() >= due:
            running = _running()
            _say(port, {"event": "beat", **_beat(running)})
            listeners.follow(running)
            due = time.monotonic() + _BEAT
        if listeners.is_wanted and (found := listeners.look()) is not None:
            _say(port, {"event": "listeners", "listeners": found})


def _open(path: str) -> int:
    """The port, which has one user at a time: the script that starts sshd says a word in it."""
    for _ in range(_TRIES):
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        time.sleep(0.02)
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


def wait_until_ready() -> dict[str, Any]:
    """What this guest is, when sshd listens."""
    while not is_listening():
        time.sleep(0.02)
    with open("/proc/uptime", encoding="ascii") as file:
        uptime = float(file.read().split()[0])
    return {"version": __version__, "kernel": os.uname().release, "uptime": uptime}


def is_listening() -> bool:
    """Whether something has the port of SSH; sshd is not woken for it."""
    with open("/proc/net/tcp", encoding="ascii") as lines:
        return any(f":{_SSH_PORT:04X} 00000000:0000 0A" in line for line in lines)


def open_ports() -> Questions:
    """Where commands have the host publish ports: see wherry.engine.published."""
    path = os.path.join(make_dir(paths.run()), SOCKET)
    remove_file(path)
    return Questions(path)


def watch_containers() -> Watch:
    """What is readable when a container begins or ends to run."""
    from wherry_linux.inotify import Watch

    directory = os.path.join(paths.run(), "containers")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    return Watch([os.path.join(directory, "any")])


def _beat(running: list[str]) -> dict[str, Any]:
    return {"time": time.time(), "running": len(running), "binds": binds(running)}


def _running() -> list[str]:
    """The ids of the containers that run: each has a directory as long as it does."""
    try:
        return os.listdir(os.path.join(paths.run(), "containers"))
    except FileNotFoundError:
        return []


def binds(ids: list[str]) -> list[str]:
    """The directories and files that these containers have mounted."""
    from wherry.container.store import ContainerStore

    found: set[str] = set()
    for each in ids:
        try:
            mounts = ContainerStore().load(each).record["Mounts"]
            found.update(point["Source"] for point in mounts if point["Type"] == "bind")
        except (WherryError, KeyError):
            continue
    return sorted(found)


def _say(port: int, message: dict[str, Any]) -> None:
    data = dump_json(message).encode() + b"\n"
    with _saying:
        write_all(port, data)


def _obey(port: int, line: bytes, mounts: Mounts, ports: Questions, news: News) -> list[int]:
    """Do what the host says; descriptors that tell when something new has ended."""
    try:
        message = load_json(line)
    except ValueError:
        return []
    operation = message.get("op")
    if operation == "time":
        now = time.time()
        if lag := lag_of(now, float(message["time"]), float(message["seen"])):
            time.clock_settime(time.CLOCK_REALTIME, now + lag)
    elif operation == "poweroff":
        power_off()
    elif operation == "mount":
        return [mounts.mount(message)]
    elif operation == "ports":
        ports.answer(message)
    elif operation == "changed":
        news.hear(message)
    elif operation == "surroundings":
        from wherry_vm.guest.surroundings import adopt

        adopt(message)
        _say(port, {"event": "adopted", "number": message["number"]})
    return []


def lag_of(now: float, told: float, seen: float) -> float:
    """How far this clock is behind the host's; 0 where that may be the messages' time alone.

    It showed `seen` when a beat set out, to which the host, whose clock was at `told`, has
    answered. On a busy host that takes longer than the clocks differ, and one that is right
    would be put back.
    """
    lag = told - (now + seen) / 2
    return lag if abs(lag) > (now - seen) / 2 else 0.0


def power_off(*options: str) -> None:
    """End the containers as `wherry stop` with these options does, then the guest."""
    import contextlib
    import subprocess

    # Who loses patience with the containers is not to lose what there was before.
    os.sync()
    if running := _running():
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(["wherry", "stop", *options, *running], check=False, timeout=20)
    os.sync()
    subprocess.run([_POWEROFF], check=False)
