"""`--userns` and `idmap=`: what they say, as maps of ids."""

from __future__ import annotations

import pytest

from wherry.container.userns import auto_maps, mount_maps, read_auto, read_idmap, read_kept
from wherry.errors import UsageError


def _map(inside: int, outside: int, size: int) -> dict[str, int]:
    return {"containerID": inside, "hostID": outside, "size": size}


SHIFTED = [_map(0, 100_000, 1000), _map(1000, 5000, 1)]


@pytest.mark.parametrize(
    ("fixed", "maps"),
    [
        ([], [_map(0, 7000, 100)]),
        ([_map(0, 1, 1)], [_map(0, 1, 1), _map(1, 7001, 99)]),
        ([_map(99, 1, 1)], [_map(0, 7000, 99), _map(99, 1, 1)]),
        ([_map(50, 1, 10)], [_map(0, 7000, 50), _map(50, 1, 10), _map(60, 7060, 40)]),
        ([_map(500, 1, 1)], [_map(0, 7000, 100), _map(500, 1, 1)]),
        ([_map(90, 1, 20)], [_map(0, 7000, 90), _map(90, 1, 20)]),
        (
            [_map(20, 2, 1), _map(10, 1, 1)],
            [
                _map(0, 7000, 10),
                _map(10, 1, 1),
                _map(11, 7011, 9),
                _map(20, 2, 1),
                _map(21, 7021, 79),
            ],
        ),
    ],
)
def test_what_the_user_maps_is_left_out_of_the_range(
    fixed: list[dict[str, int]], maps: list[dict[str, int]]
) -> None:
    assert auto_maps(7000, 100, fixed) == maps  # type: ignore[arg-type]


def test_options_of_auto_are_read() -> None:
    asked = read_auto("auto:size=5000,uidmapping=0:10:2,gidmapping=3:4,uidmapping=9:9:1")

    assert asked.size == 5000
    assert list(asked.uid_maps) == [_map(0, 10, 2), _map(9, 9, 1)]
    assert list(asked.gid_maps) == [_map(3, 4, 1)]


@pytest.mark.parametrize(
    "mode",
    [
        "auto:",
        "auto:size=",
        "auto:size=-1",
        "auto:size=0",
        "auto:uidmapping=a:b:c",
        "auto:uidmapping=1:2:0",
        "auto:gidmapping=1:4294967295:1",
        "auto:uidmapping=0:5:2,uidmapping=9:6:2",
    ],
)
def test_options_of_auto_that_make_no_sense_are_refused(mode: str) -> None:
    with pytest.raises(UsageError, match="invalid --userns"):
        read_auto(mode)


def test_kept_ids_are_the_callers_unless_said() -> None:
    assert read_kept("keep-id", 1000, 100) == (1000, 100)
    assert read_kept("keep-id:uid=5,gid=6", 1000, 100) == (5, 6)
    assert read_kept("keep-id:gid=6", 1000, 100) == (1000, 6)
    for mode in ("keep-id:", "keep-id:uid=", "keep-id:uid=²", "keep-id:size=4"):
        with pytest.raises(UsageError):
            read_kept(mode, 1000, 100)


def test_idmap_maps_from_the_files_to_the_host() -> None:
    ranges = read_idmap("uids=0-100-1#5-200-10;gids=@7-3-1")

    assert mount_maps(ranges["uids"], None, inside=False) == [_map(0, 100, 1), _map(5, 200, 10)]
    assert mount_maps(ranges["gids"], SHIFTED, inside=False) == [_map(7, 100_003, 1)]  # type: ignore[arg-type]


def test_who_has_the_containers_ids_sees_what_it_sees() -> None:
    ranges = read_idmap("uids=0-5000-1#1-100007-2#2-77-1;gids=@7-3-1")

    assert mount_maps(ranges["uids"], SHIFTED, inside=True) == [_map(0, 1000, 1), _map(1, 7, 2)]  # type: ignore[arg-type]
    assert mount_maps(ranges["gids"], SHIFTED, inside=True) == [_map(7, 3, 1)]  # type: ignore[arg-type]


def test_ids_that_are_not_given_are_the_containers() -> None:
    assert mount_maps((), SHIFTED, inside=False) == SHIFTED  # type: ignore[arg-type]
    assert mount_maps((), SHIFTED, inside=True) == [_map(0, 0, 4294967295)]  # type: ignore[arg-type]
    assert mount_maps((), None, inside=False) == [_map(0, 0, 4294967295)]


def test_ids_that_the_container_has_not_are_refused() -> None:
    with pytest.raises(UsageError, match="invalid idmap range: @0-999-2"):
        mount_maps(read_idmap("uids=@0-999-2")["uids"], SHIFTED, inside=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["x", "uids", "uids=", "uids=1-2", "uids=1-2-0", "uids=1-2-3;uids=1-2-3", "uids=a-1-1"]
)
def test_idmap_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="invalid idmap"):
        read_idmap(text)
