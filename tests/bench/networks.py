"""The cases about networks: each engine is on a host of its own, with all rules to itself."""

from __future__ import annotations

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from bench import cgroups, engines
from bench.measure import CannotMeasure, Comparison, compare, timed, timed_commands
from support.accounts import current_account, rootless_account
from support.hosts import HOST, PrivateHost
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.cases import Stage
    from bench.engines import Engine
    from bench.measure import Sample

_ENGINES: tuple[type[Engine], ...] = (engines.Wherry, engines.Podman, engines.BridgedDocker)
_ROOTLESS: tuple[type[Engine], ...] = (engines.Wherry, engines.RootlessPodman)
# busybox has neither iperf3 nor Python: the host's are lent to it.
_HOSTS_PROGRAMS = tuple(
    word for place in ("/usr", "/lib", "/lib64") for word in ("--volume", f"{place}:{place}:ro")
)
_PORT = "5201"

# The median of many questions, in microseconds.
_ASKING = """
import socket, statistics, time
question = b"\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\6answer\\0\\0\\1\\0\\1"
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.connect(("127.0.0.11", 53))
    s.settimeout(5)
    times = []
    for _ in range(300):
        start = time.perf_counter()
        s.send(question)
        answer = s.recv(512)
        times.append(time.perf_counter() - start)
        assert answer[7] == 1, answer
print(statistics.median(times) * 1e6)
"""


def run_bridge(stage: Stage) -> Comparison:
    """`run --rm busybox true` on the default network."""
    with _on_hosts(stage, "bridge") as (there, absent):
        contestants = {engine.name: _run(engine) for engine, _ in there}
        return _compare("run, network bridge", contestants, stage.rounds, absent)


def run_rootless(stage: Stage) -> Comparison:
    """The same without root, where helpers make it: pasta for us, slirp4netns for podman."""
    with _on_hosts(stage, "rootless", rootless=True) as (there, absent):
        contestants = {engine.name: _run(engine) for engine, _ in there}
        return _compare("run, rootless, network", contestants, stage.rounds, absent)


def run_on_own(stage: Stage) -> Comparison:
    """The same on a network of the user's own that another container is on, without root."""
    with _on_hosts(stage, "own", rootless=True) as (there, absent):
        contestants = {}
        for engine, _ in there:
            try:
                engine("network", "create", "bench")
                options = ("--network=bench", *engine.options)
                engine("run", "--detach", *options, "busybox", "sleep", "1000000")
                contestants[engine.name] = _run(engine, "--network=bench")
            except CannotMeasure as error:
                absent[engine.name] = str(error)
        return _compare("run, rootless, own network", contestants, stage.rounds, absent)


def run_many(stage: Stage) -> Comparison:
    """Twenty times the same, by four who do not wait for each other."""

    def many(engine: Engine) -> Sample:
        one = _run(engine)

        def sample() -> float:
            def all_of_them() -> None:
                with ThreadPoolExecutor(4) as pool:
                    list(pool.map(lambda _: one(), range(20)))

            return timed(all_of_them)

        return sample

    with _on_hosts(stage, "many") as (there, absent):
        contestants = {engine.name: many(engine) for engine, _ in there}
        rounds = max(3, stage.rounds // 3)
        return _compare("20 runs, four at a time", contestants, rounds, absent)


def ports(stage: Stage, way: str, *, rootless: bool = False, own: bool = False) -> Comparison:
    """What a gigabyte takes by a published port, from a neighbour of the host's or to it.

    With `own`, ours is that of a container on a network of the user's own.
    """

    def transfer(host: PrivateHost) -> Sample:
        turned = ["--reverse"] if way == "out" else []

        def sample() -> float:
            done = json.loads(host.run_outside(*_IPERF, "--time", "2", *turned))
            return 8e12 / float(done["end"]["sum_received"]["bits_per_second"])

        return sample

    kind = f"{', rootless' if rootless else ''}{', own network' if own else ''}"
    with _on_hosts(stage, f"{way}{'-own' if own else ''}", rootless=rootless) as (there, absent):
        contestants = {}
        for engine, host in there:
            try:
                _serve(engine, host, own=own and engine.name == "wherry")
                contestants[engine.name] = transfer(host)
            except (CannotMeasure, TimeoutError) as error:
                absent[engine.name] = str(error)
        return _compare(
            f"published port{kind}, {way}", contestants, stage.rounds, absent, "ms for 1 GB"
        )


_IPERF = ("iperf3", "--client", HOST, "--port", _PORT, "--json")


def _serve(engine: Engine, host: PrivateHost, *, own: bool) -> None:
    network = []
    if own:
        engine("network", "create", "bench")
        network = ["--network=bench"]
    published = ("--publish", f"{_PORT}:{_PORT}", *_HOSTS_PROGRAMS)
    serving = ("/usr/bin/iperf3", "--server", "--port", _PORT)
    engine(
        "run",
        "--detach",
        "--name=serve",
        *network,
        *published,
        *engine.options,
        "busybox",
        *serving,
    )

    def answers() -> bool:
        done = host.run_outside(*_IPERF, "--bytes", "1M", check=False)
        return "sum_received" in done

    wait_until(answers, Deadline(20, "iperf3 to serve"))


def names(stage: Stage, *, rootless: bool = False) -> Comparison:
    """How long a container waits for the address of another one on its network."""

    def asking(engine: Engine) -> Sample:
        def sample() -> float:
            return float(engine.output("exec", "ask", "/usr/bin/python3", "-c", _ASKING))

        return sample

    kind = ", rootless" if rootless else ""
    with _on_hosts(stage, "names", rootless=rootless) as (there, absent):
        contestants = {}
        for engine, _ in there:
            try:
                if isinstance(engine, engines.Podman):
                    # It also keeps its networks where all of this machine's are.
                    raise CannotMeasure("it has no resolver at 127.0.0.11")
                engine("network", "create", "bench")
                for name in ("answer", "ask"):
                    options = ("--detach", f"--name={name}", "--network=bench", *_HOSTS_PROGRAMS)
                    engine("run", *options, *engine.options, "busybox", "sleep", "1000000")
                contestants[engine.name] = asking(engine)
            except CannotMeasure as error:
                absent[engine.name] = str(error)
        return _compare(f"name from inside{kind}", contestants, stage.rounds, absent, "µs")


def _run(engine: Engine, *options: str) -> Sample:
    return timed_commands(engine, ("run", "--rm", *options, *engine.options, "busybox", "true"))


def _compare(
    title: str,
    contestants: dict[str, Sample],
    rounds: int,
    absent: dict[str, str],
    unit: str = "ms",
) -> Comparison:
    compared = compare(title, contestants, rounds, unit)
    compared.absent.update(absent)
    return compared


@contextlib.contextmanager
def _on_hosts(
    stage: Stage, case: str, *, rootless: bool = False
) -> Iterator[tuple[list[tuple[Engine, PrivateHost]], dict[str, str]]]:
    """The engines that take part, and why others do not."""
    there: list[tuple[Engine, PrivateHost]] = []
    absent: dict[str, str] = {}
    account = rootless_account() if rootless else current_account()
    with contextlib.ExitStack() as stack:
        for kind in _ROOTLESS if rootless else _ENGINES:
            host = PrivateHost()
            stack.callback(host.close)
            # docker drops what is forwarded where it was not before.
            host.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
            view = cgroups.host_view() if kind is engines.Wherry else stage.peers
            # Short: podman wants no more than 50 characters for what is below.
            directory = f"{stage.directory}/{kind.name}-{case}{'-r' if rootless else ''}"
            engine = kind(directory, account, view)
            engine.prefix = host.enter_as(account)
            try:
                stack.enter_context(engine.running())
                stack.callback(_remove_all, engine)
                engine("load", "--input", stage.busybox)
            except (CannotMeasure, FileNotFoundError, TimeoutError) as error:
                absent[engine.name] = str(error)
            else:
                there.append((engine, host))
        yield there, absent


def _remove_all(engine: Engine) -> None:
    with contextlib.suppress(CannotMeasure):
        if found := engine.output("ps", "--all", "--quiet").split():
            engine("rm", "--force", *found)
