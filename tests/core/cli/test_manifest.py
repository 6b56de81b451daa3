"""`wherry manifest`, against a real registry."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from support.registry import (
    OCI_INDEX,
    RegistryServer,
    descriptor_of,
    make_image,
    make_index,
)
from support.requirements import need_tool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Wherry = Callable[..., subprocess.CompletedProcess[str]]

AMD, ARM = (make_image({name: b"1"}, architecture=name) for name in ("amd64", "arm64"))
INDEX = make_index({"linux/amd64": AMD, "linux/arm64": ARM})


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    need_tool("docker-registry")
    with RegistryServer() as server:
        server.put_image("amd", "1", AMD)
        server.put_image("arm", "1", ARM)
        for image in (AMD, ARM):
            server.put_image("both", "", image)
        server.put_manifest("both", "1", INDEX, OCI_INDEX)
        yield server


@pytest.fixture
def wherry(tmp_path: Path) -> Wherry:
    environment = {**os.environ, "DOCKER_CONFIG": str(tmp_path), "WHERRY_ROOT": str(tmp_path)}

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "wherry", "manifest", *argv],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )

    return run


def shown(result: subprocess.CompletedProcess[str]) -> Any:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize(("name", "document"), [("amd:1", AMD.manifest), ("both:1", INDEX)])
def test_inspect_shows_what_the_registry_has(
    wherry: Wherry, server: RegistryServer, name: str, document: bytes
) -> None:
    assert shown(wherry("inspect", f"{server.host}/{name}")) == json.loads(document)


def test_verbose_inspect_describes_an_image(wherry: Wherry, server: RegistryServer) -> None:
    found = shown(wherry("inspect", "--verbose", f"{server.host}/amd:1"))

    assert found["Ref"] == f"{server.host}/amd:1@{AMD.digest}"
    assert found["Descriptor"] == {
        **descriptor_of(AMD.manifest, AMD.media_type),
        "platform": {"architecture": "amd64", "os": "linux"},
    }
    assert base64.b64decode(found["Raw"]) == AMD.manifest
    assert found["OCIManifest"] == json.loads(AMD.manifest)


def test_verbose_inspect_describes_every_image_of_an_index(
    wherry: Wherry, server: RegistryServer
) -> None:
    found = shown(wherry("inspect", "-v", f"{server.host}/both:1"))

    platforms = [each["Descriptor"]["platform"]["architecture"] for each in found]
    assert platforms == ["amd64", "arm64"]


def test_what_is_not_there_is_one_line_in_dockers_words(
    wherry: Wherry, server: RegistryServer
) -> None:
    result = wherry("inspect", f"{server.host}/amd:2")

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"wherry: no such manifest: {server.host}/amd:2\n"


def test_list_is_created_annotated_pushed_and_purged(
    wherry: Wherry, server: RegistryServer
) -> None:
    made, amd, arm = (f"{server.host}/{name}:1" for name in ("made", "amd", "arm"))
    created = wherry("create", made, amd)
    assert created.stdout == f"Created manifest list {made}\n"
    refused = wherry("create", made, arm)
    assert (refused.returncode, "--amend" in refused.stderr) == (1, True)
    assert wherry("create", "--amend", made, arm).returncode == 0
    assert wherry("annotate", "--variant", "v8", made, arm).returncode == 0
    local = shown(wherry("inspect", made))

    pushed = wherry("push", "--purge", made)

    assert shown(wherry("inspect", made)) == local
    platforms = [entry["platform"] for entry in local["manifests"]]
    assert platforms == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm64", "os": "linux", "variant": "v8"},
    ]
    _, headers, _ = server.request("HEAD", "/v2/made/manifests/1", headers={"Accept": OCI_INDEX})
    assert pushed.stdout.strip() == headers["Docker-Content-Digest"]
    assert wherry("rm", made).returncode == 1
    assert wherry("inspect", f"{server.host}/made@{ARM.digest}").returncode == 0


def test_list_takes_no_lists_and_nothing_of_other_registries(
    wherry: Wherry, server: RegistryServer
) -> None:
    a_list = wherry("create", f"{server.host}/made:2", f"{server.host}/both:1")
    wherry("create", "127.0.0.1:1/made:1", f"{server.host}/amd:1")
    elsewhere = wherry("push", "127.0.0.1:1/made:1")

    assert a_list.stderr == f"wherry: {server.host}/both:1 is a manifest list\n"
    assert "from a different registry" in elsewhere.stderr


@pytest.mark.parametrize(
    "argv", [("annotate", "none:1", "a"), ("push", "none:1"), ("rm", "none:1")]
)
def test_list_that_is_not_there_is_named(wherry: Wherry, argv: tuple[str, ...]) -> None:
    result = wherry(*argv)

    assert result.returncode == 1
    assert result.stderr == "wherry: No such manifest: docker.io/library/none:1\n"
