"""`build --platform A,B`: one image for each, behind one name."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from support.building import build, context
from support.registry import OCI_INDEX, RegistryServer, make_image, make_index, registry
from support.requirements import need_tool
from support.settings import OFFLINE, as_root, on_linux

if TYPE_CHECKING:
    from pathlib import Path

    from support.building import Build
    from support.cli import Cli

__all__ = ["build", "context", "registry"]

BOTH = ("--platform", "linux/amd64,linux/arm64")
# Its programs are this host's, whatever the image is for: so it runs here.
TEXT = """
FROM --platform=$BUILDPLATFORM busybox AS make
ARG TARGETARCH
RUN echo $TARGETARCH > /arch
FROM scratch
COPY --from=make /bin /bin
COPY --from=make /arch /
CMD ["/bin/cat", "/arch"]
"""


def tool(*argv: str) -> str:
    need_tool(argv[0])
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_each(wherry: Cli, name: str) -> list[str]:
    """What the image for each platform prints."""
    return [
        wherry("run", "--rm", OFFLINE, "--platform", f"linux/{each}", name).stdout.strip()
        for each in ("amd64", "arm64")
    ]


def platforms(index: str) -> list[str]:
    return [each["platform"]["architecture"] for each in json.loads(index)["manifests"]]


def test_each_platform_has_an_image_of_its_own(wherry: Cli, build: Build) -> None:
    built = build(TEXT, "-t", "made", "--platform", "linux/amd64", "--platform", "linux/arm64")

    assert "[linux/arm64 make 2/2] RUN echo $TARGETARCH > /arch" in built.stderr
    assert run_each(wherry, "made") == ["amd64", "arm64"]
    told = wherry(
        "image", "inspect", "--platform=linux/arm64", "--format={{.Architecture}}", "made"
    )
    assert told.stdout == "arm64\n"
    assert wherry("images", "-q", "made").stdout.count("\n") == 1
    assert wherry("system", "check").returncode == 0


def test_the_id_of_all_is_the_digest_of_their_index(wherry: Cli, build: Build) -> None:
    text = TEXT.replace("FROM scratch", "FROM scratch\nLABEL a=b\nARG TARGETPLATFORM")

    identity = build(text, "-q", *BOTH).stdout.strip()

    assert build(text, "-q", *BOTH).stdout.strip() == identity
    assert run_each(wherry, identity) == ["amd64", "arm64"]


@on_linux  # a machine's reset would take the image away that its other tests have
def test_platforms_are_pushed_and_pulled_together(
    wherry: Cli, build: Build, registry: RegistryServer
) -> None:
    name = f"{registry.host}/made"

    build(TEXT, "-t", name, *BOTH, "--push")

    _, _, index = registry.request(
        "GET", "/v2/made/manifests/latest", headers={"Accept": OCI_INDEX}
    )
    assert platforms(index.decode()) == ["amd64", "arm64"]
    for entry in json.loads(index)["manifests"]:
        path = f"/v2/made/manifests/{entry['digest']}"
        _, _, manifest = registry.request("GET", path, headers={"Accept": entry["mediaType"]})
        assert all(each["mediaType"].endswith("+gzip") for each in json.loads(manifest)["layers"])
    assert run_each(wherry, name) == ["amd64", "arm64"]
    wherry("system", "reset", "--force")
    for platform in ("linux/arm64", "linux/amd64"):
        wherry("pull", "--platform", platform, name)
    assert run_each(wherry, name) == ["amd64", "arm64"]


@as_root
def test_other_tools_read_the_index(
    wherry: Cli, build: Build, registry: RegistryServer, host_dir: str
) -> None:
    name, archive = f"{registry.host}/made", f"{host_dir}/made.tar"
    build(TEXT, "-t", name, *BOTH, "-o", f"type=oci,dest={archive}", "-o", "type=registry")
    saved = f"{host_dir}/saved.tar"
    wherry("save", "-o", saved, name)

    for source in (f"oci-archive:{archive}", f"oci-archive:{saved}"):
        assert platforms(tool("skopeo", "inspect", "--raw", source)) == ["amd64", "arm64"]
        # It verifies every digest.
        copied = ("skopeo", "--insecure-policy", "copy", "--all", "--quiet", source)
        tool(*copied, f"dir:{host_dir}/dir")
    insecure = ("skopeo", "--override-arch=arm64", "inspect", "--tls-verify=false", "--config")
    assert json.loads(tool(*insecure, f"docker://{name}"))["architecture"] == "arm64"
    roots = [f"--{what}={host_dir}/podman/{what}" for what in ("root", "runroot", "tmpdir")]
    podman = ("podman", *roots, "--storage-driver=vfs")
    try:
        tool(*podman, "pull", "--tls-verify=false", "--arch=arm64", name)
        (found,) = json.loads(tool(*podman, "image", "inspect", name))
        assert found["Architecture"] == "arm64"
    finally:
        tool(*podman, "rmi", "--all", "--force")


@on_linux
def test_each_platform_begins_with_its_own_base(
    wherry: Cli, build: Build, registry: RegistryServer
) -> None:
    images = {
        f"linux/{each}": make_image({"of": each.encode()}, architecture=each)
        for each in ("amd64", "arm64")
    }
    for image in images.values():
        registry.put_image("base", "", image)
    registry.put_manifest("base", "latest", make_index(images), OCI_INDEX)
    text = f"""
    FROM --platform=$BUILDPLATFORM busybox AS tools
    FROM {registry.host}/base
    COPY --from=tools /bin /bin
    CMD ["/bin/cat", "/of"]
    """

    build(text, *BOTH, "-t", "made")

    assert run_each(wherry, "made") == ["amd64", "arm64"]
    missing = build(text, "--platform=linux/s390x", check=False)
    assert missing.returncode == 1
    assert "no matching manifest for linux/s390x" in missing.stderr


def test_files_of_each_platform_are_in_a_directory_of_their_own(
    build: Build, context: Path, host_dir: str
) -> None:
    build(TEXT, *BOTH, "-o", f"{host_dir}/files")

    found = {each.name: (each / "arch").read_text() for each in context.parent.glob("files/*")}
    assert found == {"linux_amd64": "amd64\n", "linux_arm64": "arm64\n"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--platform=linux/amd64,linux//v7",), 'error parsing specified platform: "linux//v7"'),
        (("--platform=linux/amd64,nonsense",), "invalid platform 'nonsense'"),
        (
            (*BOTH, "-o", "type=docker,dest=x"),
            "does not currently support exporting manifest lists",
        ),
    ],
)
def test_what_cannot_be_is_told_in_a_line(
    build: Build, words: tuple[str, ...], message: str
) -> None:
    refused = build("FROM scratch\n", *words, check=False)

    assert refused.returncode in (1, 125)
    assert message in refused.stderr
    assert "Traceback" not in refused.stderr
