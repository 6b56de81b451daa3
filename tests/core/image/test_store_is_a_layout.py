"""Whatever is done to images, their store is an image layout that other tools read."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tempfile
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.layout import problems_of
from support.registry import RegistryServer, make_image, make_index, make_layer
from support.requirements import need_tool
from wherry.engine.images import Images
from wherry.errors import NotFound
from wherry.image.pull import pull_image
from wherry.image.reference import parse_reference
from wherry.image.store import ImageStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.linux

NAMES = ["one", "two", "three:1", "other.example/three:1"]
# Images that share layers, one with the same layer twice, and one of several platforms.
IMAGES = {
    "alone": make_image({"a": b"1"}),
    "shares": make_image({"a": b"1"}, {"b": b"2"}),
    "twice": make_image({"c": b"3"}, {"c": b"3"}),
    "arm": make_image({"d": b"4"}, architecture="arm64"),
}

anything = st.sampled_from([*IMAGES, "many", *NAMES])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("pull"), st.sampled_from([*IMAGES, "many"])),
        st.tuples(
            st.just("tag"), st.sampled_from([*IMAGES, "many", *NAMES]), st.sampled_from(NAMES)
        ),
        st.tuples(st.just("remove"), st.sampled_from([*IMAGES, "many", *NAMES])),
        st.tuples(st.just("save and load"), st.sampled_from([*IMAGES, "many", *NAMES])),
        st.tuples(st.just("import"), st.sampled_from([*NAMES, ""])),
        st.tuples(st.just("prune"), st.booleans()),
    ),
    max_size=12,
)


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    need_tool("docker-registry")
    with RegistryServer() as server:
        for name, image in IMAGES.items():
            server.put_image(name, "latest", image)
            server.put_image("many", "", image)
        index = make_index({"linux/amd64": IMAGES["shares"], "linux/arm64": IMAGES["arm"]})
        media_type = "application/vnd.oci.image.index.v1+json"
        server.put_manifest("many", "latest", index, media_type)
        yield server


class _World:
    """A store, and what is done to it."""

    def __init__(self, server: RegistryServer) -> None:
        self.store = ImageStore()
        self._host = server.host
        self._images = Images(self.store, lambda work: work(), list, set)

    def _full(self, name: str) -> str:
        return f"{self._host}/{name}" if name in IMAGES or name == "many" else name

    def do(self, action: str, what: str | bool, target: str = "") -> None:
        try:
            self._do(action, what, target)
        except NotFound:
            pass  # what is not there cannot be tagged, removed or saved

    def _do(self, action: str, what: str | bool, target: str) -> None:
        name = self._full(str(what))
        if action == "pull":
            pull_image(self.store, parse_reference(name), unpack=self._images.unpack_arriving)
        elif action == "tag":
            self._images.tag(name, target)
        elif action == "remove":
            self._images.remove(name)
        elif action == "save and load":
            archive = io.BytesIO()
            self._images.save([name], archive.write)
            self._images.remove(name)
            archive.seek(0)
            self._images.load(archive.read)
        elif action == "import":
            self._images.import_tree(io.BytesIO(make_layer({"e": b"5"})).read, str(what))
        else:
            self._images.prune(all=bool(what))


@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=steps)
def test_layout_is_valid_after_every_step(
    server: RegistryServer, steps: list[tuple[str, ...]]
) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        mock.patch.dict(os.environ, {"WHERRY_ROOT": directory, "DOCKER_CONFIG": directory}),
    ):
        world = _World(server)
        for step in steps:
            world.do(*step)
            if os.path.exists(f"{world.store.root}/oci-layout"):
                assert problems_of(world.store.root) == []
        world.do("prune", False)
        if os.path.exists(f"{world.store.root}/oci-layout"):
            assert problems_of(world.store.root, is_collected=True) == []
        world.do("prune", True)
        if os.path.exists(f"{world.store.root}/oci-layout"):
            assert os.listdir(f"{world.store.root}/blobs/sha256") == []
            assert os.listdir(f"{directory}/data/layers/sha256") == []


def test_skopeo_and_umoci_read_what_was_pulled_tagged_removed_and_imported(
    server: RegistryServer, store: ImageStore
) -> None:
    world = _World(server)
    world.do("pull", "shares")
    world.do("pull", "many")
    world.do("tag", "shares", "one")
    world.do("tag", "many", "two")
    world.do("remove", "shares")
    world.do("import", "three:1")
    world.do("save and load", "two")
    world.do("prune", False)

    listed = subprocess.run(
        [need_tool("umoci"), "list", "--layout", store.root],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = {f"docker.io/library/{name}" for name in ("one:latest", "two:latest", "three:1")}
    assert names <= set(listed.stdout.split())
    for name in names:
        asked = ["skopeo", "inspect", "--override-arch=amd64", f"oci:{store.root}:{name}"]
        shown = subprocess.run(asked, capture_output=True, text=True, check=True)
        assert json.loads(shown.stdout)["Layers"]


def test_image_that_two_documents_lead_to_is_one_image_with_both_names(
    server: RegistryServer, store: ImageStore
) -> None:
    world = _World(server)
    world.do("pull", "shares")
    world.do("pull", "many")

    (image,) = store.images()
    names = {f"{server.host}/shares:latest", f"{server.host}/many:latest"}
    assert set(image.references) == names
    images = Images(store, lambda work: work(), list, set)
    assert set(images.inspect(f"{server.host}/many")["RepoTags"]) == names
    images.remove(image.id, force=True)
    assert store.images() == []
    assert os.listdir(f"{store.root}/blobs/sha256") == []


def test_what_is_saved_is_a_layout_too(
    server: RegistryServer, store: ImageStore, tmp_path: Path
) -> None:
    world = _World(server)
    world.do("pull", "shares")
    world.do("tag", "shares", "one")
    archive = io.BytesIO()
    Images(store, lambda work: work(), list, set).save(["one"], archive.write)
    path = tmp_path / "archive"
    path.write_bytes(archive.getvalue())
    directory = tmp_path / "layout"
    directory.mkdir()
    subprocess.run(["tar", "-x", "-f", path, "-C", directory], check=True)
    # Docker's own files stand beside a layout.
    for name in ("manifest.json", "repositories"):
        (directory / name).unlink()

    assert problems_of(str(directory), is_collected=True) == []
