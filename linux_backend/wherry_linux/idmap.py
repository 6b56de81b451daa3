"""Id maps of user namespaces: user_namespaces(7), newuidmap(1), subuid(5)."""

from __future__ import annotations

import os

from wherry.errors import AccessDenied, NoUserNamespace, Unsupported, WherryError
from wherry.forked import start
from wherry_linux.constants import CLONE_NEWUSER
from wherry_linux.syscalls import unshare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from wherry.oci.runtime_spec import IDMapping

# Every id there is: a map that changes no owner, in a namespace that has no power outside.
IDENTITY: list[IDMapping] = [{"containerID": 0, "hostID": 0, "size": 4294967295}]


def identity_maps() -> tuple[list[IDMapping], list[IDMapping]]:
    """For root: every id there is as itself. In a container of another tool there are fewer."""
    uids, gids = read_users("self")
    return _each_as_itself(uids), _each_as_itself(gids)


def _each_as_itself(maps: list[IDMapping]) -> list[IDMapping]:
    if maps == IDENTITY or not maps:
        return IDENTITY
    return [{**entry, "hostID": entry["containerID"]} for entry in maps]


# Who `--userns auto` takes ids of for root, as podman does; it need not be a user.
_AUTO_OWNER = "containers"
# Where no such grant is: above all that useradd(8) grants (SUB_UID_MAX), sssd(8) maps
# users of a directory to and systemd-nspawn(1) picks, and below the last that is signed.
_AUTO_RANGE = (0x78000000, 2046 << 16)


def leasable(path: str) -> list[tuple[int, int]]:
    """The ranges that containers may have for themselves, by `path` (subuid(5))."""
    if os.geteuid() != 0:
        return subordinate_ids(path, os.geteuid())
    grants = list(_grants(path))
    own = [(first, count) for owner, first, count in grants if owner == _AUTO_OWNER]
    return own or _without(_AUTO_RANGE, [(first, count) for _, first, count in grants])


def _without(whole: tuple[int, int], taken: list[tuple[int, int]]) -> list[tuple[int, int]]:
    here, end = whole[0], whole[0] + whole[1]
    left = []
    for first, count in sorted(taken):
        if here < min(first, end):
            left.append((here, min(first, end) - here))
        here = max(here, first + count)
    if here < end:
        left.append((here, end - here))
    return left


def subordinate_ids(path: str, uid: int) -> list[tuple[int, int]]:
    """The ranges (first id, how many) that `path` (subuid(5)) grants to user `uid`."""
    owners = {str(uid)}
    try:
        import pwd

        owners.add(pwd.getpwuid(uid).pw_name)
    except KeyError:
        pass
    return [(first, count) for owner, first, count in _grants(path) if owner in owners]


def _grants(path: str) -> Iterator[tuple[str, int, int]]:
    try:
        with open(path) as lines:
            for line in lines:
                fields = line.strip().split(":")
                if len(fields) != 3:
                    continue
                try:
                    first, count = int(fields[1]), int(fields[2])
                except ValueError:
                    continue
                if count > 0:
                    yield fields[0], first, count
    except OSError:
        pass


def rootless_maps(uid: int, gid: int) -> tuple[list[IDMapping], list[IDMapping]]:
    """Root inside is the caller outside, followed by the caller's subordinate ids.

    With no subordinate ids, or without newuidmap(1), only root exists inside.
    """
    uids = subordinate_ids("/etc/subuid", uid)
    gids = subordinate_ids("/etc/subgid", uid)
    if not (uids and gids and find_program("newuidmap") and find_program("newgidmap")):
        uids = gids = []
    return _stack(uid, uids), _stack(gid, gids)


def _stack(own: int, ranges: list[tuple[int, int]]) -> list[IDMapping]:
    maps: list[IDMapping] = [{"containerID": 0, "hostID": own, "size": 1}]
    following = 1
    for first, count in ranges:
        maps.append({"containerID": following, "hostID": first, "size": count})
        following += count
    return maps


def keep_id(maps: list[IDMapping], own: int, inside: int) -> list[IDMapping]:
    """`maps` changed so that host id `own` is `inside` within (podman's --userns keep-id)."""
    kept: list[IDMapping] = [{"containerID": inside, "hostID": own, "size": 1}]
    following = 0
    for entry in maps:
        if entry["hostID"] == own and entry["size"] == 1:
            continue
        first, left = entry["hostID"], entry["size"]
        while left:
            if following == inside:
                following += 1
            room = min(left, inside - following) if following < inside else left
            kept.append({"containerID": following, "hostID": first, "size": room})
            following, first, left = following + room, first + room, left - room
    return kept


def without_own(maps: list[IDMapping]) -> list[IDMapping]:
    """The subordinate ids of `rootless_maps` alone, from root on (podman's --userns nomap)."""
    rest = maps[1:]
    if not rest:
        raise Unsupported(
            "--userns nomap needs subordinate ids, and this user has none",
            hint="`wherry doctor` shows the line that grants them",
        )
    moved = [entry.copy() for entry in rest]
    for entry in moved:
        entry["containerID"] -= 1
    return moved


# An id that no image has.
_SPARE = (1 << 32) - 16


def with_own(maps: list[IDMapping], own: int) -> list[IDMapping]:
    """`maps`, and host id `own` as an id that nobody uses where they do not have it."""
    if has_host(maps, own):
        return maps
    return [*maps, {"containerID": _SPARE, "hostID": own, "size": 1}]


def within(maps: list[IDMapping], outer: list[IDMapping]) -> list[IDMapping]:
    """`maps` to ids of the host, as maps to ids of a namespace that has the maps `outer`."""
    result: list[IDMapping] = []
    for entry in maps:
        first, left, inside = entry["hostID"], entry["size"], entry["containerID"]
        while left:
            around = next((one for one in outer if 0 <= first - one["hostID"] < one["size"]), None)
            if around is None:
                raise AccessDenied(
                    f"this user may not map id {first}",
                    hint="/etc/subuid and /etc/subgid grant ids; `wherry doctor` shows the line",
                )
            offset = first - around["hostID"]
            size = min(left, around["size"] - offset)
            result.append(
                {"containerID": inside, "hostID": around["containerID"] + offset, "size": size}
            )
            first, left, inside = first + size, left - size, inside + size
    return result


def has_host(maps: list[IDMapping], number: int) -> bool:
    """Whether the host's id `number` is mapped."""
    return any(0 <= number - entry["hostID"] < entry["size"] for entry in maps)


def to_host(maps: list[IDMapping], inside: int) -> int | None:
    """The host's id of `inside`; None where it is not mapped."""
    for entry in maps:
        if 0 <= inside - entry["containerID"] < entry["size"]:
            return entry["hostID"] + inside - entry["containerID"]
    return None


def root_of(maps: tuple[list[IDMapping], list[IDMapping]]) -> tuple[int, int]:
    """The host's ids of root and its group; -1 where they are not mapped."""
    uid, gid = (to_host(kind, 0) for kind in maps)
    return -1 if uid is None else uid, -1 if gid is None else gid


def read_users(pid: int | str) -> tuple[list[IDMapping], list[IDMapping]]:
    """The maps of a process's user namespace, as they are seen from ours."""
    return read_maps(f"/proc/{pid}/uid_map"), read_maps(f"/proc/{pid}/gid_map")


def read_maps(path: str) -> list[IDMapping]:
    """What a file as /proc/PID/uid_map says; nothing where it is not there."""
    try:
        with open(path) as lines:
            rows = [list(map(int, line.split())) for line in lines]
    except OSError:
        return []
    return [{"containerID": row[0], "hostID": row[1], "size": row[2]} for row in rows]


def find_program(name: str) -> str | None:
    """The path of `name` in PATH or where administrators' programs are."""
    for directory in (*os.environ.get("PATH", "").split(":"), "/usr/bin", "/usr/sbin", "/sbin"):
        path = os.path.join(directory, name)
        # Never one in whatever directory this happens to be run in.
        if directory.startswith("/") and os.access(path, os.X_OK):
            return path
    return None


def write_maps(pid: int, uid_maps: list[IDMapping], gid_maps: list[IDMapping]) -> None:
    """Write the maps of the user namespace that process `pid` has just made.

    Root writes them itself; others may map their own id alone, and ask newuidmap(1)
    for more.
    """
    if os.geteuid() == 0:
        _write(pid, "gid_map", gid_maps)
        _write(pid, "uid_map", uid_maps)
        return
    if _is_own(uid_maps, os.geteuid()) and _is_own(gid_maps, os.getegid()):
        # user_namespaces(7): without a helper, setgroups(2) has to be given up first.
        _write_file(f"/proc/{pid}/setgroups", "deny")
        _write(pid, "gid_map", gid_maps)
        _write(pid, "uid_map", uid_maps)
        return
    # Side by side: each takes as long to start as to do its work.
    helpers = [
        (name, _start_helper(name, pid, maps))
        for name, maps in (("newgidmap", gid_maps), ("newuidmap", uid_maps))
    ]
    for name, helper in helpers:
        _expect_success(name, helper)


def open_users(uid_maps: list[IDMapping], gid_maps: list[IDMapping]) -> int:
    """A descriptor, the caller's, of a new user namespace that nobody is in."""
    alive_read, alive_write = os.pipe()
    ready_read, ready_write = os.pipe()

    def stay() -> None:
        os.close(alive_write)
        unshare(CLONE_NEWUSER)
        os.write(ready_write, b"1")
        os.read(alive_read, 1)

    child = start(stay)
    os.close(alive_read)
    os.close(ready_write)
    try:
        if not os.read(ready_read, 1):
            raise WherryError(
                "cannot make a user namespace",
                hint="`wherry doctor` tells what keeps this user from making them",
            )
        write_maps(child, uid_maps, gid_maps)
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready_read)
        os.close(alive_write)
        os.waitpid(child, 0)


def _is_own(maps: list[IDMapping], own: int) -> bool:
    return len(maps) == 1 and maps[0]["size"] == 1 and maps[0]["hostID"] == own


def _write(pid: int, name: str, maps: list[IDMapping]) -> None:
    lines = (f"{entry['containerID']} {entry['hostID']} {entry['size']}\n" for entry in maps)
    _write_file(f"/proc/{pid}/{name}", "".join(lines))


def _write_file(path: str, content: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, content.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise NoUserNamespace(
            f"cannot write {path}: {error.strerror}",
            error.errno or 0,
            hint="`wherry doctor` tells what keeps this user from making user namespaces",
        ) from error


def _start_helper(name: str, pid: int, maps: list[IDMapping]) -> int:
    program = find_program(name)
    if program is None:
        raise WherryError(f"{name} is not installed", hint="install the package uidmap")
    numbers = (
        str(number)
        for entry in maps
        for number in (entry["containerID"], entry["hostID"], entry["size"])
    )
    return os.posix_spawn(program, [name, str(pid), *numbers], os.environ)


def _expect_success(name: str, helper: int) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1])
    if status != 0:
        raise AccessDenied(
            f"{name} could not map this user's ids (exit code {status})",
            hint=f"/etc/sub{name[3]}id must grant the range; `wherry doctor` shows the line",
        )
