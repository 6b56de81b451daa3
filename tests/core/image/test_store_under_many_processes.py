"""The store is whole whoever uses it at the same time, and wherever they are killed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if sys.platform != "linux":
    pytest.skip("kills processes", allow_module_level=True)

from support.layers import entry, layer
from wherry import paths
from wherry.errors import CorruptState, NotFound
from wherry.image.garbage import collect
from wherry.image.layers import layer_path, unpack_layers
from wherry.image.store import ImageStore

if TYPE_CHECKING:
    from wherry.oci.image_spec import Descriptor

pytestmark = pytest.mark.skipif(os.name != "posix", reason="layers are unpacked on Linux")

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def add_image(store: ImageStore, name: str, content: bytes) -> str:
    """An image with one file, as a pull brings it: under `held` from its first blob to its name."""
    plain = layer(entry("file", content))
    digest = f"sha256:{hashlib.sha256(plain).hexdigest()}"
    with store.held():
        with store.ingest(digest, len(plain)) as ingest:
            if not ingest.complete:
                for start in range(ingest.offset, len(plain), 4096):
                    ingest.write(plain[start : start + 4096])
                ingest.commit()
        config = {
            "os": "linux",
            "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": [digest]},
        }
        config_digest = store.put_blob(json.dumps(config).encode())
        size = os.stat(store.blob_path(config_digest)).st_size
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                       "digest": config_digest, "size": size},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar",
                        "digest": digest, "size": len(plain)}],
        }  # fmt: skip
        document = json.dumps(manifest).encode()
        descriptor: Descriptor = {
            "mediaType": MANIFEST,
            "digest": store.put_blob(document),
            "size": len(document),
        }
        store.tag(f"docker.io/library/{name}:latest", descriptor)
        try:
            image = store.find(name)
        except NotFound:
            pass  # another process has taken its name away just now
        else:
            unpack_layers(store, image, lambda function: function())
    return config_digest


def use_at_random(seed: int, rounds: int) -> None:
    """What a process of these tests does."""
    chance = random.Random(seed)
    store = ImageStore()
    for _ in range(rounds):
        number = chance.randrange(4)
        name = f"image{number}"
        if chance.random() < 0.6:
            add_image(store, name, str(number).encode() * 20_000)
        else:
            store.untag(f"docker.io/library/{name}:latest", forget=chance.random() < 0.7)
            collect(store, (), lambda function: function())


def check(store: ImageStore) -> None:
    """Every name leads to an image that is whole, every blob and layer is what it says."""
    for image_name in {name for image in store.images() for name in image.references}:
        image = store.find(image_name)
        for each in (*image.manifest["layers"], image.manifest["config"]):
            assert store.has_blob(each["digest"])
    named = [entry["digest"] for entry in store.entries()]
    assert len(store.images()) == len(set(named))
    for path in Path(f"{store.root}/blobs/sha256").glob("*"):
        if not path.name.endswith(".tmp"):
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    for path in Path(f"{paths.layers()}/sha256").glob("*"):
        if "." not in path.name:
            assert (path / "diff/file").stat().st_size == 20_000
            assert json.loads((path / "layer.json").read_text()) == {"size": 20_000}


def start(seed: int, rounds: int) -> subprocess.Popen[bytes]:
    search = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(
        [sys.executable, __file__, str(seed), str(rounds)],
        env={**os.environ, "PYTHONPATH": search},
    )


def test_processes_that_bring_name_and_remove_images_do_not_harm_each_other(
    store: ImageStore,
) -> None:
    workers = [start(seed, 40) for seed in range(6)]

    assert [worker.wait() for worker in workers] == [0] * len(workers)

    check(store)


@pytest.mark.timeout(120)
def test_store_is_whole_wherever_a_process_is_killed(store: ImageStore) -> None:
    chance = random.Random(7)
    for seed in range(50):
        pair = [start(seed, 10_000), start(1000 + seed, 10_000)]
        # Not a wait for anything: when it dies is the point.
        time.sleep(chance.uniform(0.05, 0.3))
        for worker in pair:
            worker.send_signal(signal.SIGKILL)
            assert worker.wait() == -signal.SIGKILL
        check(store)

    assert add_image(store, "image0", b"0" * 20_000)
    for reference in [name for image in store.images() for name in image.references]:
        store.untag(reference, forget=True)
    for image in store.images():
        store.drop(image.descriptor["digest"])
    collect(store, (), lambda function: function())
    assert os.listdir(f"{paths.layers()}/sha256") == []
    assert all(name.endswith(".tmp") for name in os.listdir(f"{store.root}/blobs/sha256"))


def test_partial_blob_is_taken_up_where_it_was_left(store: ImageStore) -> None:
    content = os.urandom(100_000)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    with store.ingest(digest, len(content)) as ingest:
        ingest.write(content[:60_000])

    with store.ingest(digest, len(content)) as ingest:
        assert ingest.offset == 60_000
        ingest.write(content[60_000:])
        ingest.commit()

    assert store.read_blob(digest) == content
    with store.ingest(digest, len(content)) as ingest:
        assert ingest.complete


def test_blob_that_is_wrong_never_appears(store: ImageStore) -> None:
    digest = f"sha256:{'a' * 64}"
    with store.ingest(digest, 3) as ingest:
        ingest.write(b"abc")
        with pytest.raises(CorruptState, match="digest mismatch"):
            ingest.commit()
        assert ingest.offset == 0

    assert not store.has_blob(digest)


def test_blob_that_was_damaged_on_disk_is_not_believed(store: ImageStore) -> None:
    digest = store.put_blob(b"true")
    Path(store.blob_path(digest)).write_bytes(b"false")

    with pytest.raises(CorruptState, match="is damaged"):
        store.read_blob(digest)


def test_layer_that_is_there_is_not_unpacked_again(store: ImageStore) -> None:
    add_image(store, "image0", b"0" * 20_000)
    image = store.find("image0")
    before = os.stat(layer_path(image.diff_ids[0])).st_ino

    unpack_layers(store, image, lambda function: function())

    assert os.stat(layer_path(image.diff_ids[0])).st_ino == before


if __name__ == "__main__":
    use_at_random(int(sys.argv[1]), int(sys.argv[2]))
