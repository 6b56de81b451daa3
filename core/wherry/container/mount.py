"""What `-v` and `--mount` say, in docker's grammar and with docker's refusals.

Both become the Mount of the Docker Engine API. Targets are paths of the container and
so POSIX paths everywhere; sources of binds are paths of the host.
"""

from __future__ import annotations

import os
import posixpath

from wherry.errors import UsageError
from wherry.words import read_bool, read_bytes, split_csv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from wherry.container.spec import CreateBody, Mount, WherryMount

_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_CONSISTENCIES = ("default", "consistent", "cached", "delegated")
_FLAGS = ("exec", "noexec", "dev", "nodev", "suid", "nosuid")
_NAME_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_NAME_REST = _NAME_FIRST | frozenset("_.-")


def is_name(text: str) -> bool:
    """Whether `text` can name a container or a volume: [a-zA-Z0-9][a-zA-Z0-9_.-]+."""
    return len(text) > 1 and text[0] in _NAME_FIRST and _NAME_REST.issuperset(text)


def mounts_of(body: CreateBody) -> list[Mount]:
    """All mounts of a (merged) body in one shape: Binds, Mounts, then the volumes without a name.

    tmpfs mounts of `--tmpfs` are not among them, but may not meet them either.
    """
    host = body.get("HostConfig") or {}
    mounts = [parse_bind(text) for text in host.get("Binds") or ()]
    mounts += host.get("Mounts") or ()
    taken = {clean_target(path) for path in host.get("Tmpfs") or ()}
    for mount in mounts:
        target = clean_target(mount["Target"])
        if target in taken:
            raise UsageError(f"Duplicate mount point: {target}")
        taken.add(target)
    for path in body.get("Volumes") or ():
        if clean_target(path) not in taken:
            mounts.append({"Type": "volume", "Source": "", "Target": clean_target(path)})
    return mounts


def clean_target(path: str) -> str:
    """A container path without `.`, `..` and doubled slashes."""
    return "/" + posixpath.normpath(path).lstrip("/")


def check_target(path: str, kind: str) -> None:
    """Raise UsageError where nothing can be mounted on `path`."""
    if not path.startswith("/"):
        raise UsageError(
            f'invalid mount config for type "{kind}": invalid mount path: '
            f"'{path}' mount path must be absolute"
        )
    if clean_target(path) == "/":
        raise UsageError(f"invalid mount config for type \"{kind}\": destination can't be '/'")


# ---- -v ----


def split_volume(text: str) -> list[str]:
    """The parts of `-v`; a drive (`C:\\x`, `C:/x`, `\\\\?\\C:\\x`) is no part of its own."""
    parts = text.split(":")
    letter = parts[0].removeprefix("\\\\?\\")
    if len(parts) > 2 and _is_drive(letter, parts[1]) and parts[2].startswith("/"):
        parts[:2] = [f"{parts[0]}:{parts[1]}"]
    return parts


def _is_drive(letter: str, rest: str) -> bool:
    # A volume's name has two letters at least, so one letter can only be a drive.
    return len(letter) == 1 and letter.isalpha() and rest[:1] in ("\\", "/") and rest != "/"


def is_path(source: str) -> bool:
    """Whether the source of `-v` is a path of the host, and not a volume's name."""
    return source[:1] in ("/", ".", "~", "\\") or (
        source[1:2] == ":" and _is_drive(source[0], source[2:])
    )


def absolute_source(source: str) -> str:
    """A host path as it is from everywhere: `~` and the current directory put in."""
    if source == "~" or source.startswith(("~/", "~\\")):
        source = os.path.expanduser(source)
    if source[1:2] == ":" and os.name != "nt":
        return source
    return os.path.abspath(source)


def absolute_bind(text: str) -> str:
    """`-v` with its host path made absolute."""
    source, *rest = split_volume(text)
    if rest and is_path(source):
        return ":".join((absolute_source(source), *rest))
    return text


def place_bind(text: str, place: Callable[[str], str]) -> str:
    """`-v`, absolute, with its host path put through `place`."""
    source, *rest = split_volume(text)
    return ":".join((place(source), *rest)) if rest and is_path(source) else text


def place_mount(text: str, place: Callable[[str], str]) -> str:
    """`--mount` with the host path of a bind put through `place`."""
    mount = parse_mount(text)
    if mount["Type"] != "bind":
        return text
    return write_mount({**mount, "Source": place(mount["Source"])})


def parse_bind(text: str) -> Mount:
    """What one `-v SOURCE:TARGET[:OPTIONS]` (or `-v TARGET`) means."""
    parts = split_volume(text)
    if not text:
        raise UsageError("invalid empty volume spec")
    if len(parts) > 3:
        raise UsageError(f"invalid spec: {text}: too many colons")
    if not all(parts):
        raise UsageError(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        check_target(text, "volume")
        return {"Type": "volume", "Source": "", "Target": clean_target(text)}
    source, target = parts[:2]
    if len(parts) == 2 and _is_mode(target):
        raise UsageError(f"invalid volume specification: '{text}'")
    mount: Mount
    if is_path(source):
        check_target(target, "bind")
        mount = {"Type": "bind", "Source": source, "Target": clean_target(target)}
        mount["BindOptions"] = {"CreateMountpoint": True}
    else:
        check_target(target, "volume")
        check_volume_name(source)
        mount = {"Type": "volume", "Source": source, "Target": clean_target(target)}
    if len(parts) == 3:
        _apply_modes(mount, parts[2])
    return mount


def check_volume_name(name: str) -> None:
    """Raise UsageError where no volume can have this name."""
    if len(name) == 1:
        raise UsageError(
            "volume name is too short, names should be at least two alphanumeric characters"
        )
    if not is_name(name):
        raise UsageError(
            f'"{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host '
            "directory, use absolute path"
        )


def _is_mode(text: str) -> bool:
    try:
        _apply_modes({"Type": "bind"}, text)
    except UsageError:
        return False
    return True


def _apply_modes(mount: Mount, text: str) -> None:
    """Put the options of `-v` into `mount`; each kind of option may be there once."""
    own: WherryMount = {}
    seen: set[str] = set()
    for mode in text.split(","):
        kind = _apply_mode(mount, own, mode)
        if not kind or kind in seen:
            raise UsageError(f"invalid mode: {text}")
        seen.add(kind)
    if own:
        mount["Wherry"] = own


def _apply_mode(mount: Mount, own: WherryMount, mode: str) -> str:
    """Put one option into `mount`; its kind, or "" where there is no such option."""
    if mode in ("ro", "rw"):
        mount["ReadOnly"] = mode == "ro"
        return "access"
    if mode in ("z", "Z"):
        own["Relabel"] = mode
        return "label"
    if mode == "U":
        own["Chown"] = True
    elif mode == "O" and mount["Type"] == "bind":
        own["Overlay"] = True
    elif mode == "idmap" or mode.startswith("idmap="):
        own["IDMap"] = _checked_idmap(mode[6:])
    elif mode in _FLAGS:
        own["Flags"] = [*own.get("Flags", ()), mode]
        return f"flag {mode.removeprefix('no')}"
    elif mode == "nocopy" and mount["Type"] == "volume":
        mount["VolumeOptions"] = {"NoCopy": True}
    elif mode in _PROPAGATIONS and mount["Type"] == "bind":
        mount["BindOptions"] = {**mount.get("BindOptions", {}), "Propagation": mode}
        return "propagation"
    elif mode in ("bind", "rbind") and mount["Type"] == "bind":
        options = mount.get("BindOptions", {})
        mount["BindOptions"] = {**options, "NonRecursive": mode == "bind"}
        return "recursion"
    elif mode in _CONSISTENCIES:
        mount["Consistency"] = mode
        return "consistency"
    else:
        return ""
    return mode.partition("=")[0]


def _checked_idmap(text: str) -> str:
    from wherry.container.userns import read_idmap

    read_idmap(text)
    return text


# ---- --mount ----

_SPELLINGS = {
    "src": "source",
    "dst": "target",
    "destination": "target",
    "ro": "readonly",
    "chown": "u",
    "subpath": "volume-subpath",
}
_TYPES = ("bind", "volume", "tmpfs", "image")
_BARE = ("readonly", "volume-nocopy", "bind-nonrecursive", "bind-create-src", "u", "idmap")


def parse_mount(text: str) -> Mount:
    """What one `--mount type=…,source=…,target=…` means; a relative source is made absolute."""
    fields = _mount_fields(text)
    kind = str(fields.pop("type", "volume")).lower()
    if kind not in _TYPES:
        raise UsageError(f"mount type {kind!r} unknown: it is one of {', '.join(_TYPES)}")
    _refuse_foreign(fields, kind)
    target = str(fields.pop("target", ""))
    if not target:
        raise UsageError("target is required")
    check_target(target, kind)
    mount: Mount = {"Type": kind, "Target": clean_target(target)}  # type: ignore[typeddict-item]
    source = str(fields.pop("source", ""))
    if source or kind in ("bind", "image"):
        mount["Source"] = _mount_source(kind, source)
    if fields.pop("readonly", False):
        mount["ReadOnly"] = True
    if consistency := fields.pop("consistency", ""):
        mount["Consistency"] = str(consistency).lower()
    _OPTIONS[kind](mount, fields)
    own: WherryMount = {}
    if fields.pop("u", False):
        own["Chown"] = True
    if "idmap" in fields:
        own["IDMap"] = _checked_idmap(str(fields.pop("idmap")))
    if relabel := fields.pop("relabel", ""):
        if relabel not in ("shared", "private"):
            raise UsageError(
                f'invalid value for relabel: {relabel} (must be "shared" or "private")'
            )
        own["Relabel"] = "z" if relabel == "shared" else "Z"
    if own:
        mount["Wherry"] = own
    if fields:
        key = next(iter(fields))
        raise UsageError(f"unexpected key '{key}' in '{key}={fields[key]}'")
    return mount


def write_mount(mount: Mount) -> str:
    """A `--mount` value that `parse_mount` reads back as `mount`."""
    fields = [f"type={mount['Type']}", f"target={mount['Target']}"]
    if source := mount.get("Source"):
        fields.append(f"source={source}")
    if mount.get("ReadOnly"):
        fields.append("readonly")
    if consistency := mount.get("Consistency"):
        fields.append(f"consistency={consistency}")
    bind = mount.get("BindOptions") or {}
    if propagation := bind.get("Propagation"):
        fields.append(f"bind-propagation={propagation}")
    for recursion, key in _RECURSION.items():
        if key and bind.get(key):
            fields.append(f"bind-recursive={recursion}")
    if bind.get("CreateMountpoint"):
        fields.append("bind-create-src")
    volume = mount.get("VolumeOptions") or {}
    driver = volume.get("DriverConfig") or {}
    fields += [f"volume-label={name}={text}" for name, text in (volume.get("Labels") or {}).items()]
    fields += [f"volume-opt={name}={text}" for name, text in (driver.get("Options") or {}).items()]
    if volume.get("NoCopy"):
        fields.append("volume-nocopy")
    if subpath := volume.get("Subpath"):
        fields.append(f"volume-subpath={subpath}")
    if name := driver.get("Name"):
        fields.append(f"volume-driver={name}")
    if subpath := (mount.get("ImageOptions") or {}).get("Subpath"):
        fields.append(f"image-subpath={subpath}")
    tmpfs = mount.get("TmpfsOptions") or {}
    if size := tmpfs.get("SizeBytes"):
        fields.append(f"tmpfs-size={size}")
    if mode := tmpfs.get("Mode"):
        fields.append(f"tmpfs-mode={mode:o}")
    fields += [f"tmpfs-opt={'='.join(pair)}" for pair in tmpfs.get("Options") or ()]
    own = mount.get("Wherry") or {}
    if own.get("Chown"):
        fields.append("U=true")
    if "IDMap" in own:
        fields.append(f"idmap={own['IDMap']}")
    if relabel := own.get("Relabel"):
        fields.append(f"relabel={'shared' if relabel == 'z' else 'private'}")
    return ",".join(_quote(field) for field in fields)


def _quote(field: str) -> str:
    if "," in field or '"' in field:
        return '"' + field.replace('"', '""') + '"'
    return field


def _mount_fields(text: str) -> dict[str, Any]:
    """The fields of `--mount` by their first spelling; repeatable ones as dicts."""
    fields: dict[str, Any] = {}
    for field in split_csv(text):
        word, equals, content = field.partition("=")
        key = _SPELLINGS.get(word.lower(), word.lower())
        if not equals:
            if key not in _BARE:
                raise UsageError(f"invalid field '{field}' must be a key=value pair")
            fields[key] = "" if key == "idmap" else True
        elif key in ("volume-label", "volume-opt", "tmpfs-opt"):
            name, separator, rest = content.partition("=")
            fields.setdefault(key, {})[name] = rest if separator else None
        elif key in _BARE and key != "idmap":
            fields[key] = _boolean(word, content)
        else:
            fields[key] = content
    return fields


def _boolean(key: str, text: str) -> bool:
    try:
        return read_bool(text)
    except ValueError:
        raise UsageError(f"invalid value for {key}: {text}") from None


def _refuse_foreign(fields: Mapping[str, Any], kind: str) -> None:
    """Options of another type of mount are a mistake worth telling."""
    if kind == "image" and "volume-subpath" in fields and isinstance(fields, dict):
        fields["image-subpath"] = fields.pop("volume-subpath")
    for key in fields:
        prefix = key.partition("-")[0]
        if "-" in key and prefix in _TYPES and prefix != kind:
            raise UsageError(f"cannot mix '{prefix}-*' options with mount type '{kind}'")


def _mount_source(kind: str, source: str) -> str:
    if kind == "tmpfs":
        raise UsageError('invalid mount config for type "tmpfs": field Source must be empty')
    if not source:
        raise UsageError(f'invalid mount config for type "{kind}": field Source must not be empty')
    if kind == "volume":
        check_volume_name(source)
    elif kind == "bind":
        if not is_path(source):
            raise UsageError(
                f"invalid mount config for type \"bind\": invalid mount path: '{source}' "
                "mount path must be absolute"
            )
        return absolute_source(source)
    return source


_RECURSION = {
    "enabled": "",
    "disabled": "NonRecursive",
    "writable": "ReadOnlyNonRecursive",
    "readonly": "ReadOnlyForceRecursive",
}


def _bind_options(mount: Mount, fields: dict[str, Any]) -> None:
    options: dict[str, Any] = {}
    if propagation := fields.pop("bind-propagation", ""):
        if propagation.lower() not in _PROPAGATIONS:
            raise UsageError(f"invalid value for bind-propagation: {propagation}")
        options["Propagation"] = propagation.lower()
    if fields.pop("bind-nonrecursive", False):
        options["NonRecursive"] = True
    if recursion := fields.pop("bind-recursive", ""):
        if recursion not in _RECURSION:
            raise UsageError(
                f"invalid value for bind-recursive: {recursion} "
                '(must be "enabled", "disabled", "writable", or "readonly")'
            )
        if _RECURSION[recursion]:
            options[_RECURSION[recursion]] = True
    if options.get("ReadOnlyForceRecursive"):
        where = "option 'bind-recursive=readonly' requires"
        if not mount.get("ReadOnly"):
            raise UsageError(f"{where} 'readonly' to be specified in conjunction")
        if options.get("Propagation") not in ("rprivate", None):
            raise UsageError(f"{where} 'bind-propagation=rprivate' to be specified in conjunction")
    if fields.pop("bind-create-src", False):
        options["CreateMountpoint"] = True
    if options:
        mount["BindOptions"] = options  # type: ignore[typeddict-item]


def _volume_options(mount: Mount, fields: dict[str, Any]) -> None:
    options: dict[str, Any] = {}
    if fields.pop("volume-nocopy", False):
        options["NoCopy"] = True
    if labels := fields.pop("volume-label", None):
        options["Labels"] = {name: text or "" for name, text in labels.items()}
    if subpath := fields.pop("volume-subpath", ""):
        if subpath.startswith("/") or ".." in subpath.split("/"):
            raise UsageError(f"volume-subpath must be a relative path inside the volume: {subpath}")
        options["Subpath"] = subpath
    driver: dict[str, Any] = {}
    if name := fields.pop("volume-driver", ""):
        driver["Name"] = name
    if given := fields.pop("volume-opt", None):
        driver["Options"] = {name: text or "" for name, text in given.items()}
    if driver:
        options["DriverConfig"] = driver
    if options:
        mount["VolumeOptions"] = options  # type: ignore[typeddict-item]


def _image_options(mount: Mount, fields: dict[str, Any]) -> None:
    if subpath := fields.pop("image-subpath", ""):
        if subpath.startswith("/") or ".." in subpath.split("/"):
            raise UsageError(f"image-subpath must be a relative path inside the image: {subpath}")
        mount["ImageOptions"] = {"Subpath": subpath}


def _tmpfs_options(mount: Mount, fields: dict[str, Any]) -> None:
    options: dict[str, Any] = {}
    if size := fields.pop("tmpfs-size", ""):
        try:
            options["SizeBytes"] = read_bytes(size)
        except ValueError:
            raise UsageError(f"invalid value for tmpfs-size: {size}") from None
    if mode := fields.pop("tmpfs-mode", ""):
        try:
            options["Mode"] = int(mode, 8)
        except ValueError:
            raise UsageError(f"invalid value for tmpfs-mode: {mode}") from None
    if given := fields.pop("tmpfs-opt", None):
        options["Options"] = [
            [name] if text is None else [name, text] for name, text in given.items()
        ]
    if options:
        mount["TmpfsOptions"] = options  # type: ignore[typeddict-item]


_OPTIONS = {
    "bind": _bind_options,
    "volume": _volume_options,
    "image": _image_options,
    "tmpfs": _tmpfs_options,
}
