"""From what `-v`, `--mount` and VOLUME say to inspect's Mounts and runtime-spec's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from wherry.container.mount import parse_bind, parse_mount
from wherry.engine.mount_preparation import may_hold
from wherry.engine.mounts import anonymous_volumes, inspect_mounts, resolve_mounts, volume_names
from wherry.engine.runtime_mounts import oci_mounts
from wherry.errors import NotFound, UsageError, WherryError
from wherry.volume.store import VolumeStore

if TYPE_CHECKING:
    from pathlib import Path

    from wherry.container.mount_points import MountPoint


class Box:
    """A container's body, and what its mounts become."""

    def __init__(self, tmp_path: Path) -> None:
        self.volumes = VolumeStore(str(tmp_path / "volumes"))
        self.directory = str(tmp_path / "container")
        self.others: dict[str, list[MountPoint]] = {}

    def resolve(self, *binds: str, **body: Any) -> list[MountPoint]:
        host = {"Binds": list(binds), **body.pop("HostConfig", {})}
        return resolve_mounts(
            {"HostConfig": host, **body},
            volumes=self.volumes,
            mounts_of_container=self.others.__getitem__,
            image_layers=lambda name: ["sha256:low", "sha256:high"],
        )

    def mounts(self, points: list[MountPoint]) -> list[Any]:
        return oci_mounts(
            points,
            directory=self.directory,
            volumes=self.volumes,
            layer_path=lambda diff_id: "/layers/" + diff_id.removeprefix("sha256:"),
        )


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_a_named_volume_is_made_and_shown_as_docker_shows_it(box: Box) -> None:
    points = box.resolve("data:/data")

    assert inspect_mounts(points) == [
        {
            "Type": "volume",
            "Name": "data",
            "Source": f"{box.volumes.root}/data/_data",
            "Destination": "/data",
            "Driver": "local",
            "Mode": "z",
            "RW": True,
            "Propagation": "",
        }
    ]
    assert box.volumes.find("data").name == "data"


def test_a_bind_is_shown_as_docker_shows_it(box: Box, tmp_path: Path) -> None:
    points = box.resolve(f"{tmp_path}:/src:ro")

    assert inspect_mounts(points) == [
        {
            "Type": "bind",
            "Source": str(tmp_path),
            "Destination": "/src",
            "Mode": "ro",
            "RW": False,
            "Propagation": "rprivate",
        }
    ]


def test_a_volume_of_the_image_is_anonymous_and_goes_with_its_container(box: Box) -> None:
    points = box.resolve("named:/named", Volumes={"/named": {}, "/data": {}})

    assert [point["Destination"] for point in points] == ["/named", "/data"]
    assert anonymous_volumes(points) == [points[1]["Name"]]
    assert box.volumes.find(points[1]["Name"]).is_anonymous
    assert volume_names(points) == ["named", points[1]["Name"]]


def test_the_names_of_anonymous_volumes_are_written_down_before_they_are_made(
    box: Box, tmp_path: Path
) -> None:
    draft = tmp_path / "draft"
    with pytest.raises(NotFound):
        resolve_mounts(
            {
                "Volumes": {"/data": {}},
                "HostConfig": {
                    "Mounts": [parse_mount("type=volume,source=x1,target=/x,volume-driver=nope")]
                },
            },
            volumes=box.volumes,
            mounts_of_container=box.others.__getitem__,
            image_layers=lambda name: [],
            draft=str(draft),
        )

    assert len(draft.read_text()) == 64 + 4


def test_volumes_from_brings_the_mounts_of_another_container(box: Box) -> None:
    box.others["db"] = box.resolve("data:/data", "logs:/logs", Volumes={"/anon": {}})

    points = box.resolve("mine:/logs", HostConfig={"VolumesFrom": ["db:ro"]}, Volumes={"/data": {}})

    found = {point["Destination"]: (point["Name"], point["RW"]) for point in points}
    assert found["/data"] == ("data", False)
    assert found["/logs"] == ("mine", True)
    # Another container's anonymous volume is not removed with this one.
    assert anonymous_volumes(points) == []
    assert len(volume_names(points)) == 3


@pytest.mark.parametrize("text", [":ro", "db:maybe"])
def test_a_bad_volumes_from_is_refused(box: Box, text: str) -> None:
    box.others["db"] = []

    with pytest.raises(UsageError):
        box.resolve(HostConfig={"VolumesFrom": [text]})


def test_a_missing_host_directory_is_made_for_v_and_refused_for_mount(
    box: Box, tmp_path: Path
) -> None:
    box.resolve(f"{tmp_path}/new/dir:/src")
    assert (tmp_path / "new" / "dir").is_dir()

    mount = parse_mount(f"type=bind,source={tmp_path}/missing,target=/src")
    with pytest.raises(UsageError, match=f"bind source path does not exist: {tmp_path}/missing"):
        box.resolve(HostConfig={"Mounts": [mount]})
    assert not (tmp_path / "missing").exists()

    made = parse_mount(f"type=bind,source={tmp_path}/missing,target=/src,bind-create-src")
    box.resolve(HostConfig={"Mounts": [made]})
    assert (tmp_path / "missing").is_dir()


def test_a_host_directory_that_cannot_be_made_is_said(box: Box, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(WherryError, match="file/dir"):
        box.resolve(f"{tmp_path}/file/dir:/src")


@pytest.mark.parametrize(
    ("modes", "options"),
    [
        ("", ["rbind", "rprivate"]),
        ("rw", ["rbind", "rprivate"]),
        ("ro", ["rbind", "rprivate", "rro"]),
        ("bind", ["bind", "rprivate"]),
        ("ro,bind", ["bind", "rprivate", "ro"]),
        ("rslave", ["rbind", "rslave"]),
        ("shared,ro", ["rbind", "shared", "rro"]),
        ("noexec,nosuid", ["rbind", "rprivate", "noexec", "nosuid"]),
        ("z", ["rbind", "rprivate"]),
        ("cached", ["rbind", "rprivate"]),
        ("idmap", ["rbind", "rprivate", "idmap"]),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="asks the kernel's version")
def test_the_options_of_v_become_the_options_of_a_mount(
    box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modes: str, options: list[str]
) -> None:
    monkeypatch.setattr("wherry.engine.runtime_mounts.kernel_version", lambda: (5, 12))
    points = box.resolve(f"{tmp_path}:/src{':' if modes else ''}{modes}")

    assert box.mounts(points) == [
        {"destination": "/src", "type": "bind", "source": str(tmp_path), "options": options}
    ]


def test_an_old_kernel_makes_only_the_mount_itself_read_only(
    box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wherry.engine.runtime_mounts.kernel_version", lambda: (5, 11))

    [mount] = box.mounts(box.resolve(f"{tmp_path}:/src:ro"))
    assert mount["options"] == ["rbind", "rprivate", "ro"]

    forced = parse_mount(
        f"type=bind,source={tmp_path},target=/src,readonly,"
        "bind-recursive=readonly,bind-propagation=rprivate"
    )
    points = box.resolve(HostConfig={"Mounts": [forced]})
    with pytest.raises(WherryError, match="bind-recursive=readonly"):
        box.mounts(points)


def test_explicit_ids_are_mappings_of_the_mount(box: Box, tmp_path: Path) -> None:
    points = box.resolve(f"{tmp_path}:/src:idmap=uids=0-1000-1#1-2000-5;gids=0-100-1")

    [mount] = box.mounts(points)

    assert mount["uidMappings"] == [
        {"containerID": 0, "hostID": 1000, "size": 1},
        {"containerID": 1, "hostID": 2000, "size": 5},
    ]
    assert mount["gidMappings"] == [{"containerID": 0, "hostID": 100, "size": 1}]


def test_o_is_an_overlay_in_the_containers_own_directory(box: Box, tmp_path: Path) -> None:
    points = box.resolve(f"{tmp_path}:/src:O")

    assert box.mounts(points) == [
        {
            "destination": "/src",
            "type": "overlay",
            "source": "overlay",
            "options": [
                f"lowerdir={tmp_path}",
                f"upperdir={box.directory}/overlays/0/upper",
                f"workdir={box.directory}/overlays/0/work",
                "userxattr",
            ],
        }
    ]


def test_an_image_is_an_overlay_of_its_layers_and_may_be_mounted_in_part(box: Box) -> None:
    asked = parse_mount("type=image,source=tools,target=/tools,image-subpath=usr/bin,readonly")

    [mount] = box.mounts(box.resolve(HostConfig={"Mounts": [asked]}))

    assert mount["type"] == "overlay"
    assert mount["options"][0] == "lowerdir=/layers/high:/layers/low"
    assert mount["options"][-2:] == ["ro", "x-wherry.subpath=usr/bin"]


def test_a_part_of_a_volume_is_found_when_it_is_mounted(box: Box) -> None:
    asked = parse_mount("type=volume,source=data,target=/x,volume-subpath=a/b")
    points = box.resolve(HostConfig={"Mounts": [asked]})

    [mount] = box.mounts(points)

    assert mount["options"][-1] == "x-wherry.subpath=a/b"
    assert "CopyUp" not in points[0]


def test_a_tmpfs_is_shown_but_mounted_by_others(box: Box) -> None:
    points = box.resolve(HostConfig={"Mounts": [parse_mount("type=tmpfs,target=/t")]})

    assert inspect_mounts(points)[0]["Type"] == "tmpfs"
    assert box.mounts(points) == []


def test_paths_with_separators_reach_overlayfs_whole(box: Box, tmp_path: Path) -> None:
    odd = tmp_path / "a,b\\c"
    odd.mkdir()
    bind = parse_bind(f"{odd}:/src:O")

    [mount] = box.mounts(box.resolve(HostConfig={"Mounts": [bind]}))

    assert mount["options"][0] == "lowerdir=" + str(odd).replace("\\", "\\\\").replace(",", "\\,")


def test_a_layer_is_asked_before_files_are_copied(tmp_path: Path) -> None:
    (tmp_path / "low" / "data").mkdir(parents=True)
    (tmp_path / "high").mkdir()
    (tmp_path / "high" / "link").symlink_to("/nowhere")
    lower = [str(tmp_path / "high"), str(tmp_path / "low")]

    assert may_hold(lower, "/data")
    assert may_hold(lower, "/link/below")
    assert not may_hold(lower, "/other")
