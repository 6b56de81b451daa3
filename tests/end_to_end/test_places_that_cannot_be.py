"""What there is to tell where WHERRY_ROOT cannot be used."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from support.settings import on_linux

if TYPE_CHECKING:
    from support.cli import Cli
    from support.world import World


@pytest.fixture(params=["file", "foreign", "missing"])
def unusable(request: pytest.FixtureRequest, world: World) -> str:
    """A WHERRY_ROOT that cannot be: below a file, another user's, below /proc."""
    place = {"file": "/dev/null/root", "missing": "/proc/nosuch"}.get(request.param)
    if place is None:
        place = f"{world.base}/foreign"
        os.makedirs(f"{place}/data")
        if os.geteuid() != 0:
            pytest.skip("needs root to give a directory to another user")
        os.chown(f"{place}/data", 12345, 12345)
        os.chown(place, 12345, 12345)
    world.wherry.environment["WHERRY_ROOT"] = place
    return place


def test_version_is_told_and_why_there_is_no_server(wherry: Cli, unusable: str) -> None:
    result = wherry("version", check=False)

    assert result.returncode == 1
    assert result.stdout.startswith("Client: wherry\n Version:")
    assert "Server" not in result.stdout
    assert result.stderr.startswith("wherry: ")
    assert unusable in result.stderr


def test_version_as_a_document_has_no_server(wherry: Cli, unusable: str) -> None:
    document = wherry("version", "--format", "json", check=False)
    client = wherry("version", "--format", "{{.Client.Version}}", check=False)
    server = wherry("version", "--format", "{{.Server.Version}}", check=False)

    assert unusable in server.stderr
    assert unusable in document.stderr
    assert json.loads(document.stdout)["Server"] is None
    assert json.loads(document.stdout)["Client"]["Version"] == client.stdout.strip()


@on_linux  # where a machine cannot be there is no guest whose findings could be shown
def test_doctor_finds_it(wherry: Cli, unusable: str) -> None:
    result = wherry("doctor", "--format", "json", check=False)

    assert result.returncode == 1
    found = {finding["Subject"]: finding for finding in json.loads(result.stdout)}
    assert found["data directory"]["Verdict"] == "missing"
    assert unusable in found["data directory"]["Text"]
    assert "WHERRY_ROOT" in found["data directory"]["Mend"]
    assert found["namespaces"]["Verdict"] == "ok"


@pytest.mark.usefixtures("unusable")
def test_help_and_completion_need_no_place(wherry: Cli) -> None:
    completed = wherry(
        "x",
        env={"_WHERRY_COMPLETE": "bash_complete", "COMP_WORDS": "wherry rm ", "COMP_CWORD": "2"},
    )

    assert "Usage:" in wherry("--help").stdout
    assert "Usage:" in wherry("run", "--help").stdout
    assert "complete" in wherry("completion", "bash").stdout
    assert (completed.stdout.strip(), completed.stderr) == ("", "")
