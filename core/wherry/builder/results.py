"""What a build leaves, and what it begins with: images, files and caches, as steps."""

from __future__ import annotations

import sys
import time

from wherry.builder.outputs import keep_images, squash
from wherry.builder.stage import Step
from wherry.errors import WherryError
from wherry.image.reference import parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from typing import Any

    from wherry.builder.exchange import Cache
    from wherry.builder.export import Output
    from wherry.builder.progress import Progress
    from wherry.builder.request import BuildRequest
    from wherry.builder.stage import StageBuild
    from wherry.engine import Engine

    Steps = Generator[Step, Any, None]


def bring_cache(engine: Engine, request: BuildRequest, cache: Cache) -> Steps:
    """Have what a cache holds; to build without it only takes longer."""
    from wherry.builder.exchange import bring

    def work() -> dict[str, Any]:
        try:
            count = bring(engine, cache, request.pull_options)
            print(f"{count} steps")
        except WherryError as error:
            print(f"warning: {error.message}", file=sys.stderr)
        return {}

    yield Step(name=f"importing cache manifest from {cache.place}", work=work)


def leave_cache(targets: Sequence[StageBuild], cache: Cache) -> Steps:
    """Leave what the steps of this build have made, for others."""
    from wherry.builder.exchange import chosen, send

    build = targets[0].build
    found = [each for one in targets for each in chosen(one.build.records, cache, one.layers)]
    # Builds for several platforms have steps in common.
    records = list({record["Keys"][0]: record for record in found}.values())

    def work() -> dict[str, Any]:
        try:
            send(build.engine, cache, records, build.request.pull_options)
        except WherryError as error:
            if not cache.ignores_errors:
                raise
            print(f"warning: {error.message}", file=sys.stderr)
        return {}

    yield Step(name=f"exporting cache to {cache.place}", work=work)


def export_images(targets: Sequence[StageBuild], found: dict[str, Any]) -> Steps:
    """Keep what was built as an image; `found` gets its "id" and "descriptor"."""
    engine, request = targets[0].build.engine, targets[0].build.request
    tags = [*request.tags, *(name for output in request.outputs for name in output.names)]
    pushes = any(output.push for output in request.outputs)

    def work() -> dict[str, Any]:
        started = time.monotonic()
        if request.squash or request.squash_all:
            for stage in targets:
                squash(stage, everything=request.squash_all)
        image_id, descriptor = keep_images(engine.image_store, targets, tags)
        print(f"writing image {image_id} {time.monotonic() - started:.1f}s done")
        for tag in tags:
            print(f"naming to {parse_reference(tag).canonical()} done")
        for tag in tags if pushes else ():
            engine.images.push(parse_reference(tag), request.pull_options)
            descriptor = engine.image_store.find(tag).descriptor
        if len(targets) > 1:
            image_id = descriptor["digest"]
        return {"id": image_id, "descriptor": descriptor}

    result = yield Step(name="exporting to image", work=work)
    found.update(result)


def write(targets: Sequence[StageBuild], output: Output, progress: Progress) -> None:
    """Have an output that is no image of the store."""
    from wherry.builder.export import export

    number = progress.begin(f"exporting to {output.kind}")
    started = time.monotonic()
    try:
        export(targets, output)
    except WherryError as error:
        progress.fail(number, error.message)
        raise
    progress.end(number, time.monotonic() - started)
