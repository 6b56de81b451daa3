"""What is built is what docker, podman, skopeo and umoci make of it, too."""

from __future__ import annotations

import functools
import http.server
import json
import resource
import stat
import subprocess
import tarfile
import threading
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.building import build, context, repository, run
from support.registry import RegistryServer, registry
from support.requirements import need_tool
from support.settings import OFFLINE, as_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.building import Build
    from support.cli import Cli

__all__ = ["build", "context", "registry"]

pytestmark = as_root

TEXT = """
FROM busybox
RUN mkdir -p /tree/sub && echo one > /tree/file && chmod 4750 /tree/file && chown 33:7 /tree/sub
RUN ln /tree/file /tree/hard && ln -s file /tree/soft && mknod /tree/pipe p && rm /etc/group
COPY --chown=7:8 --chmod=640 hello /tree/hello
ENV NAME="a value" OTHER=b
WORKDIR /work/deep
EXPOSE 80 53/udp
VOLUME /data
LABEL key="some text"
STOPSIGNAL SIGINT
HEALTHCHECK --interval=3s --retries=2 CMD true
SHELL ["/bin/busybox", "sh", "-c"]
ONBUILD RUN true
USER 33:7
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["echo $NAME; id -u; pwd; cat /tree/hello 2>&1; test -u /tree/file && echo set"]
"""
SHOWN = ["a value", "33", "/work/deep", "cat: can't open '/tree/hello': Permission denied", "set"]


def tool(*argv: str) -> str:
    need_tool(argv[0])
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def built(build: Build, host_dir: str) -> Callable[[str], str]:
    """`built("oci")`: the archive of this type that a build has left."""

    def archive(kind: str) -> str:
        path = f"{host_dir}/{kind}.tar"
        build(TEXT, "-t", "example.org/made:1", "-o", f"type={kind},dest={path}")
        return path

    return archive


def check_config(config: dict[str, Any]) -> None:
    """What every tool should tell of the image."""
    assert config["Entrypoint"] == ["/bin/sh", "-c"]
    assert config["User"] == "33:7"
    assert {"NAME=a value", "OTHER=b"} <= set(config["Env"])
    assert config["WorkingDir"] == "/work/deep"
    assert set(config["ExposedPorts"]) == {"80/tcp", "53/udp"}
    assert set(config["Volumes"]) == {"/data"}
    assert config["Labels"] == {"key": "some text"}
    assert config["StopSignal"] == "SIGINT"
    assert config["Healthcheck"]["Test"] == ["CMD-SHELL", "true"]
    assert config["Healthcheck"]["Interval"] == 3_000_000_000
    assert config["Shell"] == ["/bin/busybox", "sh", "-c"]
    assert config["OnBuild"] == ["RUN true"]


# crun starts nothing where both versions of control groups are.
_ONE_VERSION = 'umount --lazy /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_podman_runs_it(built: Callable[[str], str], host_dir: str, kind: str) -> None:
    need_tool("crun")
    roots = [f"--{what}={host_dir}/podman/{what}" for what in ("root", "runroot", "tmpdir")]
    podman = ("podman", *roots, "--storage-driver=vfs", "--cgroup-manager=cgroupfs")
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # What it asks for by default may be more than there is.
    limits = (f"--ulimit=nofile=1024:{files}", "--ulimit=nproc=4096:4096")
    run = ("--runtime=crun", "run", "--rm", "--cgroups=disabled", *limits, OFFLINE)
    tool(*podman, "load", "-i", built(kind))
    try:
        (found,) = json.loads(tool(*podman, "image", "inspect", "example.org/made:1"))
        assert found["Config"]["Env"][-1] == "OTHER=b"
        assert found["User"] == "33:7"
        rootfs = tool(*podman, "image", "mount", "example.org/made:1").strip()
        assert Path(rootfs, "tree/hello").read_text() == "hello\n"
        assert not Path(rootfs, "etc/group").exists()
        one_version = ("unshare", "--mount", "sh", "-c", f"{_ONE_VERSION} 2>&1", "sh")
        assert tool(*one_version, *podman, *run, "example.org/made:1").splitlines() == SHOWN
    finally:
        tool(*podman, "image", "umount", "--all")
        tool(*podman, "rmi", "--all", "--force")


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_docker_runs_it(built: Callable[[str], str], kind: str) -> None:
    from support.docker import Docker

    docker = Docker("--bridge=none", "--iptables=false", "--storage-driver=vfs")
    try:
        docker("load", "-i", built(kind))
        (found,) = json.loads(docker("image", "inspect", "example.org/made:1").stdout)
        check_config(found["Config"])
        shown = docker("run", "--rm", OFFLINE, "example.org/made:1", check=False)
        assert (shown.stdout + shown.stderr).splitlines() == SHOWN
    finally:
        docker.close()


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_skopeo_reads_it(built: Callable[[str], str], kind: str) -> None:
    source = f"{kind}-archive:{built(kind)}"
    found = json.loads(tool("skopeo", "inspect", "--raw", "--config", source))

    check_config(found["config"])
    layers = [each for each in found["history"] if not each.get("empty_layer")]
    assert len(layers) == len(found["rootfs"]["diff_ids"])


def test_umoci_unpacks_the_same_tree(build: Build, host_dir: str) -> None:
    build(TEXT, "-o", f"type=oci,dest={host_dir}/oci.tar", "-o", f"type=tar,dest={host_dir}/tar")
    layout = f"oci:{host_dir}/layout:made"
    tool("skopeo", "--insecure-policy", "copy", f"oci-archive:{host_dir}/oci.tar", layout)
    tool("umoci", "unpack", "--image", f"{host_dir}/layout:made", f"{host_dir}/bundle")

    with tarfile.open(f"{host_dir}/tar") as archive:
        ours = {
            member.name.removeprefix("./"): (member.mode, member.uid, member.gid, member.linkname)
            for member in archive
            if not member.islnk()
        }
        hard = [member for member in archive if member.islnk()]
    theirs = tree(Path(f"{host_dir}/bundle/rootfs"))
    assert {name for name in theirs if name.startswith("tree/")} >= {"tree/pipe", "tree/hard"}
    for member in hard:
        name = member.name.removeprefix("./")
        first = Path(f"{host_dir}/bundle/rootfs", member.linkname)
        assert first.samefile(f"{host_dir}/bundle/rootfs/{name}")
        theirs.pop(name)
    ours.pop(".", None)
    assert theirs == ours


def tree(root: Path) -> dict[str, tuple[int, int, int, str]]:
    """Mode, owners and link of everything below `root`."""
    found = {}
    for path in root.rglob("*"):
        status = path.lstat()
        link = str(path.readlink()) if path.is_symlink() else ""
        mode = stat.S_IMODE(status.st_mode)
        found[str(path.relative_to(root))] = (mode, status.st_uid, status.st_gid, link)
    return found


def test_it_is_pushed_where_skopeo_finds_it(build: Build, registry: RegistryServer) -> None:
    name = f"{registry.host}/made"
    build(TEXT, "-t", f"{name}:1", "-t", f"{name}:2", "--push")

    for tag in ("1", "2"):
        source = f"docker://{name}:{tag}"
        found = json.loads(tool("skopeo", "inspect", "--tls-verify=false", source))
        assert sorted(found["RepoTags"]) == ["1", "2"]
        assert found["Labels"] == {"key": "some text"}
    config = tool("skopeo", "inspect", "--tls-verify=false", "--raw", "--config", source)
    check_config(json.loads(config)["config"])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The URL of a web server of `file`."""
    (tmp_path / "file").write_text("fetched\n")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def test_what_is_added_from_the_web_is_what_its_checksum_says(
    wherry: Cli, build: Build, server: str
) -> None:
    good = sha256(b"fetched\n").hexdigest()
    build(f"FROM busybox\nADD --checksum=sha256:{good} {server}/file /\n", "-t", "made")
    assert run(wherry, "made", "cat", "/file") == "fetched\n"
    assert run(wherry, "made", "stat", "-c", "%a", "/file") == "600\n"

    for words, reason in (
        (f"--checksum=sha256:{'0' * 64} {server}/file", "digest mismatch"),
        (f"{server}/none", f"cannot fetch {server}/none: invalid response status 404"),
    ):
        failed = build(f"FROM busybox\nADD {words} /\n", check=False)
        assert failed.returncode == 1
        assert reason in failed.stderr


def test_a_repository_is_added_with_and_without_its_history(
    wherry: Cli, build: Build, host_dir: str
) -> None:
    with repository(host_dir, {"file": "of git\n"}) as url:
        build(f"FROM busybox\nADD {url} /plain\nADD --keep-git-dir {url} /whole\n", "-t", "made")

    assert run(wherry, "made", "cat", "/plain/file", "/whole/file") == "of git\n" * 2
    assert run(wherry, "made", "ls", "-A", "/plain").split() == ["file"]
    assert run(wherry, "made", "ls", "-A", "/whole").split() == [".git", "file"]
