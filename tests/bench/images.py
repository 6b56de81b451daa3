"""What the contestants run (busybox) and pull (most of a Debian base image)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import tarfile
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import CannotMeasure, must
from support.busybox import busybox_archive, busybox_layer
from support.requirements import need_tool
from support.waiting import Deadline, wait_readable

if TYPE_CHECKING:
    from collections.abc import Iterator


def write_busybox(path: str) -> None:
    """A docker archive with busybox."""
    Path(path).write_bytes(busybox_archive())


def unpack_busybox(directory: str) -> None:
    """A root file system, for those who know no images."""
    os.makedirs(directory)
    subprocess.run(["tar", "-x", "-C", directory], input=busybox_layer(), check=True)


def write_large(path: str) -> None:
    """A docker archive of one layer: this host's own base packages."""
    layer = f"{path}.layer"
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
        for file in _host_files():
            member = tar.gettarinfo(file, arcname=file.lstrip("/"))
            member.uid = member.gid = 0
            if member.isreg():
                with open(file, "rb") as content:
                    tar.addfile(member, content)
            elif member.issym() or member.isdir():
                tar.addfile(member)
    digest = sha256(Path(layer).read_bytes()).hexdigest()
    config = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
            "os": "linux",
            "config": {"Cmd": ["bash"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    Path(f"{path}.config").write_bytes(config)
    name = f"{sha256(config).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": ["large:latest"], "Layers": ["layer.tar"]}]
    Path(f"{path}.manifest").write_text(json.dumps(manifest))
    with tarfile.open(path, "w") as tar:
        tar.add(f"{path}.config", name)
        tar.add(layer, "layer.tar")
        tar.add(f"{path}.manifest", "manifest.json")
    subprocess.run(["gzip", "--keep", "--force", "-6", layer], check=True)


def _host_files() -> Iterator[str]:
    """What Debian calls required: most of what its base image has."""
    listed = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${Priority} ${binary:Package}\n"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    names = [
        name
        for priority, _, name in (line.partition(" ") for line in listed)
        if priority == "required"
    ]
    files = subprocess.run(
        ["dpkg-query", "--listfiles", *names], capture_output=True, text=True, check=True
    ).stdout.split("\n")
    # By their real places: the lists still name /bin where that is a link to /usr/bin.
    real = {
        os.path.join(os.path.realpath(head), tail)
        for head, tail in map(os.path.split, files)
        if tail
    }
    return (path for path in sorted(real) if os.path.lexists(path))


@contextlib.contextmanager
def registry(directory: str) -> Iterator[str]:
    """Debian's docker-registry on a port of its own; its host:port."""
    os.makedirs(directory)
    config = f"{directory}/config.yml"
    Path(config).write_text(
        "version: 0.1\n"
        f"storage: {{filesystem: {{rootdirectory: {directory}/data}}}}\n"
        "http: {addr: '127.0.0.1:0'}\n"
    )
    process = subprocess.Popen(
        [need_tool("docker-registry"), "serve", config],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
    )
    assert process.stderr is not None
    try:
        said = b""
        deadline = Deadline(30, "docker-registry to listen")
        while (found := re.search(rb"listening on (127\.0\.0\.1:\d+)", said)) is None:
            wait_readable(process.stderr.fileno(), deadline)
            chunk = os.read(process.stderr.fileno(), 65536)
            if not chunk:
                raise CannotMeasure(f"docker-registry ended: {said.decode(errors='replace')}")
            said += chunk
        drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
        yield found[1].decode()
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()
    drain.wait()


def push(archive: str, target: str) -> None:
    """Put a docker archive into the registry, its layers compressed with gzip."""
    argv = [need_tool("skopeo"), "--insecure-policy", "copy", "--dest-tls-verify=false"]
    argv += [f"docker-archive:{archive}", f"docker://{target}"]
    must(argv, stdout=subprocess.PIPE)
