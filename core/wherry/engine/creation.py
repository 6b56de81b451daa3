"""Making a container: from the create body to a record on disk.

Everything that can be wrong is found out before the record is written, which comes
last; until then the container is not there, and what it has made is taken back.
"""

from __future__ import annotations

import sys

from wherry import names, origin
from wherry.container.bundle import merge_image_config
from wherry.container.namespaces import has_own_ids, mode
from wherry.container.networks import networks_of, wanted
from wherry.container.resources import LIMITS
from wherry.container.signals import read_signal
from wherry.container.store import MARK, Container
from wherry.engine import mounts, removal
from wherry.engine.networking import check_networks
from wherry.errors import Conflict, NotFound, UsageError
from wherry.files import Lock, make_dir, write_atomic
from wherry.image.layers import missing_layers
from wherry.image.platform import foreign_architecture
from wherry.timestamps import now
from wherry.volume.store import VolumeStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from wherry.container.request import PullOptions, RunRequest
    from wherry.container.spec import CreateBody
    from wherry.container.store import ContainerStore
    from wherry.engine import Engine
    from wherry.image.store import Image


def create(
    engine: Engine, body: CreateBody, request: RunRequest, *, image: Image | None = None
) -> Container:
    """Make a container. Raises, and leaves nothing, where it cannot be.

    `image` takes the place of the one that the body names.
    """
    name = names.check_name(request.name) if request.name else ""
    if name and request.replace:
        engine.containers.replace(name)
    # Nobody removes the image before it is in the new container's record.
    with engine.image_store.held():
        return _create(engine, body, request, name, image)


def _create(
    engine: Engine, body: CreateBody, request: RunRequest, name: str, image: Image | None
) -> Container:
    store = engine.container_store
    image = image or _image(engine, body, request.pull)
    merged = merge_image_config(body, image.config if image else None)
    if image is not None and (architecture := foreign_architecture(image.config)):
        merged["Wherry"] = {**(merged.get("Wherry") or {}), "Architecture": architecture}
    userns = (body.get("HostConfig") or {}).get("UsernsMode") or ""
    if userns.startswith("keep-id") and not body.get("User"):
        merged["User"] = engine.runtime.kept_user(userns)
    _check(merged)
    check_networks(merged, engine.runtime)
    _check_links(store, merged)
    container_id = names.new_id()
    warnings = _settle_limits(engine, container_id, merged)
    directory = store.make(container_id)
    volumes = VolumeStore(unshared=engine.runtime.unshared)
    with Lock(directory):
        try:
            name = _reserve(store, name, container_id)
            container = Container(container_id, _record(container_id, name, merged, image))
            _fill(container, image, engine, volumes, request)
            if request.cid_file:
                origin.write_file(request.cid_file, container_id.encode())
        except BaseException:
            store.release_name(name, container_id)
            mounts.abandon(directory, volumes, store.volume_users)
            removal.discard_directory(directory, engine.runtime)
            raise
    container.event("create")
    for warning in warnings:
        _warn(warning)
    _warn_of_names(container, engine)
    if mode(merged, "network") == "host" and merged["HostConfig"].get("PortBindings"):
        _warn("Published ports are discarded when using host network mode")
    return container


def _settle_limits(engine: Engine, container_id: str, body: dict[str, Any]) -> list[str]:
    """Refuse the limits that this host cannot have; what to say of those it cannot hold."""
    host = body["HostConfig"]
    if not (any(host.get(key) for key in LIMITS) or (body.get("Wherry") or {}).get("CgroupConf")):
        return []
    from wherry.engine.limits import settle

    return settle(engine.runtime, container_id, body)


def _warn_of_names(container: Container, engine: Engine) -> None:
    """Say which names the container will not know: nothing answers to them on its network."""
    host = container.body["HostConfig"]
    network = mode(container.body, "network") or "default"
    asked = list(networks_of(container))
    is_alone = network == "none" or (engine.runtime.is_rootless() and asked in ([], ["bridge"]))
    lost = []
    if is_alone:
        lost += [f"--link {text}" for text in host.get("Links") or ()]
    if is_alone and network != "host":
        extra = host.get("ExtraHosts") or ()
        lost += [f"--add-host {text}" for text in extra if text.endswith("host-gateway")]
    for option in lost:
        _warn(f"{option} is left out: nothing answers to it on the network {network}")


def _warn(text: str) -> None:
    print(f"wherry: WARNING: {text}", file=sys.stderr)


def _check_links(store: ContainerStore, body: Mapping[str, Any]) -> None:
    for link in body["HostConfig"].get("Links") or ():
        name = link.partition(":")[0]
        try:
            other = store.find(name)
        except NotFound as error:
            raise NotFound(f"could not get container for {name}: {error.message}") from error
        if "bridge" in wanted(body) and "bridge" not in networks_of(other):
            raise UsageError(
                f"Cannot link to /{name}, as it does not belong to the default network"
            )


def _record(
    container_id: str, name: str, body: dict[str, Any], image: Image | None
) -> dict[str, Any]:
    return {
        "Id": container_id,
        "Name": name,
        "Created": now(),
        "Image": image.id if image else "",
        "ImageName": body.get("Image") or "",
        "Layers": list(image.diff_ids) if image else [],
        "Body": body,
        "Mounts": [],
    }


def _fill(
    container: Container,
    image: Image | None,
    engine: Engine,
    volumes: VolumeStore,
    request: RunRequest,
) -> None:
    """Everything in a new container's directory, its record last."""
    if image is not None:
        if missing_layers(image):
            engine.images.unpack(image)
        make_dir(container.path("upper"), 0o755)
        make_dir(container.path("work"), 0o700)
        if not container.is_build_step():
            write_atomic(container.path("upper", MARK), b"", mode=0o755)
    make_dir(container.path("root"), 0o755)
    container.write_state()
    if has_own_ids(container.body):
        from wherry.engine import idmaps, shifted

        idmaps.assign(container, engine.container_store, engine.runtime)
        shifted.prepare(container, container.record["Layers"], engine.runtime)
    with volumes.held():
        container.record["Mounts"] = mounts.create_mounts(
            container, engine.runtime, volumes, engine.container_store, request
        )
        container.write_record()
    mounts.forget_draft(container)


def _reserve(store: ContainerStore, name: str, container_id: str) -> str:
    if name:
        store.reserve_name(name, container_id)
        return name
    for attempt in range(100):
        made_up = names.random_name(attempt)
        try:
            store.reserve_name(made_up, container_id)
        except Conflict:
            continue
        return made_up
    raise Conflict("no name is left for a new container")


def _image(engine: Engine, body: Any, pull: PullOptions) -> Image | None:
    if (body.get("Wherry") or {}).get("Rootfs"):
        return None
    name = body.get("Image") or ""
    if not name:
        raise UsageError("no image was named")
    if pull.policy != "always":
        try:
            return engine.image_store.find(name, pull.platform or None)
        except NotFound:
            if pull.policy == "never":
                raise
    return engine.images.obtain(name, pull)


def _check(body: Mapping[str, Any]) -> None:
    """What can be refused as soon as body and image are one."""
    if not (body.get("Entrypoint") or body.get("Cmd")):
        raise UsageError(
            "no command specified",
            hint="the image has neither an entry point nor a command: say one after its name",
        )
    if body.get("StopSignal"):
        read_signal(body["StopSignal"])
    if requests := body["HostConfig"].get("DeviceRequests"):
        from wherry.engine.cdi import find_edits

        find_edits(requests)
    own = body.get("Wherry") or {}
    _check_health(body, own)
    if zone := own.get("Timezone"):
        from wherry.engine.launch import time_zone_file

        time_zone_file(zone)


def _check_health(body: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse what waits for a health check that the container has not."""
    test = (body.get("Healthcheck") or {}).get("Test") or ["NONE"]
    if test[0] != "NONE":
        return
    hint = "--health-cmd gives it one"
    if own.get("StartupHealth"):
        raise UsageError(
            "a startup check comes before a health check, and there is none", hint=hint
        )
    if own.get("SdNotify") == "healthy":
        raise UsageError("--sdnotify healthy needs a health check", hint=hint)
