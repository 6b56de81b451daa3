"""The second stage by wherry's own engine: a container made, run, exported and removed."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from wherry import names, paths
from wherry.container.logs import LogReader
from wherry.container.request import RunRequest
from wherry.engine.container_files import ContainerFiles
from wherry.errors import Unsupported, WherryError
from wherry.files import make_dir
from wherry_vmimage.bootstrap import bootstrap
from wherry_vmimage.image import ARCHITECTURES
from wherry_vmimage.request import target_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from wherry.container.spec import CreateBody
    from wherry.engine import Engine
    from wherry.image.progress import Progress
    from wherry.oci.image_spec import Descriptor
    from wherry_vmimage.request import Request

_SHOWN_LINES = 12
# What the images between the stages are called; nobody can have a registry of this name.
_STAGE = "bootstrap.wherry.invalid/stage"


def make_base_image(request: Request, engine: Engine, progress: Progress) -> str:
    """Make the image of `request` in the engine's store; its name."""
    stage = _Stage(engine)
    stage.sweep()
    if request.configure and not request.is_busybox:
        stage.require_ids()
        stage.require_emulator(target_of(request).architecture)
    return bootstrap(request, engine.image_store, stage.run_script, progress)


class _Stage:
    """Runs scripts in containers of images that nobody else sees; see `configure.RunScript`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def require_ids(self) -> None:
        """Raise Unsupported where a container has a single user, as packages have several."""
        maps = self._engine.runtime.id_maps("")
        if maps is not None and sum(entry["size"] for entry in maps[0]) < 1 << 16:
            raise Unsupported(
                "packages cannot be configured: this user has no range of ids of its own",
                hint="give it one: `sudo usermod --add-subuids 100000-165535 "
                "--add-subgids 100000-165535 USER`; or leave the packages unpacked with "
                "--no-configure",
            )

    def require_emulator(self, architecture: str) -> None:
        """Raise Unsupported where a container cannot run programs of `architecture`."""
        if not self._engine.runtime.runs_programs_of(ARCHITECTURES[architecture][0]):
            raise Unsupported(
                f"this machine cannot run the programs of {architecture}, "
                "which its packages' scripts need",
                hint="install qemu-user-static (before Linux 6.7 binfmt-support, too), or leave "
                "the packages unpacked with --no-configure",
            )

    def sweep(self) -> None:
        """Remove what a bootstrap left that was killed."""
        try:
            with _alone(wait=False):
                self._remove_stages()
        except BlockingIOError:
            pass  # another one is at work, and these are its own

    def _remove_stages(self) -> None:
        containers = self._engine.containers
        for container in containers.all():
            if container.record["ImageName"].startswith(_STAGE):
                containers.remove(container.id, force=True, volumes=True)
        for image in self._engine.image_store.images():
            for reference in image.references:
                if reference.startswith(_STAGE):
                    self._engine.images.remove(reference, force=True)

    @contextmanager
    def run_script(
        self, image: Descriptor, script: str, environment: Mapping[str, str]
    ) -> Iterator[IO[bytes]]:
        with _alone():
            # With a name it is not taken for what nobody needs any more.
            reference = f"{_STAGE}:{names.new_id()[:12]}"
            self._engine.image_store.tag(reference, image)
            try:
                container = self._create(reference, script, environment)
                self._run(container)
                with tempfile.TemporaryFile(dir=paths.cache()) as tar:
                    self._files(container).export(tar.fileno())
                    tar.seek(0)
                    yield tar
            finally:
                self._remove_stages()

    def _create(self, image: str, script: str, environment: Mapping[str, str]) -> str:
        body: CreateBody = {
            "Image": image,
            "Entrypoint": ["/bin/sh", "-c", script],
            "Env": [f"{name}={text}" for name, text in environment.items()],
            "User": "0:0",
            "HostConfig": {"NetworkMode": "none"},
        }
        return self._engine.containers.create(body, RunRequest())

    def _files(self, container: str) -> ContainerFiles:
        return ContainerFiles(self._engine.containers.find(container), self._engine.runtime)

    def _run(self, container: str) -> None:
        containers = self._engine.containers
        containers.start(container)
        code = containers.wait(container)
        if code:
            log = LogReader(containers.find(container).path("container.log"))
            said = "".join(record["log"] for record in log.tail(_SHOWN_LINES))
            raise WherryError(
                f"the packages' scripts failed (exit code {code})", hint=said.rstrip() or None
            )


@contextmanager
def _alone(*, wait: bool = True) -> Iterator[None]:
    """Be the only one with a second stage. Raises BlockingIOError unless `wait`.

    The lock is the process's own: a container's monitor, which is forked from it and
    may outlive it, does not have it.
    """
    if sys.platform == "win32":
        raise Unsupported("containers run on Linux only")
    import fcntl

    path = os.path.join(make_dir(paths.cache()), "bootstrap.lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
