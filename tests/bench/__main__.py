"""The command line of `make bench`, and its tables."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

from bench import cgroups, engines, images, machine
from bench.cases import BOUNDS, CASES, GOALS, Stage
from bench.measure import CannotMeasure, Comparison

if TYPE_CHECKING:
    from collections.abc import Iterable

    from support.accounts import Account


_MACHINE = "machine"
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    options = _arguments()
    if sys.platform != "linux" or os.geteuid() != 0:
        print("make bench: needs root on Linux: docker and the rootful cases do", file=sys.stderr)
        return 1
    directory = tempfile.mkdtemp(prefix="wherry-bench-", dir="/tmp")
    os.chmod(directory, 0o755)
    for each in _STOPPING:
        signal.signal(each, _stop)
    try:
        with contextlib.ExitStack() as stack:
            others = any(not name.startswith(f"{_MACHINE}-") for name in options.cases)
            stage = _set_up(stack, directory, options.rounds, others=others)
            print(_machine(stage), flush=True)
            comparisons = []
            for name in options.cases:
                try:
                    for comparison in _measured(name, stage):
                        comparisons.append(comparison)
                        print(_table(comparison), flush=True)
                except (CannotMeasure, TimeoutError, OSError) as error:
                    print(f"\n{name}: not measured: {error}", flush=True)
            print(_goals(comparisons, everything=options.cases == list(CASES)))
    finally:
        engines.clean_up(directory)
    return 0


def _stop(number: int, _frame: object) -> None:
    """However this is stopped, it takes down what it has set up, which nothing interrupts."""
    for each in _STOPPING:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def _measured(name: str, stage: Stage) -> Iterable[Comparison]:
    found = CASES[name](stage)
    return [found] if isinstance(found, Comparison) else found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench", description="Measure wherry beside its peers, in turns, in one run."
    )
    groups = {_MACHINE: [name for name in CASES if name.startswith(f"{_MACHINE}-")]}
    known = f"of {', '.join(CASES)}; {_MACHINE} is all of the machine's"
    parser.add_argument("cases", nargs="*", metavar="CASE", help=known)
    parser.add_argument("-n", "--rounds", type=int, default=15, help="samples each (%(default)s)")
    options = parser.parse_args()
    options.cases = [name for given in options.cases for name in groups.get(given, [given])]
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    options.cases = options.cases or list(CASES)
    return options


def _set_up(stack: contextlib.ExitStack, directory: str, rounds: int, *, others: bool) -> Stage:
    """Who takes part, ready; only wherry without `others`."""
    from support.accounts import current_account, rootless_account

    rootfs, busybox, large = (f"{directory}/{name}" for name in ("rootfs", "busybox", "large"))
    images.unpack_busybox(rootfs)
    images.write_busybox(busybox)
    if others:
        images.write_large(large)
    ours, peers = cgroups.host_view(), cgroups.peers_view()
    registry = None
    if others and shutil.which("docker-registry") and shutil.which("skopeo"):
        registry = stack.enter_context(images.registry(f"{directory}/registry"))
        images.push(large, f"{registry}/large:latest")

    def start(
        kinds: list[type[engines.Engine]], account: Account, kind: str
    ) -> list[engines.Engine]:
        ready = []
        for engine_class in kinds if others else kinds[:1]:
            engine = engine_class(
                f"{directory}/{engine_class.name}-{kind}",
                account,
                ours if engine_class is engines.Wherry else peers,
            )
            try:
                stack.enter_context(engine.running())
                engine("load", "--input", busybox)
                ready.append(engine)
            except (CannotMeasure, FileNotFoundError, TimeoutError) as error:
                print(f"{engine.name} ({kind}) takes no part: {error}")
        return ready

    return Stage(
        directory=directory,
        rounds=rounds,
        root=start([engines.Wherry, engines.Podman, engines.Docker], current_account(), "root"),
        rootless=start([engines.Wherry, engines.RootlessPodman], rootless_account(), "rootless"),
        rootfs=rootfs,
        busybox=busybox,
        large=large,
        registry=registry,
        peers=peers,
        ground=machine.Ground(directory, current_account(), busybox, stack),
    )


def _machine(stage: Stage) -> str:
    lines = [
        f"Linux {platform.release()}, {os.cpu_count()} processors",
        f"Python {platform.python_version()}",
        *(_version(engine.command()) for engine in stage.root),
        *(_version([program]) for program in ("crun", "bwrap")),
    ]
    return "\n".join(f"- {line}" for line in lines)


def _version(command: list[str]) -> str:
    try:
        said = subprocess.run(
            [command[0], "--version"], capture_output=True, text=True, check=False
        ).stdout
    except FileNotFoundError:
        return f"{command[0]}: not installed"
    return said.splitlines()[0] if said else command[0]


def _table(comparison: Comparison) -> str:
    """A comparison in Markdown: medians, quartiles, and wherry's ratio to each."""
    rounds = max(map(len, comparison.samples.values()), default=0)
    lines = [
        "",
        f"### {comparison.title}",
        "",
        f"| | median ({comparison.unit}) | quartiles | wherry is |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name in comparison.samples:
        low, high = comparison.quartiles(name)
        ratio = ""
        if "wherry" in comparison.samples and name != "wherry":
            ratio = f"× {comparison.ratio('wherry', name)}"
        count = len(comparison.samples[name])
        shown = name if count == rounds else f"{name} (samples: {count} of {rounds})"
        lines.append(
            f"| {shown} | {comparison.median(name):.1f} | {low:.1f}–{high:.1f} | {ratio} |"
        )
    lines += [f"| {name} | – | | {reason} |" for name, reason in comparison.absent.items()]
    return "\n".join(lines)


def _goals(comparisons: list[Comparison], *, everything: bool) -> str:
    """Whether each goal is met; those of other cases are listed with `everything` only."""
    by_title = {comparison.title: comparison for comparison in comparisons}
    lines = ["", "### Goals", "", "| case | goal | measured | |", "| --- | --- | ---: | --- |"]
    for goal in GOALS:
        comparison = by_title.get(goal.case)
        if comparison is None and not everything:
            continue
        if comparison is None or not {"wherry", goal.peer} <= set(comparison.samples):
            lines.append(f"| {goal.case} | ≤ {goal.limit} × {goal.peer} | – | not measured |")
            continue
        ratio = comparison.ratio("wherry", goal.peer)
        verdict = "met" if ratio.value <= goal.limit else "**not met**"
        lines.append(f"| {goal.case} | ≤ {goal.limit} × {goal.peer} | {ratio} | {verdict} |")
    for bound in BOUNDS:
        comparison = by_title.get(bound.case)
        if comparison is not None and "wherry" in comparison.samples:
            measured = comparison.median("wherry")
            verdict = "met" if measured <= bound.limit else "**not met**"
            limit = f"≤ {bound.limit:g} {bound.what}"
            lines.append(f"| {bound.case} | {limit} | {measured:.1f} | {verdict} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
