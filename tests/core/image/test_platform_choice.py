"""Of an index the manifest that runs here is taken, or what comes nearest."""

from __future__ import annotations

from typing import Any

import pytest

from wherry.errors import NotFound, UsageError
from wherry.image.platform import choose_manifest, parse_platform, platform_of


def entry(platform: str) -> dict[str, Any]:
    system, architecture, *variant = platform.split("/")
    fields = {"os": system, "architecture": architecture}
    return {"digest": platform, "platform": fields | ({"variant": variant[0]} if variant else {})}


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("Linux/AMD64", "linux/amd64"),
        ("arm64", "linux/arm64"),
        ("aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/i386", "linux/386"),
        ("riscv64", "linux/riscv64"),
    ],
)
def test_platform_is_normalized(text: str, platform: str) -> None:
    assert str(parse_platform(text)) == platform


@pytest.mark.parametrize("text", ["", "linux/", "/amd64", "linux/a/b/c", "amiga", "linux//v7"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="invalid platform"):
        parse_platform(text)


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], "linux/amd64"),
        ("linux/arm64", ["linux/amd64", "linux/arm64/v8"], "linux/arm64/v8"),
        ("linux/arm64/v8", ["linux/arm64"], "linux/arm64"),
        ("linux/arm64", ["linux/arm/v7", "linux/amd64"], "linux/arm/v7"),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6"], "linux/arm/v6"),
        ("linux/arm/v7", ["linux/arm/v5", "linux/amd64"], "linux/arm/v5"),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2"], "linux/amd64/v2"),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v4"], "linux/amd64"),
        ("linux/amd64", ["unknown/unknown", "linux/amd64"], "linux/amd64"),
    ],
)
def test_entry_that_fits_best_is_chosen(wanted: str, offered: list[str], chosen: str) -> None:
    found = choose_manifest([entry(platform) for platform in offered], parse_platform(wanted))

    assert found["digest"] == chosen


@pytest.mark.parametrize(
    ("wanted", "offered", "hint"),
    [
        ("linux/arm/v6", ["linux/arm/v7"], "linux/arm/v7"),
        ("linux/amd64", ["linux/amd64/v2", "linux/386/v9"], "linux/386/v9, linux/amd64/v2"),
        ("linux/amd64", ["windows/amd64"], "windows/amd64"),
        ("linux/amd64", ["unknown/unknown"], "no platform at all"),
    ],
)
def test_index_without_a_fitting_entry_says_what_it_has(
    wanted: str, offered: list[str], hint: str
) -> None:
    with pytest.raises(NotFound, match=f"no matching manifest for {wanted} in the") as missing:
        choose_manifest([entry(platform) for platform in offered], parse_platform(wanted))

    assert missing.value.hint == f"the image is made for {hint}"


def test_entry_without_a_platform_is_the_last_resort() -> None:
    unsaid = {"digest": "unsaid"}

    assert choose_manifest([unsaid], parse_platform("linux/amd64")) is unsaid
    fitting = entry("linux/amd64")
    assert choose_manifest([unsaid, fitting], parse_platform("linux/amd64")) is fitting


def test_platform_of_a_config_without_variant_is_arms_usual_one() -> None:
    assert str(platform_of({"os": "linux", "architecture": "arm"})) == "linux/arm/v7"


@pytest.mark.parametrize("variant", ["v99999999999", f"v{'9' * 5000}"], ids=len)
def test_number_of_a_variant_is_no_number_of_things_to_try(variant: str) -> None:
    index = [{"platform": {"os": "linux", "architecture": "amd64"}, "digest": "sha256:0"}]

    for architecture in ("amd64", "arm64", "arm"):
        wanted = parse_platform(f"linux/{architecture}/{variant}")
        with pytest.raises(NotFound):
            choose_manifest([{"platform": {"os": "linux", "architecture": "s390x"}}], wanted)
    assert choose_manifest(index, parse_platform("linux/amd64")) == index[0]
