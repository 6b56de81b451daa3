"""One build from its request to its image."""

from __future__ import annotations

import os
import sys

from wherry.builder import graph, results
from wherry.builder.base import SCRATCH, base_name
from wherry.builder.checks import check, fails, summary
from wherry.builder.errors import DockerfileError, excerpt, placed
from wherry.builder.executor import Executor, StepFailed
from wherry.builder.instructions import read_dockerfile
from wherry.builder.progress import open_progress
from wherry.builder.request import EPOCH, read_epoch
from wherry.builder.stage import StageBuild, counted
from wherry.builder.words import process_word
from wherry.errors import WherryError
from wherry.image.build_cache import BuildCache
from wherry.image.platform import host_platform, parse_platform
from wherry.timestamps import now, rfc3339
from wherry.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from wherry.builder.checks import Finding
    from wherry.builder.instructions import Dockerfile, Stage
    from wherry.builder.progress import Progress
    from wherry.builder.request import BuildRequest
    from wherry.engine import Engine
    from wherry.image.platform import Platform

_SECOND = 1_000_000_000


def build(engine: Engine, request: BuildRequest) -> dict[str, Any]:
    """Build an image; its "id" and "descriptor", nothing where no image is kept.

    Raises what is wrong, having shown where.
    """
    try:
        # What steps make leads nowhere until the image has its name.
        with (
            engine.image_store.held(),
            open_progress(request.progress, quiet=request.quiet) as progress,
        ):
            _tell_of_dockerfile(progress, request)
            builds = [Build(engine, request, platform) for platform in _platforms(request)]
            dockerfile = builds[0].dockerfile
            found = check(dockerfile)
            if found and fails(dockerfile):
                _tell_of_checks(found, request)
                rules = ", ".join(dict.fromkeys(one.rule for one in found))
                raise _failed(WherryError(f"lint violation found for rules: {rules}"))
            made = _carry_out(builds, progress)
    except StepFailed as error:
        engine.containers.all()  # what is left of a step that was killed goes
        _tell_of_failure(error, request)
        raise _failed(error) from error
    except DockerfileError as error:
        _show(request, error.first, error.last)
        raise _failed(error) from error
    _tell_of_checks(found, request)
    return made


def _tell_of_checks(found: list[Finding], request: BuildRequest) -> None:
    if found and not request.quiet:
        print(f"\n{summary(found)}", file=sys.stderr)


def _failed(error: WherryError) -> WherryError:
    failed = WherryError(f"failed to build: failed to solve: {error.message}", hint=error.hint)
    failed.exit_code = 1
    return failed


def _tell_of_failure(error: StepFailed, request: BuildRequest) -> None:
    if error.lines:
        lines = "\n".join(error.lines)
        print(f"------\n > {error.step.name}:\n{lines}\n------", file=sys.stderr)
    instruction = error.step.instruction
    if instruction is not None:
        _show(request, instruction.first, instruction.last)


def _show(request: BuildRequest, first: int, last: int) -> None:
    text = excerpt(request.dockerfile, request.dockerfile_name, first, last)
    print(text.encode("utf-8", "replace").decode(), file=sys.stderr)


class Build:
    """What the stages of a build for one platform have in common."""

    def __init__(self, engine: Engine, request: BuildRequest, platform: Platform) -> None:
        self.engine = engine
        if request.epoch is not None:
            request = replace(request, args={**request.args, EPOCH: str(request.epoch)})
        self.request = request
        self.dockerfile = _read(request)
        self.cache = BuildCache(engine.image_store)
        self.platform = platform
        self.globals = self._globals()
        # Nothing that is made gets a later time, in nanoseconds.
        epoch = read_epoch(self.globals.get(EPOCH, ""))
        self.latest = None if epoch is None else epoch * _SECOND
        # What steps have made, or found.
        self.records: list[dict[str, Any]] = []
        self.stages = [StageBuild(self, stage) for stage in self.dockerfile.stages]

    @property
    def target(self) -> StageBuild:
        """The stage that is asked for."""
        return self.stages[graph.target_stage(self.dockerfile.stages, self.request.target)]

    def needed(self) -> list[StageBuild]:
        """The stages that the target is made of, itself among them. Raises WherryError."""
        stages = self.dockerfile.stages
        chosen = graph.needed(stages, self.target.stage.index, self._base_of)
        graph.check_sources(stages, chosen)
        return [self.stages[index] for index in chosen]

    def count_steps(self) -> int:
        """How many steps these stages have."""
        stages = [each.stage for each in self.needed()]
        bases = [base_name(self, stage) for stage in stages if self._base_of(stage) is None]
        images = [name for name in bases if name != SCRATCH]
        return len({*images}) + len(images) + sum(map(counted, stages))

    def _globals(self) -> dict[str, str]:
        """The arguments of before the first FROM, and those that every build has."""
        stages = self.dockerfile.stages
        target = stages[graph.target_stage(stages, self.request.target)]
        known = {
            **_platform_arguments("TARGET", self.platform),
            **_platform_arguments("BUILD", host_platform()),
            "TARGETSTAGE": target.name or "default",
        }
        known.update({name: self.request.args[name] for name in known if name in self.request.args})
        for instruction in self.dockerfile.globals:
            for name, default in instruction.pairs:
                found = self.request.args.get(name)
                if found is None and default is not None:
                    with placed(instruction):
                        found = process_word(default, known, escape=self.dockerfile.escape)
                if found is not None:
                    known[name] = found
        if EPOCH in self.request.args:
            known[EPOCH] = self.request.args[EPOCH]
        return known

    def stage_named(self, name: str, *, before: int | None = None) -> int | None:
        """The number of the stage that `name` means here."""
        if self.request.context_named(name) is not None:
            return None
        return graph.find_stage(self.dockerfile.stages, name, before=before)

    def _base_of(self, stage: Stage) -> int | None:
        name = base_name(self, stage)
        return None if name == SCRATCH else self.stage_named(name, before=stage.index)

    def created(self, moment: str | None) -> str:
        """When something of the image was made: at `moment`, if that is known.

        What is found in the cache was made when it was made first: so the same build has
        the same image again.
        """
        if self.latest is not None:
            return rfc3339(self.latest)
        return moment or now()

    # ---- the cache ----

    def cached(self, key: str) -> dict[str, Any] | None:
        """What a step has made before."""
        return self.cache.find(key)

    def carry_out(
        self,
        key: str,
        name: str,
        work: Callable[[], dict[str, Any]],
        *,
        always: bool,
        also: str = "",
        turn: str = "",
    ) -> dict[str, Any]:
        """What a step makes, or another build has made meanwhile; runs in the step's process.

        `also` is another key that it is to be found by. Of steps with the same `turn`, or key
        where they have none, one is carried out at a time.
        """
        with self.cache.locked(turn or key):
            found = None if always else self.cache.find(key)
            if found is not None:
                return found
            packed = work()
            for line in packed["warnings"]:
                print(f"warning: {line}", file=sys.stderr)
            keys = [key, also] if also else [key]
            return {"record": self.cache.keep(keys, name, packed)}


def _tell_of_dockerfile(progress: Progress, request: BuildRequest) -> None:
    number = progress.begin(f"[internal] load build definition from {request.dockerfile_name}")
    progress.end(number, 0.0)


def _read(request: BuildRequest) -> Dockerfile:
    file = read_dockerfile(request.dockerfile)
    if not request.base:
        return file
    first = replace(file.stages[0], base=request.base)
    return replace(file, stages=(first, *file.stages[1:]))


def _platforms(request: BuildRequest) -> list[Platform]:
    """What is built for, each once."""
    return [*dict.fromkeys(map(parse_platform, request.platforms))] or [host_platform()]


def _carry_out(builds: Sequence[Build], progress: Progress) -> dict[str, Any]:
    """Carry builds of one request out side by side, and leave what it asks for; see `build`."""
    request, engine = builds[0].request, builds[0].engine
    stages = [stage for build in builds for stage in build.needed()]
    targets = [build.target for build in builds]
    caches = len(request.caches_from) + len(request.caches_to)
    progress.expect(2 + caches + sum(build.count_steps() for build in builds))
    executor = Executor(engine, progress, request.jobs or os.cpu_count() or 1)
    for cache in request.caches_from:
        executor.carry_out(results.bring_cache(engine, request, cache))
    executor.build(stages)
    found: dict[str, Any] = {}
    if not request.outputs or any(output.is_image for output in request.outputs):
        executor.carry_out(results.export_images(targets, found))
    for output in request.outputs:
        if not output.is_image:
            results.write(targets, output, progress)
    for cache in request.caches_to:
        if cache.kind != "inline":
            executor.carry_out(results.leave_cache(targets, cache))
    return found


def _platform_arguments(prefix: str, platform: Platform) -> dict[str, str]:
    return {
        f"{prefix}PLATFORM": str(platform),
        f"{prefix}OS": platform.os,
        f"{prefix}ARCH": platform.architecture,
        f"{prefix}VARIANT": platform.variant,
    }
