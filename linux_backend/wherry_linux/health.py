"""HEALTHCHECK: the monitor runs the checks itself, so they need no init system.

docker's rules: the first check comes one interval after the start (one start interval
during the start period); a failure counts once the start period is over, or a check
has succeeded; `retries` failures in a row make the container unhealthy.
"""

from __future__ import annotations

import os
import select
import time

from wherry.container.wire import control
from wherry.errors import Conflict, to_json
from wherry.forked import start
from wherry.timestamps import now
from wherry_linux.processes import kill_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from wherry.container.spec import HealthConfig, StartupHealth
    from wherry.oci.runtime_spec import Process
    from wherry_linux.clients import Client
    from wherry_linux.monitor import Monitor

_SECOND = 1_000_000_000
_LONGEST_OUTPUT = 4096
_KEPT_RESULTS = 5


class HealthChecks:
    """The health checks of one run of a container."""

    def __init__(self, monitor: Monitor, check: HealthConfig) -> None:
        self._monitor = monitor
        self._test = check["Test"]
        self._interval = (check.get("Interval") or 30 * _SECOND) / _SECOND
        self._timeout = (check.get("Timeout") or 30 * _SECOND) / _SECOND
        self._start_period = check.get("StartPeriod", 0) / _SECOND
        self._start_interval = (check.get("StartInterval") or 5 * _SECOND) / _SECOND
        self._retries = check.get("Retries") or 3
        own = monitor.container.body.get("Wherry") or {}
        # The check that comes first, until it has succeeded.
        self._startup: StartupHealth | None = own.get("StartupHealth") or None
        self._successes = 0
        self._began = time.monotonic()
        self._status = "starting"
        self._streak = 0
        self._results: list[dict[str, Any]] = []
        self.child = 0
        self._child_fd = -1
        self._output_fd = -1
        self._output = b""
        self._check_start = ""
        # Who has asked for the check that is under way.
        self._askers: list[Client] = []

    def begin(self) -> None:
        """Record that the container is starting, and plan the first check."""
        self._record()
        self._plan()

    def check_for(self, client: Client) -> None:
        """Check now, and tell `client` what came of it."""
        if self._monitor.container.state["Status"] != "running":
            raise Conflict(f"container {self._monitor.container.name} is paused")
        self._askers.append(client)
        if not self.is_checking():
            self._monitor.cancel(self._run)
            self._run()

    def _answer(self, message: bytes) -> None:
        askers, self._askers = self._askers, []
        for client in askers:
            if client in self._monitor.clients:
                client.send(message)

    def is_checking(self) -> bool:
        """Whether a check is under way."""
        return self.child > 0

    def saved(self) -> dict[str, Any]:
        """What `restore` needs in another interpreter."""
        return {
            "began": self._began,
            "status": self._status,
            "streak": self._streak,
            "results": self._results,
            "successes": self._successes,
            "has_started": self._startup is None,
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from where another interpreter was."""
        self._began = saved["began"]
        self._status = saved["status"]
        self._streak = saved["streak"]
        self._results = saved["results"]
        self._successes = saved["successes"]
        if saved["has_started"]:
            self._startup = None
        self._plan()

    def end(self) -> None:
        """The container has ended: no check will come, and a running one counts for nothing."""
        self._monitor.cancel(self._run)
        self._monitor.cancel(self._expire)
        if self.child:
            self._stop_child()
            self._forget_child()
        name = self._monitor.container.name
        error = Conflict(f"container {name} has ended during its health check")
        self._answer(control({"error": to_json(error)}))

    def _plan(self) -> None:
        """Run the next check when it is due, counted from the end of the last one."""
        is_starting = (
            self._status == "starting" and time.monotonic() - self._began < self._start_period
        )
        delay = self._start_interval if is_starting else self._interval
        if self._startup is not None:
            delay = (self._startup.get("Interval") or 30 * _SECOND) / _SECOND
        self._monitor.after(delay, self._run)

    def _run(self) -> None:
        if self._monitor.container.state["Status"] != "running":
            self._plan()  # paused: nothing answers
            return
        self._check_start = now()
        self._output = b""
        try:
            self._fork()
        except OSError as error:
            # No process or no descriptor to spare: that is no reason to end with the check.
            self._output = f"cannot run the check: {error.strerror}".encode()
            self._judge(-1)
            return
        self._monitor.watch(self._child_fd, select.EPOLLIN, self._finished)
        self._monitor.watch(self._output_fd, select.EPOLLIN, self._read)
        self._monitor.after(self._patience(), self._expire)

    def _fork(self) -> None:
        self._output_fd, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self.child = start(lambda: self._become_check(write))
        except OSError:
            os.close(self._output_fd)
            raise
        finally:
            os.close(write)
        self._child_fd = os.pidfd_open(self.child)

    def _patience(self) -> float:
        """The seconds that a check may take."""
        if self._startup is not None:
            return (self._startup.get("Timeout") or 30 * _SECOND) / _SECOND
        return self._timeout

    def _become_check(self, output: int) -> None:
        """In a forked child: run the check in the container, and end with its exit code."""
        code = 1
        try:
            from wherry_linux.joining import execute

            os.setsid()
            os.set_blocking(output, True)
            code = execute(
                self._monitor.runtime,
                self._monitor.container.id,
                self._process(),
                user=self._monitor.container.body.get("User") or "",
                stdin=False,
                stdio=(0, output, output),
                given=(output,),
            )
        except BaseException as error:
            os.write(output, str(error).encode()[:_LONGEST_OUTPUT])
        os._exit(code)

    def _process(self) -> Process:
        from wherry.files import read_json

        process: Process = read_json(self._monitor.container.path("config.json"))["process"]
        process["terminal"] = False
        test = self._test if self._startup is None else self._startup["Test"]
        if test[0] == "CMD-SHELL":
            process["args"] = ["/bin/sh", "-c", test[1]]
        else:
            process["args"] = test[1:] if test[0] == "CMD" else list(test)
        return process

    def _read(self, _mask: int) -> None:
        try:
            data = os.read(self._output_fd, 65536)
        except BlockingIOError:
            return
        if not data:
            self._monitor.unwatch(self._output_fd)
            return
        self._output = (self._output + data)[:_LONGEST_OUTPUT]

    def _expire(self) -> None:
        """The check has taken too long, which is a failure."""
        self._stop_child()
        seconds = f"{self._patience():g}s"
        self._output = f"Health check exceeded timeout ({seconds})".encode()
        self._forget_child()
        self._judge(-1)

    def _stop_child(self) -> None:
        # The process in the container is in a session of its own; its stand-in passes
        # nothing on of SIGKILL, so the whole group of both is meant.
        for pid, parent in _descendants(self.child):
            kill_child(pid, parent)

    def _finished(self, mask: int) -> None:
        self._monitor.cancel(self._expire)
        self._read(mask)
        code = self._forget_child()
        self._judge(code)

    def _forget_child(self) -> int:
        code = self._monitor.exit_code_of(self.child)
        for descriptor in (self._child_fd, self._output_fd):
            self._monitor.unwatch(descriptor)
            os.close(descriptor)
        self.child = 0
        return code

    def _judge(self, code: int) -> None:
        self._results.append(
            {
                "Start": self._check_start,
                "End": now(),
                "ExitCode": code,
                "Output": self._output.decode(errors="replace"),
            }
        )
        del self._results[:-_KEPT_RESULTS]
        before = self._status
        if self._startup is not None:
            self._judge_start(code, self._startup)
        elif code == 0:
            self._streak = 0
            self._status = "healthy"
        elif before != "starting" or time.monotonic() - self._began >= self._start_period:
            self._streak += 1
            if self._streak >= self._retries:
                self._status = "unhealthy"
        self._record()
        self._answer(control({"event": "done", "code": code}))
        if self._status != before:
            self._monitor.container.event(f"health_status: {self._status}")
        if self._status == "healthy" and before != "healthy" and self._monitor.notifier:
            self._monitor.notifier.healthy()
        if self._status == "unhealthy" and before != "unhealthy":
            self._react()
        self._plan()

    def _judge_start(self, code: int, startup: StartupHealth) -> None:
        """A startup check says nothing of health: the container goes on starting."""
        if code == 0:
            self._successes += 1
            self._streak = 0
            if self._successes >= (startup.get("Successes") or 1):
                self._startup = None
            return
        self._streak += 1
        if startup.get("Retries") and self._streak >= startup["Retries"]:
            self._monitor.end_unhealthy("restart")

    def _react(self) -> None:
        """`--health-on-failure`."""
        wanted = (self._monitor.container.body.get("Wherry") or {}).get("HealthOnFailure", "none")
        if wanted != "none":
            self._monitor.end_unhealthy(wanted)

    def _record(self) -> None:
        self._monitor.write_state(
            Health={
                "Status": self._status,
                "FailingStreak": self._streak,
                "Log": list(self._results),
            }
        )


def _descendants(child: int) -> list[tuple[int, int]]:
    """A child of ours and those it has forked, each with its parent, the youngest first.

    The check decides how many there are, and how deep.
    """
    found = [(child, os.getpid())]
    for pid, _ in found:
        try:
            with open(f"/proc/{pid}/task/{pid}/children") as file:
                found += [(int(word), pid) for word in file.read().split()]
        except OSError:
            continue
    return found[::-1]
