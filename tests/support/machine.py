"""Layers, volumes and mounts of one user, by the functions that the commands are made of."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from support.forked import call_as
from wherry.engine.mount_preparation import prepare_mounts
from wherry.engine.mounts import resolve_mounts
from wherry.engine.runtime_mounts import oci_mounts
from wherry.volume.store import VolumeStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.world import World


class Machine:
    """One user, and where that user's layers and volumes are."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.account = world.account
        self.volumes_root = f"{world.root}/data/volumes"
        self.lower: list[str] = []

    def call(self, function: Callable[[], Any]) -> Any:
        return call_as(self.account, function)

    def layer(self, build: Callable[[str], None]) -> None:
        """One more layer on top; `build` makes its files, with a container's ids."""
        path = f"{self.world.root}/layers/{len(self.lower)}"

        def make() -> None:
            from wherry_linux.backend import LinuxRuntime

            os.makedirs(path)
            LinuxRuntime().unshared(lambda: build(path))

        self.call(make)
        self.lower.insert(0, path)

    def create(self, body: dict[str, Any], name: str = "c1") -> list[Any]:
        """What `create` does about mounts."""

        def make() -> Any:
            from wherry_linux.backend import LinuxRuntime

            runtime = LinuxRuntime()
            volumes = VolumeStore(self.volumes_root, runtime.unshared)
            directory = self.directory(name)
            os.makedirs(directory, exist_ok=True)
            points = resolve_mounts(
                body,
                volumes=volumes,
                mounts_of_container=lambda other: [],
                image_layers=lambda image: list(reversed(self.lower)),
            )
            prepare_mounts(
                points,
                directory=directory,
                lower=self.lower,
                user=body.get("User", ""),
                runtime=runtime,
                volumes=volumes,
            )
            return points

        return list(self.call(make))

    def inside(self, function: Callable[[], Any]) -> Any:
        """A function with the ids of a container."""
        from wherry_linux.backend import LinuxRuntime

        return self.call(lambda: LinuxRuntime().unshared(function))

    def data(self, name: str) -> str:
        return f"{self.volumes_root}/{name}/_data"

    def directory(self, name: str = "c1") -> str:
        return f"{self.world.root}/data/containers/{name}"

    def mounted(self, points: list[Any], function: Callable[[str], Any], name: str = "c1") -> Any:
        """A function of a root directory that has these mounts."""

        def call() -> Any:
            from wherry_linux.backend import LinuxRuntime

            runtime = LinuxRuntime()

            def within() -> Any:
                path = f"{self.directory(name)}/tree"
                os.makedirs(path, exist_ok=True)
                runtime.mount_into(
                    os.open(os.path.dirname(path), os.O_PATH),
                    {"destination": "tree", "type": "tmpfs", "source": "tmpfs", "options": []},
                )
                root = os.open(path, os.O_PATH)
                entries = oci_mounts(
                    points,
                    directory=self.directory(name),
                    volumes=VolumeStore(self.volumes_root),
                    layer_path=str,
                )
                for entry in entries:
                    runtime.mount_into(root, entry)
                return function(path)

            return runtime.unshared(within, mounts=True)

        return self.call(call)
