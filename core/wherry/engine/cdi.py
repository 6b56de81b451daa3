"""The CDI specifications of this host, and the devices that a container has by them."""

from __future__ import annotations

import os
import stat

from wherry.container.bundle import HostDevice
from wherry.container.cdi import (
    DIRECTORIES,
    apply_edits,
    check_document,
    devices_of,
    edits_for,
    requested_names,
)
from wherry.errors import NotFound, UsageError, WherryError
from wherry.lean import load_json
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from wherry.oci.runtime_spec import LinuxDevice, Spec
    from wherry.runtime import Runtime

    Edits = list[Mapping[str, Any]]


@value
class Found:
    """The devices of all specifications, and what is wrong with those that were left out."""

    devices: dict[str, Edits]
    problems: Sequence[str]


def find_edits(requests: Sequence[Mapping[str, Any]]) -> Edits:
    """What the devices of `DeviceRequests` change. Raises NotFound."""
    if not requests:
        return []
    found = find_devices()
    try:
        names = [name for request in requests for name in requested_names(request, found.devices)]
        return edits_for(names, found.devices)
    except NotFound as error:
        raise NotFound(error.message, hint=_hint(found) or error.hint) from None


def _hint(found: Found) -> str:
    if found.problems:
        return "; ".join(found.problems)
    if found.devices:
        return f"there are {', '.join(sorted(found.devices))}"
    return ""


def find_devices(directories: Sequence[str] = DIRECTORIES) -> Found:
    """Read all specifications; a device of a later directory takes the place of one before."""
    devices: dict[str, Edits] = {}
    problems: list[str] = []
    for directory in directories:
        here: dict[str, tuple[str, Edits]] = {}
        twice: set[str] = set()
        for path in _files(directory):
            try:
                document = _read(path)
                check_document(document)
            except (OSError, ValueError, WherryError) as error:
                problems.append(f"{path} cannot be used: {error}")
                continue
            for name, edits in devices_of(document).items():
                if name in here:
                    twice.add(name)
                    problems.append(f"{name} is in {here[name][0]} and in {path}")
                here[name] = (path, edits)
        devices.update((name, edits) for name, (_, edits) in here.items())
        for name in twice:
            del devices[name]
    return Found(devices=devices, problems=problems)


def _files(directory: str) -> list[str]:
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return []
    return [f"{directory}/{name}" for name in names if name.endswith((".json", ".yaml", ".yml"))]


def _read(path: str) -> Any:
    if path.endswith(".json"):
        with open(path, "rb") as file:
            return load_json(file.read())
    try:
        import yaml
    except ImportError:
        raise UsageError(
            "YAML takes PyYAML (pip install wherry[cdi]); "
            "nvidia-ctk cdi generate --format=json does not"
        ) from None
    try:
        with open(path) as file:
            return yaml.safe_load(file)
    except yaml.YAMLError as error:
        raise UsageError(" ".join(str(error).split())) from None


# ---- into a container ----


def device_nodes(edits: Edits, runtime: Runtime) -> list[HostDevice]:
    """The device nodes of `edits`, with what the host says of those that are described in part."""
    return [
        device
        for one in edits
        for node in one.get("deviceNodes") or ()
        for device in _nodes(node, runtime)
    ]


def _nodes(node: Mapping[str, Any], runtime: Runtime) -> list[HostDevice]:
    access = node.get("permissions") or "rwm"
    if node.get("type") and (node.get("major") or node["type"] == "p"):
        device: LinuxDevice = {"type": node["type"], "path": node["path"]}
        for key in ("major", "minor"):
            device[key] = node.get(key) or 0
        found = [HostDevice(device=device, access=access)]
    else:
        found = runtime.device(node.get("hostPath") or node["path"], node["path"], access)
    own: LinuxDevice = {}
    for key in ("fileMode", "uid", "gid"):
        if node.get(key) is not None:
            own[key] = node[key]  # type: ignore[literal-required]
    if "fileMode" in own:
        own["fileMode"] = stat.S_IMODE(own["fileMode"])
    return [HostDevice(device={**one.device, **own}, access=access) for one in found]


def inject(spec: Spec, edits: Edits) -> None:
    """Put the rest of `edits` into `spec`. Raises NotFound for what the host has not got."""
    for one in edits:
        for mount in one.get("mounts") or ():
            kind = mount.get("type") or "bind"
            if kind in ("bind", "none") and not os.path.exists(mount["hostPath"]):
                raise NotFound(
                    f"CDI device injection failed: {mount['hostPath']} does not exist",
                    hint="the specification is older than the driver: make it anew",
                )
    apply_edits(spec, edits)
