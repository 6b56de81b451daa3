"""Networks without root: what a run on one costs, and what goes through a published port."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING

from bench.measure import CannotMeasure, Comparison, compare, must, timed
from support.hosts import user_who_opens_tun
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench import engines
    from bench.measure import Sample

_NETWORK = "bench"
_PORTS = {"wherry": 28201, "podman": 28202}
# The host's iperf3, in any image.
_MOUNTS = tuple(f"--volume={path}:{path}:ro" for path in ("/usr", "/lib", "/lib64", "/etc/ssl"))


def run_default(contestants: list[engines.Engine], rounds: int) -> Comparison:
    """`run --rm busybox true` on the default network; podman's by slirp4netns."""
    modes = {"wherry": "bridge", "podman": "slirp4netns"}
    with _tun(contestants):
        samples = {each.name: _run(each, modes[each.name]) for each in contestants}
        return compare("run, rootless, default network", samples, rounds)


def run_network(contestants: list[engines.Engine], rounds: int) -> Comparison:
    """The same on a network of the user's own, which others are on."""
    with _tun(contestants), _networks(contestants):
        for each in contestants:
            with contextlib.suppress(CannotMeasure):
                options = ("--detach", f"--network={_NETWORK}", *each.options)
                each("run", *options, "--name=other", "busybox", "sleep", "1000000")
        try:
            samples = {each.name: _run(each, _NETWORK) for each in contestants}
            return compare("run, rootless, network", samples, rounds)
        finally:
            _remove(contestants, "other")


def published(contestants: list[engines.Engine], rounds: int, *, inwards: bool) -> Comparison:
    """A gigabyte by way of a published port, by iperf3; podman's by slirp4netns."""
    title = f"published port, rootless, {'in' if inwards else 'out'}"
    with _tun(contestants), _networks(contestants):
        try:
            samples = {each.name: _transfer(each, inwards=inwards) for each in contestants}
            for each in contestants:
                with contextlib.suppress(CannotMeasure):
                    _serve(each)
            return compare(title, samples, rounds)
        finally:
            _remove(contestants, "iperf")


def _run(engine: engines.Engine, network: str) -> Sample:
    argv = ("run", "--rm", f"--network={network}", *engine.options, "busybox", "true")
    return lambda: timed(lambda: engine(*argv))


def _serve(engine: engines.Engine) -> None:
    network = _NETWORK if engine.name == "wherry" else "slirp4netns"
    port = _PORTS[engine.name]
    options = ("--detach", "--name=iperf", f"--network={network}", f"--publish={port}:5201")
    engine("run", *options, *_MOUNTS, *engine.options, "busybox", "/usr/bin/iperf3", "-s")

    def answers() -> bool:
        try:
            _iperf(port, "-n", "1K")
        except CannotMeasure:
            return False
        return True

    wait_until(answers, Deadline(20, f"{engine.name}'s iperf3"))


def _transfer(engine: engines.Engine, *, inwards: bool) -> Sample:
    direction = () if inwards else ("--reverse",)
    return lambda: timed(lambda: _iperf(_PORTS[engine.name], "-n", "1G", *direction))


def _iperf(port: int, *options: str) -> None:
    argv = ["iperf3", "--client", "127.0.0.1", "--port", str(port), *options]
    try:
        must(subprocess.run(argv, capture_output=True, check=False, timeout=60))
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise CannotMeasure(str(error)) from error


@contextlib.contextmanager
def _tun(contestants: list[engines.Engine]) -> Iterator[None]:
    """While the users may open /dev/net/tun."""
    with contextlib.ExitStack() as stack:
        for each in contestants:
            each.prefix = stack.enter_context(user_who_opens_tun(each.account, "/"))
        yield
        for each in contestants:
            each.prefix = []


@contextlib.contextmanager
def _networks(contestants: list[engines.Engine]) -> Iterator[None]:
    for each in contestants:
        with contextlib.suppress(CannotMeasure):
            each("network", "create", _NETWORK)
    yield
    for each in contestants:
        with contextlib.suppress(CannotMeasure):
            each("network", "rm", _NETWORK)


def _remove(contestants: list[engines.Engine], name: str) -> None:
    for each in contestants:
        with contextlib.suppress(CannotMeasure):
            each("rm", "--force", name)
