"""`--cache-from` and `--cache-to`: another store builds of what this one has made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.building import build, context, inspect, run
from support.busybox import busybox_archive
from support.registry import RegistryServer, registry
from support.settings import on_linux

if TYPE_CHECKING:
    from support.building import Build
    from support.cli import Cli

__all__ = ["build", "context", "registry"]

TEXT = """
FROM busybox AS made
RUN mkdir /out /other && echo text > /out/file
FROM busybox
WORKDIR /new
COPY hello /hello
COPY --from=made /out/ /out/
RUN cat /hello > /seen && chown 33:33 /seen
"""
STEPS = ("RUN mkdir /out", "WORKDIR /new", "COPY hello", "COPY --from=made", "RUN cat /hello")


def forget(wherry: Cli) -> None:
    """Be another store, which has nothing but the base."""
    images = wherry("images", "--quiet", "--no-trunc").lines
    wherry("rmi", "--force", *dict.fromkeys(images))
    wherry("builder", "prune", "--all", "--force")
    wherry("load", input=busybox_archive())


def cached(shown: str) -> list[str]:
    """The steps that were found."""
    lines = shown.splitlines()
    numbers = [line.split()[0] for line in lines if line.endswith(" CACHED")]
    return [
        step
        for step in STEPS
        if any(line.split()[:1] == [number] and f"] {step}" in line for line in lines
               for number in numbers)
    ]  # fmt: skip


def seen(wherry: Cli) -> str:
    return run(wherry, "made", "sh", "-c", "cat /hello /out/file /seen; ls -n /seen")


@pytest.mark.parametrize("mode", ["min", "max"])
def test_another_store_builds_everything_of_a_directory(
    wherry: Cli, build: Build, context: Path, host_dir: str, mode: str
) -> None:
    build(TEXT, "-t", "made", "--cache-to", f"type=local,dest={host_dir}/cache,mode={mode}")
    identity, before = inspect(wherry, "made")["Id"], seen(wherry)
    forget(wherry)
    (context / "hello").touch()

    shown = build(TEXT, "-t", "made", "--cache-from", f"type=local,src={host_dir}/cache").stderr

    assert cached(shown) == [step for step in STEPS if mode == "max" or step != "RUN mkdir /out"]
    assert seen(wherry) == before
    assert inspect(wherry, "made")["Id"] == identity
    assert len(wherry("images", "-q").lines) == 2


@on_linux
@pytest.mark.parametrize("plain", [True, False], ids=["name", "type=registry"])
def test_another_store_builds_everything_of_a_registry(
    wherry: Cli, build: Build, registry: RegistryServer, plain: bool
) -> None:
    name = f"{registry.host}/app:cache"
    address = name if plain else f"type=registry,ref={name}"
    build(TEXT, "-t", "made", "--cache-to", f"type=registry,ref={name},mode=max")
    identity = inspect(wherry, "made")["Id"]
    forget(wherry)

    shown = build(TEXT, "-t", "made", "--cache-from", address).stderr

    assert cached(shown) == list(STEPS)
    assert inspect(wherry, "made")["Id"] == identity
    assert len(wherry("images", "-q").lines) == 2


@on_linux
def test_an_image_brings_its_own_cache(wherry: Cli, build: Build, registry: RegistryServer) -> None:
    name = f"{registry.host}/app"
    text = "FROM busybox\nCOPY hello /hello\nRUN cat /hello > /seen\n"
    build(text, "-t", name, "--push", "--cache-to", "type=inline")
    forget(wherry)

    shown = build(text, "-t", "made", "--cache-from", name).stderr

    assert cached(shown) == ["COPY hello", "RUN cat /hello"]


def test_a_directory_keeps_a_cache_for_each_tag(wherry: Cli, build: Build, host_dir: str) -> None:
    for tag in ("one", "two"):
        text = f"FROM busybox\nRUN echo {tag} > /x\n"
        build(text, "--cache-to", f"type=local,dest={host_dir}/cache,tag={tag}")
    index = json.loads(Path(f"{host_dir}/cache/index.json").read_text())
    assert len(index["manifests"]) == 2
    forget(wherry)

    shown = build("FROM busybox\nRUN echo one > /x\n", "--cache-from",
                  f"type=local,src={host_dir}/cache,tag=one").stderr  # fmt: skip

    assert "CACHED" in shown.split("RUN echo one")[1]


def test_nothing_is_left_of_a_cache_that_was_brought_to_where_it_was_made(
    wherry: Cli, build: Build, host_dir: str
) -> None:
    text = "FROM busybox\nCOPY hello /\n"
    build(text, "-t", "made", "--cache-to", f"type=local,dest={host_dir}/cache")
    build(text, "-t", "made", "--cache-from", f"type=local,src={host_dir}/cache")
    wherry("rmi", "made")

    wherry("builder", "prune", "--all", "--force")

    assert "COPY hello" not in wherry("builder", "du", "--verbose").stdout


def written(shown: str) -> str:
    """How much of a cache a build has written."""
    return shown.split("writing cache: ")[1].split()[0]


def test_blobs_that_a_directory_has_are_not_written_again(
    wherry: Cli, build: Build, host_dir: str
) -> None:
    text = "FROM busybox\nRUN dd if=/dev/urandom of=/random bs=1M count=1\n"
    place = f"type=local,dest={host_dir}/cache"

    first = build(text, "--cache-to", place).stderr
    second = build(f"{text}RUN echo more > /more\n", "--cache-to", f"{place},tag=more").stderr
    again = build(f"{text}RUN echo more > /more\n", "--cache-to", f"{place},tag=more").stderr

    assert float(written(first).removesuffix("MB")) > 1
    assert written(second).endswith("kB")
    assert written(again) == "0B"
    cut = max(Path(f"{host_dir}/cache/blobs/sha256").iterdir(), key=lambda one: one.stat().st_size)
    cut.write_bytes(cut.read_bytes()[:1000])
    build(text, "--cache-to", place)
    forget(wherry)
    shown = build(text, "--cache-from", f"type=local,src={host_dir}/cache").stderr
    assert "CACHED" in shown.split("RUN dd")[1]


def test_a_directory_that_cannot_be_written_to_fails_the_build_unless_that_is_ignored(
    wherry: Cli, build: Build, host_dir: str
) -> None:
    text = "FROM busybox\nRUN echo a > /a\n"
    Path(f"{host_dir}/file").write_text("a file\n")
    place = f"type=local,dest={host_dir}/file/cache"

    failed = build(text, "-t", "made", "--cache-to", place, check=False)
    ignored = build(text, "-t", "made", "--cache-to", f"{place},ignore-error=true")

    assert failed.returncode == 1
    reason = f"cannot make {host_dir}/file/cache/blobs/sha256: Not a directory"
    assert f"wherry: failed to build: failed to solve: {reason}" in failed.stderr
    assert f"warning: {reason}" in ignored.stderr
    assert Path(f"{host_dir}/file").read_text() == "a file\n"


def test_a_cache_that_loses_a_blob_is_told_of_and_not_missed(
    wherry: Cli, build: Build, host_dir: str
) -> None:
    text = "FROM busybox\nRUN echo a > /a\n"
    build(text, "--cache-to", f"type=local,dest={host_dir}/cache")
    layer = next(each for each in Path(f"{host_dir}/cache/blobs/sha256").iterdir()
                 if not each.read_bytes().startswith(b"{"))  # fmt: skip
    layer.unlink()
    forget(wherry)

    shown = build(text, "-t", "made", "--cache-from", f"type=local,src={host_dir}/cache").stderr

    assert f"warning: the layout has no blob sha256:{layer.name}" in shown
    assert run(wherry, "made", "cat", "/a") == "a\n"


def test_a_cache_that_cannot_be_had_is_told_of_and_not_missed(build: Build, host_dir: str) -> None:
    shown = build("FROM busybox\nRUN echo a > /a\n", "--cache-from",
                  f"type=local,src={host_dir}/none", "--cache-from", "busybox").stderr  # fmt: skip

    assert f"warning: there is no cache in {host_dir}/none" in shown


def test_a_damaged_cache_is_not_used(wherry: Cli, build: Build, host_dir: str) -> None:
    text = "FROM busybox\nRUN echo a > /a\n"
    build(text, "--cache-to", f"type=local,dest={host_dir}/cache")
    for blob in Path(f"{host_dir}/cache/blobs/sha256").iterdir():
        if not blob.read_bytes().startswith(b"{"):
            content = blob.read_bytes()
            blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    forget(wherry)

    shown = build(text, "-t", "made", "--cache-from", f"type=local,src={host_dir}/cache").stderr

    assert "warning:" in shown
    assert run(wherry, "made", "cat", "/a") == "a\n"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--cache-from", "type=gha"), "unknown cache importer: 'gha'"),
        (("--cache-to", "type=s3,region=x"), "unknown cache exporter: 's3'"),
        (("--cache-to", "type=azblob,name=x"), "unknown cache exporter: 'azblob'"),
        (("--cache-to", "type=local"), "a local cache needs dest=DIRECTORY"),
        (("--cache-from", "type=local,dest=x"), "a local cache needs src=DIRECTORY"),
        (("--cache-to", "type=local,dest=x,mode=most"), "invalid cache mode 'most'"),
        (("--cache-to", "type=local,dest=x,y"), "invalid value y: expected key=value"),
    ],
)
def test_what_a_cache_cannot_be_is_told_in_a_line(
    build: Build, option: tuple[str, str], message: str
) -> None:
    failed = build("FROM busybox\n", *option, check=False)

    assert failed.returncode == 1
    assert failed.stderr.splitlines()[0] == f"wherry: {message}"
