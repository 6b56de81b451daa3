"""Samples taken in turns, so that whatever else the machine does meets everyone alike."""

from __future__ import annotations

import math
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    Sample = Callable[[], float]

PATIENCE = 300
"""Seconds after which a command is not waited for any more."""


class CannotMeasure(Exception):
    """A contestant that could not do it; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What one case gave: samples per contestant, in rounds, and who could not take part."""

    title: str
    unit: str
    samples: dict[str, list[float]]
    absent: dict[str, str] = field(default_factory=dict)

    def median(self, name: str) -> float:
        return statistics.median(self.samples[name])

    def quartiles(self, name: str) -> tuple[float, float]:
        return _quartiles(self.samples[name])

    def ratio(self, name: str, other: str) -> Ratio:
        """The ratio of the medians, with the quartiles of the rounds' own ratios.

        Who took part in fewer rounds took part in the first ones.
        """
        rounds = [
            ours / theirs
            for ours, theirs in zip(self.samples[name], self.samples[other], strict=False)
        ]
        low, high = _quartiles(rounds)
        return Ratio(value=self.median(name) / self.median(other), low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class Ratio:
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f}–{self.high:.2f})"


def compare(
    title: str,
    contestants: Mapping[str, Sample],
    rounds: int,
    unit: str = "ms",
    *,
    warm: bool = True,
    seconds: float = math.inf,
) -> Comparison:
    """Let everyone take a sample per round; the first to go is another one each time.

    Without `warm` the first round counts: what is measured begins with nothing. Who has been
    at it for `seconds` takes no more samples than one, or than there are already.
    """
    absent: dict[str, str] = {}
    spent = dict.fromkeys(contestants, 0.0)
    for name, sample in contestants.items() if warm else ():
        try:
            spent[name] += timed(sample)  # warms caches; not counted
        except CannotMeasure as error:
            absent[name] = str(error)
    names = [name for name in contestants if name not in absent]
    samples: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        shift = number % max(1, len(names))
        for name in names[shift:] + names[:shift]:
            if name in absent or (samples[name] and spent[name] >= seconds * 1000):
                continue
            try:
                started = time.perf_counter()
                samples[name].append(contestants[name]())
                spent[name] += (time.perf_counter() - started) * 1000
            except CannotMeasure as error:
                absent[name] = str(error)
                del samples[name]
    return Comparison(title=title, unit=unit, samples=samples, absent=absent)


def timed(*actions: Callable[[], object]) -> float:
    """How long the actions take together, in milliseconds."""
    start = time.perf_counter()
    for action in actions:
        action()
    return (time.perf_counter() - start) * 1000


def timed_commands(engine: Callable[..., object], *commands: tuple[str, ...]) -> Sample:
    """A sample: how long an engine takes for commands, one after the other."""

    def sample() -> float:
        return timed(*(lambda argv=argv: engine(*argv) for argv in commands))

    return sample


def must(argv: Sequence[str], **options: Any) -> bytes:
    """Run a command as subprocess.run would, for a bounded time; what it printed.

    Raises CannotMeasure where it fails, with what it said of it, and where it does not end.
    """
    options = {"stderr": subprocess.PIPE, "timeout": PATIENCE, **options}
    if "input" not in options:
        options["stdin"] = subprocess.DEVNULL
    try:
        process = subprocess.run(argv, check=False, **options)
    except subprocess.TimeoutExpired as error:
        raise CannotMeasure(f"{argv[0]} did not end within {error.timeout:g} s") from error
    if process.returncode:
        text = (process.stderr or b"").decode(errors="replace").strip()
        said = text.splitlines() or ["no message"]
        reason = next((line for line in said if "rror" in line), said[-1])
        raise CannotMeasure(f"exit code {process.returncode}: {reason}")
    return process.stdout or b""


def _quartiles(values: list[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high
