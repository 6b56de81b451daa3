"""An image as docker's API tells of it. Pure, but for the sizes of its unpacked layers."""

from __future__ import annotations

from wherry.errors import UsageError
from wherry.image.layers import layer_path, layer_size
from wherry.image.reference import parse_reference
from wherry.times import parse_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.image.store import Image

SECOND = 1_000_000_000


def layer_sizes(image: Image) -> list[int]:
    """The bytes of each layer's files; those of its blob as long as it is not unpacked."""
    sizes = [layer_size(diff_id) for diff_id in image.diff_ids]
    if all(sizes):
        return sizes
    blobs = [layer["size"] for layer in image.manifest["layers"]]
    return [size or blob for size, blob in zip(sizes, blobs, strict=False)]


def created(config: dict[str, Any]) -> int:
    """When the image was made, in nanoseconds; 0 where it does not say."""
    try:
        return parse_time(config.get("created") or "")
    except UsageError:
        return 0


def familiar_names(image: Image) -> list[str]:
    """The image's tags as people write them: `busybox:latest`."""
    names = (parse_reference(name) for name in image.references)
    return [name.familiar() for name in names if name.tag and not name.digest]


def summary(image: Image) -> dict[str, Any]:
    """The entry of an image in /images/json."""
    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": familiar_names(image),
        "RepoDigests": list(image.repo_digests),
        "Created": created(image.config) // SECOND,
        "Size": sum(layer_sizes(image)),
        "SharedSize": -1,
        "Containers": -1,
        "Labels": (image.config.get("config") or {}).get("Labels") or {},
    }


_CONFIG: dict[str, Any] = {
    "Hostname": "",
    "Domainname": "",
    "User": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Env": None,
    "Cmd": None,
    "Image": "",
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
}


def inspect(image: Image) -> dict[str, Any]:
    """What docker's `image inspect` shows."""
    config = image.config
    layers = [layer_path(diff_id) for diff_id in image.diff_ids]
    lower = ":".join(reversed(layers[:-1]))
    data = {"UpperDir": layers[-1], **({"LowerDir": lower} if lower else {})} if layers else {}
    variant = {"Variant": config["variant"]} if config.get("variant") else {}
    return {
        "Id": image.id,
        "RepoTags": familiar_names(image),
        "RepoDigests": list(image.repo_digests),
        "Parent": "",
        "Comment": config.get("comment") or _last_comment(config),
        "Created": config.get("created") or "",
        "DockerVersion": config.get("docker_version") or "",
        "Author": config.get("author") or "",
        "Config": {**_CONFIG, **(config.get("config") or {})},
        "Architecture": config.get("architecture") or "",
        **variant,
        "Os": config.get("os") or "",
        "Size": sum(layer_sizes(image)),
        "GraphDriver": {"Name": "overlay2", "Data": data},
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
        "Descriptor": dict(image.descriptor),
    }


def _last_comment(config: dict[str, Any]) -> str:
    steps = config.get("history") or [{}]
    return str(steps[-1].get("comment") or "")


def history(image: Image) -> list[dict[str, Any]]:
    """The steps that made the image, the last first, as /images/NAME/history has them."""
    sizes = iter([layer_size(diff_id) for diff_id in image.diff_ids])
    steps = [
        {
            "Id": "<missing>",
            "Created": created(step) // SECOND,
            "CreatedBy": step.get("created_by") or "",
            "Tags": None,
            "Size": 0 if step.get("empty_layer") else next(sizes, 0),
            "Comment": step.get("comment") or "",
        }
        for step in image.config.get("history") or ()
    ]
    # What has layers and tells no history still has them.
    steps += [
        {
            "Id": "<missing>",
            "Created": created(image.config) // SECOND,
            "CreatedBy": "",
            "Tags": None,
            "Size": size,
            "Comment": "",
        }
        for size in sizes
    ]
    steps.reverse()
    if steps:
        steps[0].update(Id=image.id, Tags=familiar_names(image) or None)
    return steps
