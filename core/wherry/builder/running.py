"""RUN: a step is a container of ours, made and ended as any other; what it changed is a layer."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager

from wherry.container.request import RunRequest
from wherry.errors import CommandNotExecutable, WherryError
from wherry.files import write_atomic
from wherry.image.assembly import Workspace
from wherry.image.platform import host_platform, platform_of
from wherry.image.store import Image
from wherry.lean import signals
from wherry.origin import is_elsewhere
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from wherry.builder.layers import Layers
    from wherry.builder.mounts import Given
    from wherry.container.spec import CreateBody, ProcessIdentity
    from wherry.container.store import Container
    from wherry.engine import Engine

ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
"""What asks a build for its end."""

STEP_ENDING = "SIGUSR1"
"""What asks a step for it: those above may be ignored, as behind a script's `&`."""

SCRIPTS = "/dev/pipes"
"""Where a container finds the script of a heredoc."""


@value
class Run:
    """One RUN, with everything replaced."""

    argv: tuple[str, ...]
    env: tuple[str, ...]
    user: str
    directory: str
    host_config: Mapping[str, Any]
    own_config: Mapping[str, Any]
    # A program that is given to the container, at argv[0].
    script: str = ""


def run_step(
    engine: Engine,
    layers: Layers,
    run: Run,
    base: dict[str, Any],
    given: Given,
    *,
    latest: int | None,
) -> dict[str, Any]:
    """Carry a RUN out on `layers`, its output on ours, and keep its layer; see PackedLayer.

    `base` is the config document of an image with these layers. The caller holds
    `ImageStore.held()`.
    """
    from wherry.engine.creation import create
    from wherry.engine.snapshot import pack

    with Workspace(engine.image_store) as workspace:
        scripts = [_script(workspace, run)] if run.script else []
        request = RunRequest(secrets=given.contents(), layers=given.layers)
        body = _body(run, given, scripts, engine.runtime.this_process())
        ending = [getattr(signals, name) for name in (*ENDING, STEP_ENDING)]
        # Whoever wants the end gets it when the container can be removed.
        signals.pthread_sigmask(signals.SIG_BLOCK, ending)
        container = create(engine, body, request, image=_image(layers, base))
        try:
            signals.pthread_sigmask(signals.SIG_UNBLOCK, ending)
            with _told_of_platforms(base):
                _stay(engine, container, run)
            return pack(engine, container, latest=latest)
        finally:
            # Whoever has had enough presses ctrl-c more than once.
            for number in ending:
                signals.signal(number, signals.SIG_IGN)
            engine.containers.remove(container.id, force=True, volumes=True)


@contextmanager
def _told_of_platforms(base: Mapping[str, Any]) -> Iterator[None]:
    """Say of a program that cannot be executed that it is another processor's, if it is."""
    theirs, ours = platform_of(base), host_platform()
    try:
        yield
    except CommandNotExecutable as error:
        if theirs.architecture == ours.architecture:
            raise
        hint = f"programs of {theirs} run on {ours} where there is an emulator of them"
        emulator = "qemu-user-static"
        if is_elsewhere():  # nobody installs anything there
            install = f"tonistiigi/binfmt --install {theirs.architecture}"
            emulator = (
                f"until the machine stops: wherry run --rm --privileged --userns host {install}"
            )
        raise CommandNotExecutable(error.message, hint=f"{hint} ({emulator})") from error


def _script(workspace: Workspace, run: Run) -> dict[str, Any]:
    path = workspace.path("script")
    write_atomic(path, run.script.encode("utf-8", "surrogateescape"), mode=0o755)
    return {"Type": "bind", "Source": path, "Target": run.argv[0], "ReadOnly": True}


def _stay(engine: Engine, container: Container, run: Run) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    try:
        code = engine.containers.stay(container, RunRequest(), stdio=(null, 1, 2))
    finally:
        os.close(null)
    if code:
        shown = " ".join(run.argv)
        raise WherryError(
            f'process "{shown}" did not complete successfully: exit code: {code}',
            hint=_single_id_hint(engine),
        )


def _single_id_hint(engine: Engine) -> str | None:
    """What may be behind a failure of who can become nobody else."""
    if sys.platform == "linux":
        from wherry.image.unpack import mapped_ids

        if engine.runtime.unshared(mapped_ids) == 1:
            return (
                "this user has a single id, and commands can become no other: apt-get needs"
                ' `APT::Sandbox::User "root";`; `wherry doctor` shows the line that gives more ids'
            )
    return None


def _image(layers: Layers, base: dict[str, Any]) -> Image:
    """The layers as an image that has no name and no blob."""
    return Image(
        id="",
        descriptor={"mediaType": "", "digest": "", "size": 0},
        manifest={"layers": list(layers.descriptors)},
        config={**base, "config": {}, "rootfs": {"diff_ids": list(layers.diff_ids)}},
    )


def _body(
    run: Run, given: Given, scripts: list[dict[str, Any]], builder: ProcessIdentity
) -> CreateBody:
    host: Any = {
        "LogConfig": {"Type": "none", "Config": {}},
        **run.host_config,
        "Mounts": [*given.mounts, *scripts],
        "Tmpfs": given.tmpfs,
    }
    own: Any = {**run.own_config, "Build": True, "Builder": builder, "Secrets": given.secrets}
    return {
        "Cmd": list(run.argv),
        "Env": [*run.env, *given.env],
        "User": run.user,
        "WorkingDir": run.directory,
        "Hostname": "buildkitsandbox",
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": host,
        "Wherry": own,
    }
