"""Base images from the package mirror that this machine uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.settings import as_root, as_single_uid, on_linux

if TYPE_CHECKING:
    from support.cli import Cli

pytestmark = pytest.mark.network

# Fetched, unpacked and configured on a busy machine.
PATIENCE = 240


@on_linux  # an emulated guest takes many minutes to configure its packages
def test_debian_is_made_whole_and_its_apt_installs(wherry: Cli) -> None:
    made = wherry("bootstrap", "debian:bookworm", timeout=PATIENCE)

    assert made.stdout == "docker.io/library/debian:bookworm\n"
    run = ("run", "--rm", "--network", "host", "debian:bookworm")
    states = wherry(*run, "dpkg-query", "--show", "-f", "${db:Status-Abbrev}\\n").lines
    assert set(states) == {"ii "}
    # The host's package lists need no proxy here; where they do, apt takes the same.
    script = "dpkg --audit && dpkg --verify && apt-get update -q && apt-get install -qy hello"
    proxies = [
        word
        for name, text in wherry.environment.items()
        if name.lower().endswith("_proxy")
        for word in ("--env", f"{name}={text}")
    ]
    wherry(*run[:-1], *proxies, run[-1], "sh", "-ec", script, timeout=PATIENCE)
    again = wherry("bootstrap", "--quiet", "debian:bookworm", timeout=PATIENCE)
    assert again.stdout == made.stdout
    assert again.stderr == ""


@as_root
def test_two_runs_make_the_same_bytes(wherry: Cli) -> None:
    digests = []
    for tag in ("one", "two"):
        wherry("bootstrap", "debian:bookworm-slim", "--variant", "apt", "-t", tag, timeout=PATIENCE)
        digests.append(
            wherry("image", "inspect", "-f", "{{index .RootFS.Layers 0}}", tag).stdout.strip()
        )

    assert digests[0] == digests[1] != ""


def test_busybox_is_made_and_runs(wherry: Cli) -> None:
    wherry("bootstrap", "busybox", timeout=PATIENCE)

    # It has not been unpacked yet; what it takes are its blobs.
    used = wherry("system", "df", "--format", "{{.Type}} {{.Size}}").lines
    assert "Images 0B" not in used
    listed = wherry("run", "--rm", "--network", "none", "busybox", "busybox", "--list").lines
    found = wherry("run", "--rm", "--network", "none", "busybox", "ls", "/bin").lines
    assert sorted(listed) == sorted(found)


@as_root
def test_what_a_killed_run_left_is_removed_by_the_next(wherry: Cli) -> None:
    process = wherry.start("bootstrap", "debian:bookworm", "--variant", "apt")
    assert process.stderr
    while b"unpacked" not in process.stderr.readline():
        assert process.poll() is None
    while not wherry("ps", "-q").stdout:
        assert process.poll() is None
    process.kill()
    process.communicate()

    wherry("bootstrap", "busybox", timeout=PATIENCE)

    assert wherry("ps", "-aq").stdout == ""
    names = wherry("images", "--format", "{{.Repository}}").lines
    assert names == ["busybox"]


@as_root
def test_packages_can_be_left_unpacked_for_another_architecture(wherry: Cli) -> None:
    wherry(
        *("bootstrap", "debian:bookworm", "--arch", "arm64", "--variant", "essential"),
        *("--no-configure", "-t", "foreign"),
        timeout=PATIENCE,
    )

    inspected = wherry("image", "inspect", "-f", "{{.Os}}/{{.Architecture}}", "foreign")
    assert inspected.stdout == "linux/arm64\n"


@as_single_uid
def test_user_without_a_range_of_ids_is_told_so_before_anything_is_fetched(wherry: Cli) -> None:
    result = wherry("bootstrap", "debian:bookworm", check=False)

    assert result.returncode == 1
    assert "no range of ids" in result.stderr
    assert "--no-configure" in result.stderr
    assert "verified" not in result.stderr


@as_root
def test_packages_of_another_processor_want_an_emulator(wherry: Cli) -> None:
    words = ("bootstrap", "debian:bookworm", "--arch", "s390x")
    result = wherry(*words, check=False, env={"PATH": "/nowhere"})

    assert result.returncode == 1
    assert "wherry: this machine cannot run the programs of s390x" in result.stderr
    assert "--no-configure" in result.stderr
    assert "verified" not in result.stderr


@as_root
@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (("alpine",), "do not know how to make 'alpine'"),
        (("debian:nosuchsuite",), "no suite nosuchsuite"),
        (("debian:bookworm", "--include", "no-such-package"), "no package no-such-package"),
        (("debian:bookworm", "--mirror", "ftp://host.invalid"), "not a mirror's address"),
        (("debian:bookworm", "--mirror", "http://host.invalid"), "cannot reach host.invalid"),
        (("debian:bookworm", "--keyring", "/nowhere"), "no such keyring: /nowhere"),
        (("debian:bookworm", "--arch", "z80"), "invalid platform"),
        (("ubuntu:noble",), "no mirror of ubuntu noble is known"),
    ],
)
def test_what_cannot_be_made_is_one_line_and_leaves_nothing(
    wherry: Cli, argv: tuple[str, ...], reason: str
) -> None:
    result = wherry("bootstrap", *argv, check=False, timeout=PATIENCE)

    assert result.returncode in (1, 125)
    assert f"wherry: {reason}" in result.stderr
    assert "Traceback" not in result.stderr
    assert wherry("images", "-q").stdout == ""
