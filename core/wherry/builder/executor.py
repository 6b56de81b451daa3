"""Stages are built side by side, each step in a process of its own.

This process only waits: for what steps print, and for what they come to. So steps need
no threads, an interrupt ends them all, and what one of them does with its user or its
mounts is nobody else's.
"""

from __future__ import annotations

import os
import sys
import time

from wherry.builder.running import ENDING, STEP_ENDING
from wherry.builder.stage import Needs, Step
from wherry.engine.session import give_signals_back, take_signals
from wherry.errors import Unsupported, WherryError
from wherry.forked import Child, unwrap
from wherry.lean import select, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from typing import Any

    from wherry.builder.progress import Progress
    from wherry.builder.stage import StageBuild
    from wherry.engine import Engine

    Steps = Generator[Step | Needs, Any, Any]

_PIECE = 1 << 16
# After this time a step that has not ended is told once more.
_AGAIN_SECONDS = 1


class StepFailed(WherryError):
    """A step came to nothing; `step` and `lines`, its last output, tell of it."""

    def __init__(self, error: WherryError, step: Step, lines: list[str]) -> None:
        super().__init__(error.message, hint=error.hint)
        self.exit_code = error.exit_code
        self.step = step
        self.lines = lines


class _Job:
    """A step that is being carried out, and the stages that wait for it."""

    child: Child

    def __init__(self, step: Step, number: int) -> None:
        self.step = step
        self.number = number
        self.waiting: list[Steps] = []
        self.started = time.monotonic()
        # Where its output comes from; -1 once that has ended.
        self.log = -1
        self.content = b""

    def close_log(self) -> None:
        if self.log >= 0:
            os.close(self.log)
            self.log = -1

    def close(self) -> None:
        """Hear no more of it."""
        self.close_log()
        self.child.close()


class Executor:
    """Carries out the steps of builds."""

    def __init__(self, engine: Engine, progress: Progress, limit: int) -> None:
        """`limit`: how many steps are carried out at the same time."""
        self._engine = engine
        self._progress = progress
        self._limit = max(1, limit)
        self._ready: list[tuple[Steps, Any]] = []
        self._begun: set[StageBuild] = set()
        # Who waits for a stage to be done.
        self._waiting: dict[StageBuild, list[Steps]] = {}
        self._queue: list[_Job] = []
        self._running: list[_Job] = []
        self._results: dict[str, dict[str, Any]] = {}
        self._owners: dict[Steps, StageBuild] = {}
        # The handlers that signals had which ask for the end, and where these are told of.
        self._caught: dict[int, Any] = {}
        self._wakeup = -1

    def build(self, stages: Iterable[StageBuild]) -> None:
        """Build these stages, and what they need. Raises StepFailed."""
        for stage in stages:
            self._begin(stage)
        self._work()

    def carry_out(self, steps: Steps) -> None:
        """Carry out steps that are no stage's."""
        self._ready.append((steps, None))
        self._work()

    def _begin(self, stage: StageBuild) -> None:
        if stage in self._begun:
            return
        self._begun.add(stage)
        steps = stage.steps()
        self._owners[steps] = stage
        self._ready.append((steps, None))

    def _work(self) -> None:
        """Until nothing is left to do, or a signal asks for the end."""
        if sys.platform == "win32":
            raise Unsupported("images are built on Linux only")
        self._caught = take_signals(ENDING)
        self._wakeup, wakeup = os.pipe()
        for descriptor in (self._wakeup, wakeup):
            os.set_blocking(descriptor, False)
        signals.set_wakeup_fd(wakeup)
        try:
            self._turn()
        finally:
            signals.set_wakeup_fd(-1)
            give_signals_back(self._caught)
            os.close(self._wakeup)
            os.close(wakeup)

    def _turn(self) -> None:
        try:
            while self._ready or self._queue or self._running:
                while self._ready:
                    self._advance(*self._ready.pop(0))
                while self._queue and len(self._running) < self._limit:
                    self._start(self._queue.pop(0))
                if self._running and not self._ready:
                    self._wait()
        except BaseException:
            self._end_all()
            raise

    def _advance(self, steps: Steps, result: Any) -> None:
        """Let a stage go on with the result of what it has asked for."""
        try:
            asked = steps.send(result)
        except StopIteration:
            stage = self._owners.pop(steps, None)
            if stage is not None:
                waiting = self._waiting.pop(stage, ())
                self._ready += [(one, None) for one in waiting]
            return
        if isinstance(asked, Needs):
            if asked.stage.is_done:
                self._ready.append((steps, None))
                return
            self._begin(asked.stage)
            self._waiting.setdefault(asked.stage, []).append(steps)
            return
        self._take(steps, asked)

    def _take(self, steps: Steps, step: Step) -> None:
        if step.identity in self._results:
            self._ready.append((steps, self._results[step.identity]))
            return
        for job in (*self._queue, *self._running):
            if step.identity and job.step.identity == step.identity:
                job.waiting.append(steps)
                return
        found = step.look() if step.look is not None else None
        if found is not None:
            number = self._progress.begin(step.name)
            self._progress.end(number, 0.0, is_cached="Step" in found or bool(found.get("cached")))
            self._finish(step, [steps], found)
            return
        job = _Job(step, 0)
        job.waiting.append(steps)
        self._queue.append(job)

    def _finish(self, step: Step, waiting: list[Steps], result: dict[str, Any]) -> None:
        if step.identity:
            self._results[step.identity] = result
        self._ready += [(one, result) for one in waiting]

    # ---- processes ----

    def _start(self, job: _Job) -> None:
        if sys.platform == "win32":
            raise Unsupported("images are built on Linux only")
        job.number = self._progress.begin(job.step.name)
        job.started = time.monotonic()
        job.log, log = os.pipe()
        job.child = Child(lambda: self._be_child(job.step, log), given=(log,), kept=(job.log,))
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal finds the parent, or a child that has its handlers.
        signals.pthread_sigmask(signals.SIG_BLOCK, self._caught)
        try:
            job.child.start()
        finally:
            signals.pthread_sigmask(signals.SIG_UNBLOCK, self._caught)
        self._running.append(job)

    def _be_child(self, step: Step, log: int) -> Any:
        """Carry a step out, in a process that ends with this one, or as it is told.

        It may be told so from the first moment on.
        """
        signals.set_wakeup_fd(-1)
        give_signals_back(self._caught)
        told = getattr(signals, STEP_ENDING)
        for number in (*self._caught, told):
            signals.signal(number, _Interrupt())
        self._engine.runtime.end_with_parent(told)
        signals.pthread_sigmask(signals.SIG_UNBLOCK, self._caught)
        for job in self._running:
            job.close()
        return _work(step, log)

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        owners: dict[int, _Job] = {}
        for job in self._running:
            for descriptor in (job.log, job.child.answer):
                if descriptor >= 0:
                    poll.register(descriptor, select.POLLIN)
                    owners[descriptor] = job
        for descriptor, _ in poll.poll(self._progress.patience()):
            if descriptor == self._wakeup:
                _end_as_asked(os.read(self._wakeup, 1)[0])
            job = owners[descriptor]
            data = os.read(descriptor, _PIECE)
            if descriptor == job.log:
                self._progress.output(job.number, data)
                if not data:
                    job.close_log()
            elif data:
                job.content += data
            else:
                job.child.close()
            if job.child.answer < 0 and job.log < 0:
                self._ended(job)
        self._progress.tick()

    def _ended(self, job: _Job) -> None:
        job.child.end()
        self._running.remove(job)
        seconds = time.monotonic() - job.started
        if not job.content:
            raise self._failed(job, WherryError(f"the process of {job.step.name} was killed"))
        try:
            result = unwrap(job.content)
        except WherryError as error:
            raise self._failed(job, error) from error
        self._progress.end(job.number, seconds, is_cached="Step" in result)
        self._finish(job.step, job.waiting, result.get("record", result))

    def _failed(self, job: _Job, error: WherryError) -> StepFailed:
        self._progress.fail(job.number, error.message)
        return StepFailed(error, job.step, self._progress.last_lines(job.number))

    def _end_all(self) -> None:
        """Have what still runs end, and wait until it has."""
        for job in self._running:
            _ask_to_end(job.child)
        for job in self._running:
            job.close()
            _await_end(job.child)
        self._running = []


class _Interrupt:
    """Ends a step as ctrl-c does, once, so that what it has made can be removed in peace.

    A terminal tells all of its processes, and the build's tells the steps once more, again
    and again: what raises KeyboardInterrupt is lost where it happens within a fork.
    """

    last = 0.0

    def __call__(self, _number: int, _where: object) -> None:
        before, _Interrupt.last = _Interrupt.last, time.monotonic()
        if _Interrupt.last - before > _AGAIN_SECONDS / 2:
            raise KeyboardInterrupt


def _end_as_asked(number: int) -> None:
    if number == signals.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _ask_to_end(child: Child) -> None:
    os.kill(child.pid, getattr(signals, STEP_ENDING))


def _await_end(child: Child) -> None:
    """Wait for a child that was told to end, and tell it again; see _Interrupt."""
    if sys.platform != "linux":
        raise Unsupported("images are built on Linux only")
    ended = os.pidfd_open(child.pid)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    while not poll.poll(1000 * _AGAIN_SECONDS):
        _ask_to_end(child)
    os.close(ended)
    child.end()


def _work(step: Step, log: int) -> Any:
    """In the child. What it prints is the step's output."""
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        return step.work()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
