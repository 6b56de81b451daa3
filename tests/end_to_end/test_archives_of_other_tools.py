"""`save`, `load` and `import` beside skopeo, podman and umoci: what one writes the others read."""

from __future__ import annotations

import functools
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.busybox import busybox_archive
from support.requirements import need_tool
from support.settings import OFFLINE, as_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.cli import Cli
    from support.terminal import Terminal

pytestmark = as_root


@functools.cache
def archive() -> bytes:
    return busybox_archive("busybox:1", files={"second": b"layer"})


def skopeo(*argv: str) -> str:
    need_tool("skopeo")
    command = ["skopeo", "--insecure-policy", *argv]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def directory(host_dir: str) -> Path:
    """A directory with busybox.tar, an archive in docker's format."""
    Path(host_dir, "busybox.tar").write_bytes(archive())
    return Path(host_dir)


@pytest.fixture
def podman(directory: Path) -> Iterator[Callable[..., str]]:
    """podman with a store of its own."""
    need_tool("podman")

    def run(*argv: str) -> str:
        roots = ("--root", f"{directory}/podman", "--runroot", f"{directory}/podman-run")
        command = ["podman", *roots, "--storage-driver", "vfs", *argv]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    yield run
    run("rmi", "--all", "--force")


def runs(wherry: Cli, image: str) -> bool:
    return wherry("run", "--rm", OFFLINE, image, "cat", "/second").stdout == "layer"


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_what_skopeo_writes_is_loaded(wherry: Cli, directory: Path, form: str) -> None:
    target = directory / "copy.tar"
    name = "example.org/copy:2"
    skopeo("copy", f"docker-archive:{directory}/busybox.tar", f"{form}:{target}:{name}")

    assert wherry("load", "-i", str(target)).lines == [f"Loaded image: {name}"]
    assert runs(wherry, name)


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_skopeo_reads_what_is_saved(wherry: Cli, directory: Path, form: str) -> None:
    wherry("load", "-i", f"{directory}/busybox.tar")
    wherry("save", "-o", f"{directory}/saved.tar", "busybox:1")

    config = json.loads(skopeo("inspect", "--config", f"{form}:{directory}/saved.tar"))

    inspected = json.loads(wherry("image", "inspect", "busybox:1").stdout)[0]
    assert config["rootfs"]["diff_ids"] == inspected["RootFS"]["Layers"]


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_podman_and_wherry_load_what_the_other_saves(
    wherry: Cli, directory: Path, podman: Callable[..., str], form: str
) -> None:
    wherry("load", "-i", f"{directory}/busybox.tar")
    wherry("save", "-o", f"{directory}/ours.tar", "busybox:1")

    podman("load", "-q", "-i", f"{directory}/ours.tar")
    theirs = podman("images", "-q", "--no-trunc").split()
    podman("save", "-q", "--format", form, "-o", f"{directory}/theirs.tar", "busybox:1")
    image_id = wherry("images", "-q", "--no-trunc").lines
    wherry("rmi", "busybox:1")

    assert wherry("load", "-i", f"{directory}/theirs.tar").lines == ["Loaded image: busybox:1"]
    assert theirs == image_id
    assert runs(wherry, "busybox:1")


def test_an_archive_of_several_images_keeps_them_apart(
    wherry: Cli, directory: Path, podman: Callable[..., str]
) -> None:
    wherry("load", "-i", f"{directory}/busybox.tar")
    wherry("load", input=busybox_archive("other:1", config={"Labels": {"a": "b"}}))
    wherry("tag", "busybox:1", "busybox:2")
    wherry("save", "-o", f"{directory}/all.tar", "busybox:1", "other:1", "busybox:2")

    podman("load", "-q", "-i", f"{directory}/all.tar")

    names = podman("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    assert sorted(name.rpartition("/")[2] for name in names) == [
        "busybox:1",
        "busybox:2",
        "other:1",
    ]
    wherry("rmi", "busybox:1", "busybox:2", "other:1")
    assert sorted(wherry("load", "-i", f"{directory}/all.tar").lines) == [
        "Loaded image: busybox:1",
        "Loaded image: busybox:2",
        "Loaded image: other:1",
    ]


def test_an_image_that_umoci_made_is_loaded_and_umoci_unpacks_ours(
    wherry: Cli, directory: Path
) -> None:
    need_tool("umoci")
    layout = directory / "layout"
    skopeo("copy", f"docker-archive:{directory}/busybox.tar", f"oci:{layout}:first")
    (directory / "file").write_text("by umoci")
    for command in (
        ["insert", "--image", f"{layout}:first", f"{directory}/file", "/file"],
        ["config", "--image", f"{layout}:first", "--tag", "x/y:z", "--config.user", "33"],
        ["rm", "--image", f"{layout}:first"],
    ):
        subprocess.run(["umoci", *command], check=True, capture_output=True)
    subprocess.run(["umoci", "gc", "--layout", layout], check=True, capture_output=True)
    archive = directory / "layout.tar"
    subprocess.run(["tar", "-C", layout, "-cf", archive, "."], check=True)

    assert wherry("load", "-i", str(archive)).lines == ["Loaded image: x/y:z"]
    assert wherry("run", "--rm", OFFLINE, "x/y:z", "sh", "-c", "id -u; cat /file").lines == [
        "33",
        "by umoci",
    ]

    saved, again, bundle = directory / "saved.tar", directory / "again", directory / "bundle"
    wherry("save", "-o", str(saved), "x/y:z")
    skopeo("copy", f"oci-archive:{saved}", f"oci:{again}:z")
    subprocess.run(
        ["umoci", "unpack", "--image", f"{again}:z", bundle], check=True, capture_output=True
    )
    assert (bundle / "rootfs" / "file").read_text() == "by umoci"


@pytest.mark.parametrize("compress", ["gzip", "xz", "zstd", "bzip2", "cat"])
def test_an_archive_may_be_compressed_and_come_through_a_pipe(
    wherry: Cli, directory: Path, compress: str
) -> None:
    need_tool(compress)
    content = subprocess.run([compress], input=archive(), capture_output=True, check=True).stdout

    assert wherry("load", input=content).lines == ["Loaded image: busybox:1"]
    assert runs(wherry, "busybox:1")


@pytest.mark.parametrize("compress", ["gzip", "zstd"])
def test_compressed_layers_are_loaded_and_saved_as_they_are(
    wherry: Cli, directory: Path, compress: str
) -> None:
    """docker's own format tells nothing of compression: the bytes do."""
    need_tool(compress)
    with tarfile.open(directory / "busybox.tar") as archive:
        # Debian's Python 3.11.2 has no filters.
        safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(directory / "files", **safely)
    for layer in (directory / "files").rglob("layer.tar"):
        plain = layer.read_bytes()
        packing = subprocess.run([compress], input=plain, capture_output=True, check=True)
        layer.write_bytes(packing.stdout)
    packed = subprocess.run(
        ["tar", "-C", directory / "files", "-c", "."], capture_output=True, check=True
    ).stdout

    wherry("load", input=packed)

    assert runs(wherry, "busybox:1")
    wherry("save", "-o", f"{directory}/saved.tar", "busybox:1")
    manifest = json.loads(skopeo("inspect", "--raw", f"oci-archive:{directory}/saved.tar"))
    assert {layer["mediaType"].rpartition("+")[2] for layer in manifest["layers"]} == {compress}


def test_save_goes_into_a_pipe_and_never_onto_a_terminal(
    wherry: Cli, directory: Path, terminal: Callable[..., Terminal]
) -> None:
    wherry("load", "-i", f"{directory}/busybox.tar")

    saved = io.BytesIO(wherry("save", "busybox:1").output)
    with tarfile.open(fileobj=saved) as archive:
        assert "manifest.json" in archive.getnames()
    assert terminal("save", "busybox:1").wait() == 1


def test_output_that_is_a_link_to_the_pipe_goes_there(wherry: Cli, directory: Path) -> None:
    wherry("load", "-i", f"{directory}/busybox.tar")
    (directory / "out").symlink_to("/dev/stdout")

    saved = wherry("save", "-o", f"{directory}/out", "busybox:1").output

    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        assert "manifest.json" in archive.getnames()
    assert (directory / "out").is_symlink()


def test_what_cannot_be_saved_leaves_no_file(wherry: Cli, directory: Path) -> None:
    result = wherry("save", "-o", f"{directory}/out.tar", "nothing", check=False)

    assert (result.returncode, result.stderr.splitlines()[0]) == (
        1,
        "wherry: No such image: nothing",
    )
    assert sorted(path.name for path in directory.iterdir()) == ["busybox.tar"]


def test_an_exported_container_is_imported(wherry: Cli, directory: Path) -> None:
    wherry("load", "-i", f"{directory}/busybox.tar")
    wherry(
        "run", "--name", "box", OFFLINE, "busybox:1", "sh", "-c", "echo x >/made; chown 33 /made"
    )
    wherry("export", "-o", f"{directory}/files.tar", "box")

    image_id = wherry(
        "import", "-c", "CMD stat -c %u /made", "-m", "flat", f"{directory}/files.tar", "flat:1"
    ).stdout.strip()

    assert wherry("images", "-q", "--no-trunc", "flat:1").lines == [image_id]
    assert wherry("run", "--rm", OFFLINE, "flat:1").lines == ["33"]
    assert len(json.loads(wherry("inspect", "flat:1").stdout)[0]["RootFS"]["Layers"]) == 1
