"""Users by name, as the files of an image have them: passwd(5), group(5)."""

from __future__ import annotations

from wherry.errors import NotFound, UsageError

# docker's bound; the kernel keeps the last id for "none".
_LAST_ID = 2**31 - 1


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
    if _is_number(name):
        return read_id(name), 0
    raise NotFound(f"unable to find user {name}: no matching entries in passwd file")


def _find_group(name: str, group: str) -> int:
    for fields in _entries(group, 4):
        if name == fields[0]:
            return int(fields[2])
    if _is_number(name):
        return read_id(name)
    raise NotFound(f"unable to find group {name}: no matching entries in group file")


def _entries(text: str, width: int) -> list[list[str]]:
    """The lines whose ids are some; the image's author may have written anything."""
    entries = [line.split(":") for line in text.split("\n")]
    return [
        fields
        for fields in entries
        if len(fields) >= min(width, 4) and all(map(_is_id, fields[2 : width - 3]))
    ]


def read_id(text: str) -> int:
    """The id that decimal digits are. Raises UsageError."""
    if len(text) > 10 or int(text) > _LAST_ID:
        raise UsageError(f"uids and gids must be in range 0-{_LAST_ID}: {text} is not")
    return int(text)


def _is_id(text: str) -> bool:
    return _is_number(text) and len(text) < 11 and int(text) <= _LAST_ID


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
