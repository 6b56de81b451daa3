"""What is done to images in the store, and that nothing of them is left behind."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from wherry import paths
from wherry.engine.images import Images, matches_pattern
from wherry.errors import Conflict, NotFound, UsageError
from wherry.image.store import ImageStore

if TYPE_CHECKING:
    from wherry.oci.image_spec import Descriptor

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class World:
    """A store, the verbs over it, and the containers that are said to use it."""

    def __init__(self) -> None:
        self.store = ImageStore()
        self.users: list[tuple[str, str, bool]] = []
        self.layers: set[str] = set()
        self.images = Images(
            self.store, lambda function: function(), lambda: self.users, lambda: self.layers
        )

    def add(self, name: str, *files: str, **config: Any) -> str:
        """An image with a layer for each file, under `name`; its id."""
        layers, diff_ids = [], []
        for file in files:
            plain = _layer(file)
            diff_ids.append(_digest(plain))
            packed = gzip.compress(plain, mtime=0)
            digest = self.store.put_blob(packed)
            layers.append(
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": digest,
                    "size": len(packed),
                }
            )
        document = {
            "created": "2024-01-01T00:00:00Z",
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [{"created_by": f"ADD {file}"} for file in files],
            **config,
        }
        blob = json.dumps(document).encode()
        image_id = self.store.put_blob(blob)
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": image_id,
                    "size": len(blob),
                },
                "layers": layers,
            }
        ).encode()
        descriptor: Descriptor = {
            "mediaType": MANIFEST,
            "digest": self.store.put_blob(manifest),
            "size": len(manifest),
        }
        self.store.tag(f"docker.io/library/{name}", descriptor)
        self.images.unpack(self.store.find(name))
        return image_id

    def blobs(self) -> list[str]:
        return [each.name for each in Path(f"{self.store.root}/blobs/sha256").iterdir()]

    def unpacked(self) -> list[str]:
        found = (each.name for each in Path(f"{paths.layers()}/sha256").iterdir())
        return [name for name in found if "." not in name]


def _layer(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        content = name.encode() * 100
        member = tarfile.TarInfo(name)
        member.size = len(content)
        if sys.platform != "win32":
            member.uid, member.gid = os.getuid(), os.getgid()
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("WHERRY_ROOT", str(tmp_path))
    return World()


def test_an_image_is_listed_with_its_names_and_the_size_of_its_files(world: World) -> None:
    image_id = world.add("one:1", "a", "b")
    world.images.tag("one:1", "other/name")

    (summary,) = world.images.list()

    assert summary["Id"] == image_id
    assert summary["RepoTags"] == ["one:1", "other/name:latest"]
    assert summary["Size"] == 200
    assert summary["Created"] == 1704067200


@pytest.mark.parametrize(
    ("key", "wanted", "found"),
    [
        ("reference", "one", {"one:1"}),
        ("reference", "one:*", {"one:1"}),
        ("reference", "*:2", {"two:2"}),
        ("label", "x=y", {"two:2"}),
        ("label!", "x", {"one:1"}),
        ("dangling", "false", {"one:1", "two:2"}),
        ("dangling", "true", set()),
        ("before", "two:2", {"one:1"}),
        ("since", "one:1", {"two:2"}),
        ("until", "2024-06-01T00:00:00Z", {"one:1"}),
    ],
)
def test_images_are_filtered(world: World, key: str, wanted: str, found: set[str]) -> None:
    world.add("one:1", "a")
    world.add("two:2", "b", created="2025-01-01T00:00:00Z", config={"Labels": {"x": "y"}})

    names = {name for each in world.images.list({key: (wanted,)}) for name in each["RepoTags"]}

    assert names == found


def test_a_pattern_does_not_reach_over_a_slash() -> None:
    assert matches_pattern("a/b:1", "a/*")
    assert matches_pattern("a/b:1", "*/b")
    assert not matches_pattern("a/b:1", "*")
    assert not matches_pattern("a/b:1", "a*")


def test_the_history_tells_each_step_with_its_size(world: World) -> None:
    image_id = world.add(
        "one:1",
        "a",
        history=[{"created_by": "ADD a"}, {"created_by": "CMD sh", "empty_layer": True}],
    )

    steps = world.images.history("one:1")

    assert [(each["Id"], each["CreatedBy"], each["Size"]) for each in steps] == [
        (image_id, "CMD sh", 0),
        ("<missing>", "ADD a", 100),
    ]


def test_inspect_has_what_scripts_ask_for(world: World) -> None:
    world.add("one:1", "a", config={"Cmd": ["sh"]}, variant="v8")

    document = world.images.inspect("one:1")

    assert document["RepoTags"] == ["one:1"]
    assert document["Config"]["Cmd"] == ["sh"]
    assert document["Config"]["Labels"] is None
    assert (document["Os"], document["Architecture"], document["Variant"]) == (
        "linux",
        "amd64",
        "v8",
    )
    assert len(document["RootFS"]["Layers"]) == 1
    assert document["RepoDigests"][0].startswith("one@sha256:")


def test_the_last_name_takes_the_image_along(world: World) -> None:
    image_id = world.add("one:1", "a")
    world.images.tag("one:1", "two:2")

    assert world.images.remove("one:1") == [{"Untagged": "one:1"}]
    assert len(world.unpacked()) == 1

    done = world.images.remove("two:2")

    assert {"Untagged": "two:2"} in done
    assert done[-1] == {"Deleted": image_id}
    assert (world.images.list(), world.blobs(), world.unpacked()) == ([], [], [])


def test_what_another_image_shares_stays(world: World) -> None:
    world.add("one:1", "base", "a")
    world.add("two:2", "base", "b")

    world.images.remove("one:1")

    assert len(world.unpacked()) == 2
    world.images.unpack(world.store.find("two:2"))
    assert world.images.inspect("two:2")["Size"] == 500


def test_an_image_is_removed_by_its_id_with_all_names_of_one_repository(world: World) -> None:
    image_id = world.add("one:1", "a")
    world.images.tag("one:1", "one:2")

    world.images.remove(image_id[7:19])

    assert world.images.list() == []


def test_an_id_in_two_repositories_needs_force(world: World) -> None:
    image_id = world.add("one:1", "a")
    world.images.tag("one:1", "two:1")

    with pytest.raises(Conflict, match="image is referenced in multiple repositories"):
        world.images.remove(image_id)
    world.images.remove(image_id, force=True)

    assert world.images.list() == []


def test_an_image_in_use_needs_force_and_keeps_its_containers_layers(world: World) -> None:
    image_id = world.add("one:1", "a")
    world.users = [("c" * 64, image_id, False)]
    world.layers = set(world.store.find("one:1").diff_ids)

    with pytest.raises(
        Conflict, match=r'reference "one:1" \(must force\) - container cccccccccccc'
    ):
        world.images.remove("one:1")
    with pytest.raises(Conflict, match="being used by stopped container cccccccccccc"):
        world.images.remove(image_id)
    world.images.remove("one:1", force=True)

    assert (world.images.list(), world.blobs()) == ([], [])
    assert len(world.unpacked()) == 1


def test_an_image_of_a_running_container_only_loses_its_name(world: World) -> None:
    image_id = world.add("one:1", "a")
    world.users = [("c" * 64, image_id, True)]

    with pytest.raises(Conflict, match="cannot be forced"):
        world.images.remove(image_id, force=True)
    world.images.remove("one:1", force=True)

    assert [each["RepoTags"] for each in world.images.list()] == [[]]


def test_prune_takes_what_has_no_name(world: World) -> None:
    old = world.add("one:1", "a")
    world.add("one:1", "b")

    result = world.images.prune()

    assert result["ImagesDeleted"] == [{"Deleted": old}]
    assert result["SpaceReclaimed"] > 100
    assert [each["RepoTags"] for each in world.images.list()] == [["one:1"]]
    assert len(world.unpacked()) == 1


def test_prune_of_all_spares_what_containers_use(world: World) -> None:
    used = world.add("one:1", "a")
    world.add("two:2", "b")
    world.users = [("c" * 64, used, False)]

    world.images.prune(all=True)

    assert [each["Id"] for each in world.images.list()] == [used]


def test_nothing_is_collected_while_an_image_arrives(world: World) -> None:
    world.add("one:1", "a")

    with world.store.held():
        world.images.remove("one:1")
        assert world.blobs() != []
    world.images.prune()

    assert world.blobs() == []


def test_what_is_not_there_is_told_of(world: World) -> None:
    with pytest.raises(NotFound, match="No such image: nope"):
        world.images.remove("nope")
    with pytest.raises(NotFound, match="No such image: nope"):
        world.images.tag("nope", "x")
    world.add("one:1", "a")
    with pytest.raises(UsageError, match="refusing to create a tag with a digest reference"):
        world.images.tag("one:1", f"x@sha256:{'0' * 64}")
