"""What `--userns` says, in podman's grammar.

private, ns          a user namespace of its own (what everyone gets)
host                 none
container:ID         that of another container
keep-id[:uid=,gid=]  the caller is UID:GID within, by default their own numbers
nomap                the caller does not exist within
auto[:size=,uidmapping=,gidmapping=]
                     a range of ids that no other container has
"""

from __future__ import annotations

from wherry.errors import UsageError
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wherry.oci.runtime_spec import IDMapping

_LAST_ID = (1 << 32) - 2
_AUTO_HINT = "write auto:size=65536,uidmapping=INSIDE:HOST:COUNT,gidmapping=INSIDE:HOST:COUNT"


@value
class AutoUsers:
    """`--userns auto`: how many ids, and those that are mapped to what the user says."""

    # 0: as many as are usual.
    size: int = 0
    uid_maps: Sequence[IDMapping] = ()
    gid_maps: Sequence[IDMapping] = ()


def is_auto(mode: str) -> bool:
    """Whether a container gets a range of ids of its own."""
    return mode.partition(":")[0] == "auto"


def check_userns(mode: str) -> None:
    """Raise UsageError where `--userns` says nothing that there is."""
    kind, colon, rest = mode.partition(":")
    if kind == "auto":
        read_auto(mode)
    elif kind == "keep-id":
        if colon:
            read_kept(mode, 0, 0)
    elif not (
        mode in ("", "host", "private", "ns", "nomap") or (kind in ("container", "ns") and rest)
    ):
        raise UsageError("--userns: invalid USER mode", hint=f"{mode!r} is none that wherry knows")


def read_kept(mode: str, uid: int, gid: int) -> tuple[int, int]:
    """The ids within of `keep-id[:uid=N,gid=N]`, for a caller who is `uid`:`gid`."""
    kept = {"uid": uid, "gid": gid}
    _, colon, options = mode.partition(":")
    for option in options.split(",") if colon else ():
        name, _, number = option.partition("=")
        if name not in kept or not _is_id(number):
            raise UsageError(
                f'invalid --userns "{mode}"', hint="write keep-id or keep-id:uid=1000,gid=1000"
            )
        kept[name] = int(number)
    return kept["uid"], kept["gid"]


def read_auto(mode: str) -> AutoUsers:
    """What `auto[:…]` asks for. Raises UsageError."""
    size = 0
    maps: dict[str, list[IDMapping]] = {"uidmapping": [], "gidmapping": []}
    _, colon, options = mode.partition(":")
    for option in options.split(",") if colon else ():
        name, _, text = option.partition("=")
        if name == "size" and _is_id(text) and int(text):
            size = int(text)
        elif name in maps:
            maps[name].append(_read_mapping(mode, text))
        else:
            raise UsageError(f'invalid --userns "{mode}"', hint=_AUTO_HINT)
    for each in maps.values():
        _check_overlap(mode, each)
    return AutoUsers(size=size, uid_maps=maps["uidmapping"], gid_maps=maps["gidmapping"])


def _read_mapping(mode: str, text: str) -> IDMapping:
    numbers = text.split(":")
    if len(numbers) == 2:
        numbers.append("1")
    if len(numbers) != 3 or not all(map(_is_id, numbers)) or not int(numbers[2]):
        raise UsageError(f'invalid --userns "{mode}"', hint=_AUTO_HINT)
    inside, outside, size = map(int, numbers)
    if max(inside, outside) + size - 1 > _LAST_ID:
        raise UsageError(f'invalid --userns "{mode}": {text} goes beyond the last id there is')
    return {"containerID": inside, "hostID": outside, "size": size}


def _check_overlap(mode: str, maps: Sequence[IDMapping]) -> None:
    for position, one in enumerate(maps):
        for other in maps[:position]:
            for first, second in (
                (one["containerID"], other["containerID"]),
                (one["hostID"], other["hostID"]),
            ):
                if first < second + other["size"] and second < first + one["size"]:
                    raise UsageError(f'invalid --userns "{mode}": two mappings overlap')


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 11 and int(text) <= _LAST_ID


def auto_maps(first: int, size: int, fixed: Sequence[IDMapping]) -> list[IDMapping]:
    """The ids below `size` mapped from `first` on, but for those that `fixed` maps."""
    maps: list[IDMapping] = list(fixed)
    here = 0
    for entry in [*sorted(fixed, key=lambda entry: entry["containerID"]), None]:
        until = size if entry is None else min(entry["containerID"], size)
        if here < until:
            maps.append({"containerID": here, "hostID": first + here, "size": until - here})
        if entry is not None:
            here = max(here, entry["containerID"] + entry["size"])
    return sorted(maps, key=lambda entry: entry["containerID"])


def host_of(maps: Sequence[IDMapping], inside: int) -> int | None:
    """The host's id of one within; None where it is not mapped."""
    for entry in maps:
        if 0 <= inside - entry["containerID"] < entry["size"]:
            return entry["hostID"] + inside - entry["containerID"]
    return None


def inside_of(maps: Sequence[IDMapping], host: int) -> int | None:
    """The id within of one of the host's; None where it is not mapped."""
    for entry in maps:
        if 0 <= host - entry["hostID"] < entry["size"]:
            return entry["containerID"] + host - entry["hostID"]
    return None


# ---- a mount with ids of its own: `-v …:idmap=uids=FROM-TO-COUNT#…;gids=…` ----


@value
class IdRange:
    """Ids of a file system, and what they become: ids of the host, or of the container."""

    source: int
    target: int
    size: int
    is_inside: bool


def read_idmap(text: str) -> dict[str, list[IdRange]]:
    """The ranges that `idmap=…` gives, by "uids" and "gids". Raises UsageError."""
    ranges: dict[str, list[IdRange]] = {}
    for part in filter(None, text.split(";")):
        kind, equals, given = part.partition("=")
        if kind not in ("uids", "gids") or not equals or kind in ranges:
            raise UsageError(
                f"invalid idmap: {text}", hint="write idmap=uids=FROM-TO-COUNT;gids=FROM-TO-COUNT"
            )
        ranges[kind] = [_read_range(one) for one in given.split("#")]
    return ranges


def _read_range(text: str) -> IdRange:
    numbers = text.removeprefix("@").split("-")
    if len(numbers) != 3 or not all(map(_is_id, numbers)) or not int(numbers[2]):
        raise UsageError(
            f"invalid idmap range: {text}",
            hint="it reads FROM-TO-COUNT, as in uids=0-1000-1; @ before it: TO is the container's",
        )
    source, target, size = map(int, numbers)
    return IdRange(source=source, target=target, size=size, is_inside=text.startswith("@"))


def mount_maps(
    ranges: Sequence[IdRange], maps: Sequence[IDMapping] | None, *, inside: bool
) -> list[IDMapping]:
    """`ranges` as the mappings of a mount, for a container with `maps` (None for the host's).

    `inside`: to what the container sees, for who looks at its files with its ids.
    """
    if not ranges:
        return list(maps or [_EVERY_ID]) if not inside else [_EVERY_ID]
    result: list[IDMapping] = []
    for one in ranges:
        target: int | None = one.target
        if one.is_inside != inside:
            target = _translate(maps or [_EVERY_ID], one, inside=inside)
        if target is not None:
            result.append({"containerID": one.source, "hostID": target, "size": one.size})
        elif not inside:
            raise UsageError(
                f"invalid idmap range: @{one.source}-{one.target}-{one.size}",
                hint="the container has not all of these ids, or not in a row on the host",
            )
    # What is not mapped belongs to nobody; the kernel wants some mapping.
    return result or [{"containerID": _LAST_ID, "hostID": _NOBODY, "size": 1}]


_EVERY_ID: IDMapping = {"containerID": 0, "hostID": 0, "size": _LAST_ID + 1}
_NOBODY = 65534


def _translate(maps: Sequence[IDMapping], ids: IdRange, *, inside: bool) -> int | None:
    """The target of `ids` on the other side of `maps`; None where it is not in one piece."""
    for entry in maps:
        here, there = entry["containerID"], entry["hostID"]
        if inside:
            here, there = there, here
        if here <= ids.target and ids.target + ids.size <= here + entry["size"]:
            return there + ids.target - here
    return None
