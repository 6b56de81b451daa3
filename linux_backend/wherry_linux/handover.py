"""A monitor goes on in a fresh interpreter: same process, same descriptors, less memory.

The monitor is forked by a command that has loaded the parts of wherry that make
containers, five megabytes that it never needs again. Once the container runs steadily
the monitor executes Python anew (execve(2) keeps the process, its children and what it
is to them), with what it has to know in a memory file.
"""

from __future__ import annotations

import gc
import os
import sys

import wherry
import wherry_linux
from wherry.lean import dump_json, load_json, signals, sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry_linux.monitor import Monitor


def hand_over(monitor: Monitor) -> None:
    """Does not return, unless this interpreter cannot be executed again."""
    if not os.path.basename(sys.executable or "").startswith("python"):
        return  # it is built into another program
    if not os.path.exists(__file__):
        return  # it has been uninstalled since, or comes out of an archive
    saved = _save(monitor)
    file = os.memfd_create("wherry-monitor")
    os.write(file, dump_json(saved).encode())
    os.lseek(file, 0, os.SEEK_SET)
    kept = [file, *_descriptors(saved)]
    # Until they are handled again the signals of a terminal would end us.
    signals.pthread_sigmask(signals.SIG_BLOCK, range(1, signals.NSIG))
    for descriptor in kept:
        os.set_inheritable(descriptor, True)
    places = [os.path.dirname(package.__path__[0]) for package in (wherry, wherry_linux)]
    program = (
        f"import sys; sys.path[:0] = {places!r};"
        f" from wherry_linux.handover import go_on; go_on({file})"
    )
    compiled = ["-B"] if sys.dont_write_bytecode else []
    try:
        os.execv(sys.executable, [sys.executable, "-I", "-S", *compiled, "-c", program])
    except OSError:
        for descriptor in kept:
            os.set_inheritable(descriptor, False)
        os.close(file)
        signals.pthread_sigmask(signals.SIG_SETMASK, [])


def go_on(file: int) -> None:
    """What the fresh interpreter begins with."""
    from wherry.container.store import Container
    from wherry_linux.monitor import Monitor, trace

    try:
        saved = load_json(os.read(file, os.fstat(file).st_size))
        os.close(file)
        for descriptor in _descriptors(saved):
            os.set_inheritable(descriptor, False)
        monitor = Monitor(Container(saved["id"], saved["record"]), None, None)
        monitor.prepare()
        signals.pthread_sigmask(signals.SIG_SETMASK, [])
        _restore(monitor, saved)
        _give_back_memory()
        monitor.loop()
    except BaseException:
        trace()
        os._exit(1)
    os._exit(0)


def _give_back_memory() -> None:
    """What loading modules has used and needs no longer."""
    gc.collect()
    kept = wherry_linux.__spec__ and wherry_linux.__spec__.cached
    if kept and os.path.exists(kept):
        return
    # Compiling, where no bytecode is kept, has left far more behind than ctypes takes.
    from wherry_linux.syscalls import libc

    trim = getattr(libc, "malloc_trim", None)
    if trim is not None:
        trim(0)


def _descriptors(saved: dict[str, Any]) -> list[int]:
    """Every descriptor that goes over."""
    plain = "pidfd stdin terminal listener notify"
    found = {saved[name] for name in plain.split()}
    found |= {int(descriptor) for descriptor in saved["outputs"]}
    found |= {client["socket"] for client in saved["clients"]}
    found |= set(saved["passed"])
    if saved["services"]:
        from wherry_linux.network.services import descriptors

        found |= descriptors(saved["services"])
    return [descriptor for descriptor in found if descriptor >= 0]


def _save(monitor: Monitor) -> dict[str, Any]:
    return {
        "id": monitor.container.id,
        "record": monitor.container.record,
        "pid": monitor.pid,
        "pidfd": monitor.pidfd,
        "cgroup": monitor.cgroup,
        "memory_kills": monitor.memory.kills,
        "stdin": monitor.stdin,
        "outputs": {str(descriptor): kind for descriptor, kind in monitor.outputs.items()},
        "terminal": monitor.terminal,
        "listener": monitor.listener.fileno(),
        "notify": _notify_descriptor(monitor),
        "stdin_queue": monitor.stdin_queue.decode("latin-1"),
        "stdin_ended": monitor.stdin_ended,
        "log": {} if monitor.log is None else monitor.log.unfinished(),
        "service": {} if monitor.service is None else monitor.service.unfinished(),
        "passed": monitor.passed,
        "restarts": [monitor.restarts.count, monitor.restarts.delay],
        "started_at": monitor.started_at,
        "health": None if monitor.health is None else monitor.health.saved(),
        "services": [] if monitor.services is None else monitor.services.saved(),
        "clients": [client.saved() for client in monitor.clients],
    }


def _notify_descriptor(monitor: Monitor) -> int:
    """Where the container tells of itself; -1 where it does not."""
    notifier = monitor.notifier
    if notifier is None or notifier.listener is None:
        return -1
    return int(notifier.listener.fileno())


def _restore(monitor: Monitor, saved: dict[str, Any]) -> None:
    from wherry.errors import WherryError
    from wherry_linux.clients import Client
    from wherry_linux.monitor import trace
    from wherry_linux.restarts import Restarts

    plain = "pid pidfd cgroup stdin terminal stdin_ended started_at passed"
    for name in plain.split():
        setattr(monitor, name, saved[name])
    monitor.memory.kills = saved["memory_kills"]
    monitor.outputs = {int(descriptor): kind for descriptor, kind in saved["outputs"].items()}
    monitor.stdin_queue += saved["stdin_queue"].encode("latin-1")
    monitor.restarts = Restarts(*saved["restarts"])
    try:
        monitor.open_log()
    except WherryError:
        trace()  # journald or syslog has gone meanwhile
    if monitor.log is not None:
        monitor.log.go_on(saved["log"])
    if monitor.service is not None:
        monitor.service.go_on(saved["service"])
    monitor.listen(sockets.socket(fileno=saved["listener"]))
    for one in saved["clients"]:
        monitor.clients.append(Client.restored(monitor, one))
    monitor.open_notifier()
    if monitor.notifier is not None and saved["notify"] >= 0:
        monitor.notifier.go_on(sockets.socket(fileno=saved["notify"]))
    monitor.resume()
    monitor.serve(saved["services"])
    if saved["health"] is not None:
        from wherry_linux.health import HealthChecks

        monitor.health = HealthChecks(monitor, monitor.container.body["Healthcheck"])
        monitor.health.restore(saved["health"])
