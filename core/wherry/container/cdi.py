"""CDI, the Container Device Interface (github.com/cncf-tags/container-device-interface).

What a vendor's specification says of a device, and what of it becomes a part of
runtime-spec. All here are functions of documents, so that they can be tested anywhere.
"""

from __future__ import annotations

from wherry.errors import NotFound, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from wherry.oci.runtime_spec import Hook, Mount, Spec

    Document = Mapping[str, Any]
    # The full names of devices, and what each of them changes.
    Devices = dict[str, list[Document]]

DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
"""Where specifications are; the later ones are stronger."""

_VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0",
             "1.1.0")  # fmt: skip
_HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_LISTS = ("env", "deviceNodes", "mounts", "hooks", "additionalGids", "netDevices")


def check_document(document: Any) -> None:
    """Raise UsageError where a specification is not one, or says what cannot be."""
    if not isinstance(document, dict):
        raise UsageError("it is not an object")
    version = str(document.get("cdiVersion", "")).removeprefix("v")
    if version not in _VERSIONS:
        raise UsageError(f"cdiVersion {version!r} is not known: it is 0.1.0 to {_VERSIONS[-1]}")
    kind = document.get("kind")
    if not isinstance(kind, str) or not _is_kind(kind):
        raise UsageError(f"kind {kind!r} is not of the form vendor.com/class")
    devices = document.get("devices")
    if not isinstance(devices, list) or not devices:
        raise UsageError("it has no devices")
    names: set[str] = set()
    for device in devices:
        name = device.get("name") if isinstance(device, dict) else None
        if not isinstance(name, str) or not _is_name(name, "_-.:"):
            raise UsageError(f"device {name!r} has no proper name")
        if name in names:
            raise UsageError(f"device {name!r} is there twice")
        names.add(name)
        _check_edits(device.get("containerEdits"), f"device {name!r}")
    _check_edits(document.get("containerEdits"), "containerEdits")


def _is_kind(kind: str) -> bool:
    vendor, slash, device_class = kind.partition("/")
    return (
        bool(slash)
        and vendor[:1].isalpha()
        and device_class[:1].isalpha()
        and _is_name(vendor, "_-.")
        and _is_name(device_class, "_-.")
    )


def _is_name(text: str, between: str) -> bool:
    """Letters and digits at the ends, and `between` as well between them."""
    return (
        text.isascii()
        and text[:1].isalnum()
        and text[-1:].isalnum()
        and all(letter.isalnum() or letter in between for letter in text)
    )


def _check_edits(edits: Any, where: str) -> None:
    if edits is None:
        return
    if not isinstance(edits, dict):
        raise UsageError(f"{where}: containerEdits is not an object")
    for key in _LISTS:
        if not isinstance(edits.get(key) or [], list):
            raise UsageError(f"{where}: {key} is not a list")
    for entry in edits.get("env") or ():
        if not isinstance(entry, str) or entry.find("=") < 1:
            raise UsageError(f"{where}: env {entry!r} is not NAME=value")
    for node in edits.get("deviceNodes") or ():
        _check_node(node, where)
    for mount in edits.get("mounts") or ():
        if not (_has_text(mount, "hostPath") and _has_text(mount, "containerPath")):
            raise UsageError(f"{where}: a mount needs hostPath and containerPath")
    for hook in edits.get("hooks") or ():
        if not _has_text(hook, "path") or not _has_text(hook, "hookName"):
            raise UsageError(f"{where}: a hook needs hookName and path")
        if hook["hookName"] not in _HOOKS:
            raise UsageError(f"{where}: there is no hook {hook['hookName']!r}")
    for device in edits.get("netDevices") or ():
        if not (_has_text(device, "hostInterfaceName") and _has_text(device, "name")):
            raise UsageError(f"{where}: a network device needs hostInterfaceName and name")
    for group in edits.get("additionalGids") or ():
        if not isinstance(group, int) or group < 0:
            raise UsageError(f"{where}: additionalGids {group!r} is no group")


def _check_node(node: Any, where: str) -> None:
    if not _has_text(node, "path"):
        raise UsageError(f"{where}: a device node needs a path")
    if node.get("type", "") not in ("", "b", "c", "u", "p"):
        raise UsageError(f"{where}: {node['path']} has the unknown type {node['type']!r}")
    if set(str(node.get("permissions") or "")) - set("rwm"):
        raise UsageError(
            f"{where}: {node['path']} has the unknown permissions {node['permissions']!r}"
        )


def _has_text(entry: Any, key: str) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get(key), str) and bool(entry[key])


def devices_of(document: Document) -> Devices:
    """The devices of a specification by their full names, each with the edits that it needs."""
    common = document.get("containerEdits")
    return {
        f"{document['kind']}={device['name']}": [
            edits for edits in (common, device.get("containerEdits")) if edits
        ]
        for device in document["devices"]
    }


def edits_for(names: Sequence[str], devices: Devices) -> list[Document]:
    """What the named devices change, in order; what several of them share, once.

    Raises NotFound.
    """
    if missing := [name for name in names if name not in devices]:
        raise NotFound(
            f"CDI device injection failed: unresolvable CDI devices {', '.join(missing)}"
        )
    found: list[Document] = []
    for name in names:
        found += [edits for edits in devices[name] if not any(edits is one for one in found)]
    return found


# ---- device requests ----

_VENDORS = {"": ("nvidia.com", "amd.com"), "nvidia": ("nvidia.com",), "amd": ("amd.com",)}


def requested_names(request: Document, devices: Devices) -> list[str]:
    """The devices that `--device vendor/class=name` or `--gpus` asks for. Raises NotFound."""
    driver = request.get("Driver") or ""
    if driver == "cdi":
        return list(request.get("DeviceIDs") or ())
    kinds = request.get("Capabilities") or [["gpu"]]
    wants_gpus = any("gpu" in each for each in kinds)
    for vendor in _VENDORS.get(driver, ()) if wants_gpus else ():
        prefix = f"{vendor}/gpu="
        known = [name.removeprefix(prefix) for name in devices if name.startswith(prefix)]
        if known:
            return [prefix + name for name in _chosen_gpus(request, known)]
    shown = " ".join(f"[{' '.join(each)}]" for each in kinds)
    raise NotFound(
        f'could not select device driver "{driver}" with capabilities: [{shown}]',
        hint=f"no CDI specification in {' or '.join(DIRECTORIES)} has GPUs; for those of NVIDIA:"
        " nvidia-ctk cdi generate --format=json --output=/etc/cdi/nvidia.json",
    )


def _chosen_gpus(request: Document, known: Sequence[str]) -> list[str]:
    if chosen := request.get("DeviceIDs"):
        return list(chosen)
    count = request.get("Count") or 0
    if count < 0 and "all" in known:
        return ["all"]
    # A vendor's tool names a device several times: by its number, and by what it is.
    numbered = sorted((name for name in known if name.isdecimal()), key=int)
    each = numbered or sorted(set(known) - {"all"})
    if count > len(each):
        raise NotFound(f"{count} GPUs were requested, but there are {len(each)}")
    return each if count < 0 else each[:count]


# ---- runtime-spec ----


def apply_edits(spec: Spec, edits: Sequence[Document]) -> None:
    """Put all of `edits` into `spec` but device nodes, which are the host's to look up."""
    for one in edits:
        _set_env(spec, one.get("env") or ())
        spec.setdefault("mounts", []).extend(_mount(entry) for entry in one.get("mounts") or ())
        for hook in one.get("hooks") or ():
            hooks: dict[str, list[Hook]] = spec.setdefault("hooks", {})  # type: ignore[assignment]
            hooks.setdefault(hook["hookName"], []).append(_hook(hook))
        _add_groups(spec, one.get("additionalGids") or ())
        for device in one.get("netDevices") or ():
            entries = spec["linux"].setdefault("netDevices", {})
            entries[device["hostInterfaceName"]] = {"name": device["name"]}
        if rdt := one.get("intelRdt"):
            spec["linux"]["intelRdt"] = _rdt(rdt)


def _set_env(spec: Spec, entries: Sequence[str]) -> None:
    names = {entry.partition("=")[0] for entry in entries}
    kept = [
        entry for entry in spec["process"].get("env") or () if entry.partition("=")[0] not in names
    ]
    spec["process"]["env"] = [*kept, *entries]


def _mount(entry: Document) -> Mount:
    options = list(entry.get("options") or ())
    kind = entry.get("type") or "bind"
    if kind in ("bind", "none") and not {"bind", "rbind"} & set(options):
        options.insert(0, "rbind")
    return {
        "destination": entry["containerPath"],
        "source": entry["hostPath"],
        "type": kind,
        "options": options,
    }


def _hook(entry: Document) -> Hook:
    hook: Hook = {"path": entry["path"]}
    if entry.get("args"):
        hook["args"] = list(entry["args"])
    if entry.get("env"):
        hook["env"] = list(entry["env"])
    if entry.get("timeout"):
        hook["timeout"] = entry["timeout"]
    return hook


def _add_groups(spec: Spec, groups: Sequence[int]) -> None:
    if groups:
        user = spec["process"]["user"]
        present = user.get("additionalGids") or []
        # Group 0 is not asked for by this: it is what an empty field reads as.
        user["additionalGids"] = [*present, *(one for one in groups if one and one not in present)]


def _rdt(entry: Document) -> Any:
    """Version 1.0 had two switches where runtime-spec has one."""
    rdt = {key: entry[key] for key in _RDT if entry.get(key)}
    if entry.get("enableCMT") or entry.get("enableMBM"):
        rdt["enableMonitoring"] = True
    return rdt


_RDT = ("closID", "l3CacheSchema", "memBwSchema", "schemata", "enableMonitoring")
