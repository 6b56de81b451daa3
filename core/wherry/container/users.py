"""Users by name, as the files of an image have them: passwd(5), group(5)."""

from __future__ import annotations

from wherry.errors import NotFound


def lookup_user(user: str, passwd: str, group: str) -> tuple[int, int]:
    """The ids of `--user NAME|UID[:GROUP|GID]`. Raises NotFound for a name that is not there."""
    name, colon, group_name = user.partition(":")
    uid, gid = _find_user(name or "0", passwd)
    if colon and group_name:
        gid = _find_group(group_name, group)
    return uid, gid


def _find_user(name: str, passwd: str) -> tuple[int, int]:
    for fields in _entries(passwd, 7):
        if name in (fields[0], fields[2]):
            return int(fields[2]), int(fields[3])
    if name.isdecimal():
        return int(name), 0
    raise NotFound(f"unable to find user {name}: no matching entries in passwd file")


def _find_group(name: str, group: str) -> int:
    for fields in _entries(group, 4):
        if name == fields[0]:
            return int(fields[2])
    if name.isdecimal():
        return int(name)
    raise NotFound(f"unable to find group {name}: no matching entries in group file")


def _entries(text: str, width: int) -> list[list[str]]:
    entries = [line.split(":") for line in text.splitlines()]
    return [
        fields
        for fields in entries
        if len(fields) >= min(width, 4) and all(one.isdecimal() for one in fields[2 : width - 3])
    ]
