"""`--output`: what a build leaves in the place of an image, or beside it."""

from __future__ import annotations

import errno
import os

from wherry import origin
from wherry.builder.layers import Scratch, open_layers
from wherry.builder.outputs import put_images
from wherry.builder.request import read_fields
from wherry.builder.returned import send
from wherry.errors import KernelError, UsageError
from wherry.files import Draft, make_dir, write_all
from wherry.image.reference import parse_reference
from wherry.values import replace, value
from wherry.words import join_csv, read_bool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from wherry.builder.stage import StageBuild

KINDS = ("local", "tar", "oci", "docker", "image", "registry")


@value
class Output:
    """One `--output`."""

    kind: str = "image"
    # A directory or a file; "-" for standard output.
    dest: str = ""
    push: bool = False
    names: tuple[str, ...] = ()

    @property
    def is_image(self) -> bool:
        """Whether it is an image of the store."""
        return self.kind in ("image", "registry")


def _fields(text: str) -> dict[str, str]:
    """`type=KIND,dest=PATH`, or a directory alone, or `-` for a tar. Raises UsageError."""
    if "=" not in text:
        return {"type": "tar" if text == "-" else "local", "dest": text}
    return read_fields(text)


def read_output(text: str) -> Output:
    """The output that an `--output` asks for. Raises UsageError."""
    fields = _fields(text)
    kind, dest = fields.get("type", ""), fields.get("dest", "")
    if kind not in KINDS:
        raise UsageError(f"exporter {kind!r} could not be found", hint=f"it is {', '.join(KINDS)}")
    if kind == "local" and dest in ("", "-"):
        raise UsageError("dest is required for local exporter")
    return Output(
        kind=kind,
        dest=dest or ("" if kind in ("image", "registry") else "-"),
        push=kind == "registry" or read_bool(fields.get("push", "false")),
        names=tuple(filter(None, fields.get("name", "").split(","))),
    )


def sent_back(text: str) -> str:
    """An `--output` as a build elsewhere is told of it: files come to standard output."""
    fields = _fields(text)
    if fields["type"] in ("image", "registry"):
        return text
    kind = "tar" if fields["type"] == "local" else fields["type"]
    told = {**fields, "type": kind, "dest": "-"}
    return join_csv(f"{key}={content}" for key, content in told.items())


def export(stages: Sequence[StageBuild], output: Output) -> None:
    """Write what stages have come to, one for each platform, as `output` says."""
    if output.kind == "local":
        _export_directory(stages, output.dest)
    elif output.kind == "tar":
        _written(output.dest, lambda descriptor: _write_files(stages, descriptor))
    else:
        names = [*output.names, *stages[0].build.request.tags]
        _written(output.dest, lambda descriptor: _write_archive(stages, names, descriptor))


def _written(dest: str, write: Callable[[int], None]) -> None:
    """Have a file written that is there whole or not at all; "-" is standard output."""
    if origin.is_elsewhere():
        send(write)
        return
    if dest == "-":
        write(1)
        return
    with Draft(dest) as descriptor:
        write(descriptor)


def _write_files(stages: Sequence[StageBuild], descriptor: int) -> None:
    """Write the files of stages as a tar: those of several each in a directory of its own."""
    from wherry.container.archive import pack_contents
    from wherry.engine.copy import streamed

    runtime = stages[0].build.engine.runtime
    with Scratch(runtime) as scratch:
        named = {
            str(stage.build.platform).replace("/", "_") if len(stages) > 1 else ".": stage
            for stage in stages
        }
        places = {name: scratch.place(f"whole{name}") for name in named}

        def write() -> None:
            roots = {
                name: open_layers(runtime, stage.layers.diff_ids, places[name])
                for name, stage in named.items()
            }
            try:
                with open(descriptor, "wb", buffering=1 << 16, closefd=False) as out:
                    pack_contents(roots, out)
            except BrokenPipeError as error:
                raise KernelError("nobody reads the files", errno.EPIPE) from error
            finally:
                for root in roots.values():
                    os.close(root)

        streamed(lambda: runtime.unshared(write, mounts=True))


def _export_directory(stages: Sequence[StageBuild], dest: str) -> None:
    from wherry.engine.piping import piped

    def receive(reader: int) -> None:
        with open(reader, "rb", closefd=False) as stream:
            _unpack(stream, dest)

    piped(lambda writer: _write_files(stages, writer), receive)


def _unpack(stream: Any, dest: str) -> None:
    """Make a tar stream's files in a directory; they are this user's."""
    from wherry.engine.copy import unpack_here

    unpack_here(stream, make_dir(os.path.abspath(dest), 0o755))


def keep(output: Output, stream: Any) -> None:
    """Put what a build elsewhere has sent of `output` where it belongs."""
    if output.kind == "local":
        _unpack(stream, output.dest)
        return

    def copy(descriptor: int) -> None:
        while data := stream.read(1 << 16):
            write_all(descriptor, data)

    _written(output.dest, copy)


def _write_archive(stages: Sequence[StageBuild], names: Sequence[str], descriptor: int) -> None:
    from wherry.image.blobs import complete
    from wherry.image.save import save

    engine = stages[0].build.engine
    image, described = put_images(engine.image_store, stages)
    image = replace(image, descriptor=described)
    complete(engine.image_store, image, engine.runtime.unshared)
    full = [parse_reference(name).canonical() for name in names] or [""]
    with open(descriptor, "wb", closefd=False) as out:
        save(engine.image_store, [(image, name) for name in full], out.write)
