"""The files of a container that is here, running or not.

A running container's files are reached through a descriptor of its root directory, in
its user namespace, but from our own mount namespace: every path is resolved by the
kernel with that directory as the root, so that no link of the container's, and no race
with one, leads to a file of the host, and nothing of the container's is loaded. The
tree of a stopped one, with its volumes, is mounted for the moment where only we see it.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat

from wherry.container.archive import pack_to, unpack
from wherry.engine import idmaps
from wherry.engine.copy import Files, split_source
from wherry.engine.mounts import layer_of, lower_directories
from wherry.engine.runtime_mounts import oci_mounts
from wherry.errors import Conflict, KernelError, NotFound, WherryError
from wherry.volume.store import VolumeStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from wherry.container.store import Container
    from wherry.engine.copy import Source
    from wherry.oci.runtime_spec import Mount
    from wherry.runtime import Runtime

    T = TypeVar("T")

_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
_LIVE = ("running", "paused")


class ContainerFiles(Files):
    """Those of a container that is here, running or not."""

    def __init__(self, container: Container, runtime: Runtime) -> None:
        self.container = container
        self.name = container.name
        self.runtime = runtime

    def within(self, function: Callable[[int], T]) -> T:
        """`function()` of a descriptor of the root directory, with the container's ids.

        The result crosses between processes as JSON.
        """
        container = self.container
        answer: T
        if container.reload()["Status"] not in _LIVE:
            with container.lock():
                if container.reload()["Status"] not in _LIVE:
                    answer = self._unshared(lambda: self._mounted(function))
                    return answer
        answer = self.runtime.in_container(container, function)
        return answer

    def _unshared(self, function: Callable[[], T]) -> T:
        """`function()` with the container's ids, in a mount namespace that ends with it."""
        shift = idmaps.shifted_maps(self.container)
        maps = None if shift is None else shift[0]
        answer: T = self.runtime.unshared(function, mounts=True, maps=maps)
        return answer

    def _mounted(self, function: Callable[[int], T]) -> T:
        container = self.container
        rootfs = (container.body.get("Wherry") or {}).get("Rootfs")
        target = rootfs or container.path("root")
        if not rootfs:
            lower = lower_directories(container)
            self.runtime.mount_overlay(
                lower, container.path("upper"), container.path("work"), target
            )
        root = os.open(target, _DIRECTORY)
        try:
            for mount in self._mounts():
                self.runtime.mount_into(root, mount)
            return function(root)
        finally:
            os.close(root)

    def _mounts(self) -> list[Mount]:
        """Volumes, binds and the files that the last run was given."""
        container = self.container
        volumes = VolumeStore(unshared=self.runtime.unshared)
        mounts = oci_mounts(
            container.record["Mounts"],
            directory=container.directory,
            volumes=volumes,
            layer_path=lambda diff_id: layer_of(container, diff_id),
            ids=(idmaps.own_maps(container), True),
        )
        taken = {mount["destination"] for mount in mounts}
        for name in ("hosts", "hostname", "resolv.conf"):
            source = container.path(name)
            if f"/etc/{name}" not in taken and os.path.exists(source):
                mounts.append(
                    {
                        "destination": f"/etc/{name}",
                        "type": "bind",
                        "source": source,
                        "options": ["rbind", "rprivate"],
                    }
                )
        return sorted(mounts, key=lambda mount: mount["destination"].count("/"))

    # ---- looking ----

    def stat(self, path: str) -> dict[str, Any]:
        parent, name, called = split_source(path)

        def look(root: int) -> dict[str, Any]:
            directory = self._open(root, parent, path)
            try:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                link = ""
                if stat.S_ISLNK(found.st_mode):
                    link = posixpath.join(parent, os.readlink(name, dir_fd=directory))
                return {
                    "name": called if called != "." else posixpath.basename(parent) or "/",
                    "size": found.st_size,
                    "mode": found.st_mode,
                    "mtime": found.st_mtime,
                    "linkTarget": posixpath.normpath(link) if link else "",
                }
            except OSError as error:
                raise self._missing(path, error) from error
            finally:
                os.close(directory)

        return self.within(look)

    def _open(self, root: int, directory: str, path: str) -> int:
        try:
            return self.runtime.open_in_root(root, directory, flags=_DIRECTORY)
        except KernelError as error:
            raise self._missing(path, error) from error

    def _missing(self, path: str, error: OSError | KernelError) -> WherryError:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return NotFound(f"Could not find the file {path} in container {self.container.name}")
        return WherryError(
            f"cannot open {path} in container {self.container.name}:"
            f" {os.strerror(error.errno or 0)}"
        )

    # ---- reading and writing ----

    def read(self, source: Source, called: str, writer: int) -> None:
        def read(root: int) -> None:
            directory = self._open(root, source.parent, source.parent)
            try:
                path = posixpath.join(source.parent, source.name)
                failure = f"cannot read {path} in container {self.container.name}"
                pack_to(writer, directory, source.name, called, failure)
            finally:
                os.close(directory)

        self.within(read)
        self.container.event("archive-path")

    def export(self, writer: int) -> None:
        """Write the container's own files, without what is mounted in it, as a tar stream.

        They are read from its layers: a running container's mounts are not seen there.
        """
        container = self.container

        def read() -> None:
            target = (container.body.get("Wherry") or {}).get("Rootfs")
            if not target:
                target = container.path("root")
                layers = [container.path("upper"), *lower_directories(container)]
                self.runtime.mount_overlay(layers, "", "", target)
            root = os.open(target, _DIRECTORY)
            try:
                pack_to(writer, root, ".", ".", f"cannot export container {container.name}")
            finally:
                os.close(root)

        self._unshared(read)
        container.event("export")

    def write(self, path: str, reader: int, *, keep_ids: bool) -> None:
        self._check_writable(path)

        def write(root: int) -> None:
            os.close(self._open(root, path, path))

            def open_directory(below: str) -> int:
                return self.runtime.open_in_root(
                    root, posixpath.join(path, below), create="directory", flags=_DIRECTORY
                )

            with open(reader, "rb", closefd=False) as source:
                unpack(source, open_directory, keep_ids=keep_ids)

        try:
            self.within(write)
            self.container.event("extract-to-dir")
        except KernelError as error:
            raise WherryError(
                f"cannot write to {path} in container {self.container.name}:"
                f" {os.strerror(error.errno)}"
            ) from error

    def _check_writable(self, path: str) -> None:
        """Refuse in docker's words what the kernel would refuse anyway."""
        here = posixpath.normpath("/" + path.lstrip("/"))
        host = self.container.body["HostConfig"]
        over = [
            point
            for point in self.container.record["Mounts"]
            if f"{here}/".startswith(f"{point['Destination'].rstrip('/')}/")
        ]
        if over:
            nearest = max(over, key=lambda point: len(point["Destination"]))
            if not nearest["RW"]:
                raise Conflict("mounted volume is marked read-only")
            return
        tmpfs = [posixpath.normpath(target) for target in host.get("Tmpfs") or ()]
        if host.get("ReadonlyRootfs") and not any(
            f"{here}/".startswith(f"{target}/") for target in tmpfs
        ):
            raise Conflict("container rootfs is marked read-only")
