"""Layers that builds make have no blobs until their image leaves."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from support.building import build, context, inspect, run
from support.registry import OCI_MANIFEST, RegistryServer, registry
from support.settings import on_linux

if TYPE_CHECKING:
    from support.building import Build
    from support.cli import Cli
    from support.world import World

__all__ = ["build", "context", "registry"]

pytestmark = on_linux

# A large file, one that root alone reads and another's, links, a removal, an opaque directory.
TEXT = """
FROM busybox
COPY . /all
RUN ln /all/large /all/link && ln -s large /all/symbol && chown 33:33 /all/hello \
    && echo secret > /all/closed && chmod 0 /all/closed && chown 7:7 /all/closed
RUN rm /all/sub/one && rm -r /all/sub/deep && mkdir /all/sub/deep && echo n > /all/sub/deep/new
"""
LOOK = ("sh", "-c", "cd /all && ls -lnR && md5sum large link closed hello sub/deep/new")


def _large(context: Path) -> None:
    (context / "large").write_bytes(os.urandom(3_000_001))


def test_an_image_is_the_same_after_save_and_load(
    wherry: Cli, build: Build, context: Path, host_dir: str
) -> None:
    _large(context)
    build(TEXT, "-t", "made")
    identity, seen = inspect(wherry, "made")["Id"], run(wherry, "made", *LOOK)
    wherry("save", "-o", f"{host_dir}/made.tar", "made")
    wherry("system", "reset", "--force")

    wherry("load", "-i", f"{host_dir}/made.tar")

    assert inspect(wherry, "made")["Id"] == identity
    assert run(wherry, "made", *LOOK) == seen
    assert "one" not in seen and "two" not in seen


def test_an_image_is_the_same_after_push_and_pull(
    wherry: Cli, build: Build, context: Path, registry: RegistryServer
) -> None:
    _large(context)
    name = f"{registry.host}/made"
    build(TEXT, "-t", name)
    identity, seen = inspect(wherry, name)["Id"], run(wherry, name, *LOOK)

    pushed = wherry("push", name)

    digest = pushed.stderr.split("digest: ")[1].split()[0]
    assert inspect(wherry, name)["RepoDigests"] == [f"{name}@{digest}"]
    assert inspect(wherry, name)["Id"] == identity
    accept = {"Accept": OCI_MANIFEST}
    _, _, manifest = registry.request("GET", f"/v2/made/manifests/{digest}", headers=accept)
    made = json.loads(manifest)["layers"][1:]
    assert all(each["mediaType"].endswith("gzip") for each in made)
    assert wherry("push", name).stderr.split("digest: ")[1].split()[0] == digest
    wherry("system", "reset", "--force")
    wherry("pull", name)
    assert inspect(wherry, name)["Id"] == identity
    assert run(wherry, name, *LOOK) == seen


def test_other_tools_read_what_was_saved(
    wherry: Cli, build: Build, context: Path, host_dir: str
) -> None:
    _large(context)
    build(TEXT, "-t", "made")
    archive = f"{host_dir}/made.tar"
    wherry("save", "-o", archive, "made")

    for source in (f"oci-archive:{archive}", f"docker-archive:{archive}"):
        inspected = subprocess.run(
            ["skopeo", "inspect", "--config", source], capture_output=True, check=True
        )
        assert len(json.loads(inspected.stdout)["rootfs"]["diff_ids"]) == 4
    copied = ["skopeo", "--insecure-policy", "copy", f"oci-archive:{archive}"]
    subprocess.run([*copied, f"dir:{host_dir}/dir"], capture_output=True, check=True)


def test_blobs_are_not_kept_longer_than_they_are_wanted(
    wherry: Cli, build: Build, context: Path, world: World, host_dir: str
) -> None:
    _large(context)
    blobs = f"{world.root}/data/images/blobs/sha256"

    def largest() -> int:
        return max(os.stat(f"{blobs}/{name}").st_size for name in os.listdir(blobs))

    before = largest()
    build(TEXT, "-t", "made")
    assert largest() == before
    wherry("save", "-o", f"{host_dir}/made.tar", "made")
    wherry("image", "prune", "-f")

    assert largest() == before
    wherry("save", "-o", f"{host_dir}/again.tar", "made")
    with tarfile.open(f"{host_dir}/made.tar") as one, tarfile.open(f"{host_dir}/again.tar") as two:
        assert one.getnames() == two.getnames()


def test_a_layer_whose_files_have_changed_does_not_leave(
    wherry: Cli, build: Build, world: World, host_dir: str
) -> None:
    build("FROM busybox\nCOPY hello /hello\n", "-t", "made")
    layers = Path(f"{world.root}/data/layers/sha256")
    next(layers.glob("*/diff/hello")).write_text("other\n")

    saved = wherry("save", "-o", f"{host_dir}/made.tar", "made", check=False)
    checked = wherry("system", "check", check=False)

    assert saved.returncode == 1
    assert "are not what they were" in saved.stderr
    assert not os.path.exists(f"{host_dir}/made.tar")
    assert "its files are not what they were when it was made" in checked.stdout + checked.stderr


def test_of_several_files_for_one_name_the_last_stays(
    wherry: Cli, build: Build, context: Path, host_dir: str
) -> None:
    for name in ("a", "b", "c"):
        (context / name / "in").mkdir(parents=True)
        (context / name / "in" / "file").write_bytes(name.encode() * 2_000_000)
        (context / name / name).write_text(name)

    build("FROM busybox\nCOPY a b c /to/\n", "-t", "made")

    shown = run(wherry, "made", "sh", "-c", "cd /to; find . | sort; head -c 3 in/file; cat a b c")
    assert shown == ".\n./a\n./b\n./c\n./in\n./in/file\nccc" + "abc"
    wherry("save", "-o", f"{host_dir}/made.tar", "made")


def test_a_file_does_not_take_the_place_of_a_directory(build: Build, context: Path) -> None:
    (context / "a" / "x").mkdir(parents=True)
    (context / "a" / "x" / "y").touch()
    (context / "b").mkdir()
    (context / "b" / "x").write_text("file")

    failed = build("FROM busybox\nCOPY a b /to/\n", check=False)

    assert failed.returncode == 1
    assert "cannot replace a directory with a file: /to/x" in failed.stderr
