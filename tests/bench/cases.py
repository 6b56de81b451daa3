"""What is measured, in the order in which it is, and what wherry has to reach."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import builds, engines, machine, networks
from bench.measure import CannotMeasure, Comparison, compare, must, timed, timed_commands
from bench.peer import Peer
from support.memory import keepers, pss

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench import cgroups
    from bench.measure import Sample

IDLE = ("sleep", "1000000")


@dataclass(frozen=True, kw_only=True)
class Goal:
    """wherry divided by a peer, in one case, must not be above `limit`."""

    case: str
    peer: str
    limit: float


GOALS = (
    Goal(case="run, network none", peer="podman", limit=0.45),
    Goal(case="run, network none", peer="docker", limit=1.0),
    Goal(case="run, network host", peer="podman", limit=0.45),
    Goal(case="run, network host", peer="docker", limit=1.0),
    *(Goal(case="run, network bridge", peer=peer, limit=0.4) for peer in ("podman", "docker")),
    Goal(case="20 runs, four at a time", peer="podman", limit=0.5),
    *(
        Goal(case=f"published port, {way}", peer=peer, limit=1.0)
        for way in ("in", "out")
        for peer in ("podman", "docker")
    ),
    Goal(case="run, rootless", peer="podman", limit=0.45),
    Goal(case="run, rootless, network", peer="podman", limit=0.8),
    *(
        Goal(case=f"published port, rootless{own}, {way}", peer="podman", limit=1.0)
        for own in ("", ", own network")
        for way in ("in", "out")
    ),
    Goal(case="exec", peer="podman", limit=0.4),
    Goal(case="create, start, stop, rm", peer="podman", limit=0.4),
    Goal(case="ps, 50 running", peer="podman", limit=0.8),
    Goal(case="pull", peer="podman", limit=0.8),
    Goal(case="load", peer="podman", limit=0.8),
    Goal(case="machine, cold start and run", peer=Peer.name, limit=0.1),
    Goal(case="machine, run", peer=Peer.name, limit=0.33),
    Goal(case="machine, ps", peer="wherry, native", limit=1.5),
    *(
        Goal(case=f"build, {what}{user}", peer="podman", limit=limit)
        for what, limit in (("fresh", 0.6), ("cached", 0.5))
        for user in ("", ", rootless")
    ),
    *(
        Goal(case=f"build, {what}{again}", peer=peer, limit=limit)
        for what, peer, limit in (("20000 small files", "podman", 1.0), ("500 MB", "cp", 1.5))
        for again in ("", " again")
    ),
)


@dataclass(frozen=True, kw_only=True)
class Bound:
    """wherry in one case must not be above `limit`, whatever others are."""

    case: str
    limit: float
    what: str


BOUNDS = (
    Bound(case="name from inside", limit=1000, what="µs for a name"),
    Bound(case="name from inside, rootless", limit=1000, what="µs for a name"),
    Bound(case="memory, 20 idle containers", limit=100, what="MB of PSS for what keeps them"),
    Bound(case="machine, cold start and run", limit=4000, what="ms"),
    Bound(case="machine, run", limit=500, what="ms"),
    Bound(case="machine, exec", limit=250, what="ms"),
    Bound(case="machine, QEMU's processor when idle", limit=3, what="%"),
    Bound(case="machine, memory in use when idle", limit=120, what="MB"),
    Bound(case="machine, guest image compressed", limit=40, what="MB"),
)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What the cases share."""

    directory: str
    rounds: int
    root: list[engines.Engine]
    rootless: list[engines.Engine]
    rootfs: str
    busybox: str
    large: str
    registry: str | None
    peers: cgroups.View
    ground: machine.Ground


def run_network(stage: Stage, network: str) -> Comparison:
    """`run --rm busybox true`, from the command line to the end of the command."""
    shared = network == "host"
    contestants = {engine.name: _run(engine, f"--network={network}") for engine in stage.root}
    bundle = engines.crun_bundle(f"{stage.directory}/crun-{network}", stage.rootfs, network=shared)
    state = f"--root={stage.directory}/crun-state"
    contestants["crun"] = _program(stage, ["crun", state, "run", f"--bundle={bundle}", "bench"])
    contestants["bubblewrap"] = _program(stage, engines.bubblewrap(stage.rootfs, network=shared))
    contestants["python3 -c pass"] = _program(stage, [sys.executable, "-c", "pass"])
    return compare(f"run, network {network}", contestants, stage.rounds)


def run_rootless(stage: Stage) -> Comparison:
    contestants = {engine.name: _run(engine, "--network=none") for engine in stage.rootless}
    return compare("run, rootless", contestants, stage.rounds)


def exec_true(stage: Stage) -> Comparison:
    with _idle(stage, 1):
        contestants = {
            engine.name: timed_commands(engine, ("exec", "idle-0", "true")) for engine in stage.root
        }
        return compare("exec", contestants, stage.rounds)


def lifecycle(stage: Stage) -> Comparison:
    """A container's whole life, in four commands."""

    def life(engine: engines.Engine) -> Sample:
        create = ("create", "--name=life", "--network=none", "--stop-signal=KILL")
        return timed_commands(
            engine,
            (*create, *engine.options, "busybox", *IDLE),
            ("start", "life"),
            ("stop", "life"),
            ("rm", "life"),
        )

    contestants = {engine.name: life(engine) for engine in stage.root}
    return compare("create, start, stop, rm", contestants, stage.rounds)


def ps(stage: Stage) -> Comparison:
    with _idle(stage, 50):
        contestants = {engine.name: timed_commands(engine, ("ps",)) for engine in stage.root}
        return compare("ps, 50 running", contestants, stage.rounds)


def pull(stage: Stage) -> Comparison:
    """An image from a registry on loopback, into a store that does not have it."""
    if stage.registry is None:
        raise CannotMeasure("docker-registry or skopeo is not installed")
    name = f"{stage.registry}/large:latest"
    contestants = {
        engine.name: _afresh(engine, name, ("pull", *engine.pull_options, name))
        for engine in stage.root
    }
    contestants["tar -xz"] = _untar(stage, f"{stage.large}.layer.gz")
    return compare("pull", contestants, max(3, stage.rounds // 3))


def load(stage: Stage) -> Comparison:
    contestants = {
        engine.name: _afresh(engine, "large:latest", ("load", "--input", stage.large))
        for engine in stage.root
    }
    contestants["tar -x"] = _untar(stage, f"{stage.large}.layer")
    return compare("load", contestants, max(3, stage.rounds // 3))


def memory(stage: Stage) -> Comparison:
    """What keeps twenty idle containers: all but the containers' own processes."""
    samples: dict[str, list[float]] = {}
    absent: dict[str, str] = {}
    for engine in stage.root:
        try:
            with _idle_of(engine, 20):
                engine.settle()
                daemons = engine.daemons()
                kept = [pid for pid in keepers(engine.directory, IDLE[0]) if pid not in daemons]
                samples[engine.name] = [pss(kept)]
                if daemons:
                    samples[f"{engine.name}'s daemons"] = [pss(daemons)]
        except CannotMeasure as error:
            absent[engine.name] = str(error)
    return Comparison(title="memory, 20 idle containers", unit="MB", samples=samples, absent=absent)


def machine_commands(stage: Stage) -> Iterator[Comparison]:
    native = next((each for each in stage.root if isinstance(each, engines.Wherry)), None)
    if native is None:
        raise CannotMeasure("there is no native wherry to compare with")
    return machine.commands(stage.ground, stage.rounds, native)


CASES: dict[str, Callable[[Stage], Comparison | Iterator[Comparison]]] = {
    "run-none": lambda stage: run_network(stage, "none"),
    "run-host": lambda stage: run_network(stage, "host"),
    "run-bridge": networks.run_bridge,
    "run-many": networks.run_many,
    "ports-in": lambda stage: networks.ports(stage, "in"),
    "ports-out": lambda stage: networks.ports(stage, "out"),
    "names": networks.names,
    "rootless": run_rootless,
    "rootless-run": networks.run_rootless,
    "rootless-own": networks.run_on_own,
    "rootless-ports-in": lambda stage: networks.ports(stage, "in", rootless=True),
    "rootless-ports-out": lambda stage: networks.ports(stage, "out", rootless=True),
    "own-ports-in": lambda stage: networks.ports(stage, "in", rootless=True, own=True),
    "own-ports-out": lambda stage: networks.ports(stage, "out", rootless=True, own=True),
    "rootless-names": lambda stage: networks.names(stage, rootless=True),
    "exec": exec_true,
    "life": lifecycle,
    "ps": ps,
    "pull": pull,
    "load": load,
    "build-fresh": builds.build_fresh,
    "build-cached": builds.build_cached,
    "build-fresh-rootless": builds.build_fresh_rootless,
    "build-cached-rootless": builds.build_cached_rootless,
    "build-small-files": builds.build_small_files,
    "build-small-files-again": builds.build_small_files_again,
    "build-large-file": builds.build_large_file,
    "build-large-file-again": builds.build_large_file_again,
    "memory": memory,
    "machine-cold": lambda stage: machine.cold(stage.ground, stage.rounds),
    "machine-commands": machine_commands,
    "machine-files": lambda stage: machine.files_and_ports(stage.ground, stage.rounds),
    "machine-idle": lambda stage: machine.idle(stage.ground),
    "machine-image": lambda stage: machine.image(),
}


def _run(engine: engines.Engine, network: str) -> Sample:
    return timed_commands(engine, ("run", "--rm", network, *engine.options, "busybox", "true"))


def _afresh(engine: engines.Engine, image: str, argv: tuple[str, ...]) -> Sample:
    def sample() -> float:
        taken = timed(lambda: engine(*argv))
        engine("rmi", image)
        return taken

    return sample


def _program(stage: Stage, argv: list[str]) -> Sample:
    def sample() -> float:
        stage.peers.enter()
        return timed(lambda: _run_program(argv))

    return sample


def _untar(stage: Stage, layer: str) -> Sample:
    """What unpacking the image's layer costs a program that does nothing else."""

    def sample() -> float:
        with tempfile.TemporaryDirectory(dir=stage.directory) as target:
            return timed(lambda: _run_program(["tar", "-xf", layer, "-C", target]))

    return sample


def _run_program(argv: list[str]) -> None:
    try:
        must(argv, stdout=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise CannotMeasure("not installed") from error


@contextlib.contextmanager
def _idle(stage: Stage, count: int) -> Iterator[None]:
    """While each engine has `count` idle containers, named idle-0, idle-1, …

    An engine that cannot make them says why in the case itself.
    """
    with contextlib.ExitStack() as stack:
        for engine in stage.root:
            with contextlib.suppress(CannotMeasure):
                stack.enter_context(_idle_of(engine, count))
        yield


@contextlib.contextmanager
def _idle_of(engine: engines.Engine, count: int) -> Iterator[None]:
    names = [f"idle-{number}" for number in range(count)]
    options = ("--detach", "--network=none", *engine.options)
    try:
        for name in names:
            engine("run", *options, f"--name={name}", "busybox", *IDLE)
        yield
    finally:
        # Also where one was made that could not start; that there are fewer is no error.
        with contextlib.suppress(CannotMeasure):
            engine("rm", "--force", *names)
