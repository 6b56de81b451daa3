"""Where packages come from: what the host's apt says, and how to reach it."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from wherry.errors import NotFound, UsageError
from wherry_vmimage.request import Request, sources_of, target_of
from wherry_vmimage.sources import (
    AptConfig,
    Source,
    distribution_keyrings,
    host_distribution,
    parse_deb822,
    parse_list,
    sources_from_host,
    sources_from_mirror,
    trusted_keyrings,
)

MIRROR = "http://mirror.test/debian"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A root directory of a Debian host, without sources yet."""
    write(tmp_path / "etc/os-release", 'ID=debian\nVERSION_CODENAME="bookworm"\nPRETTY_NAME=a b\n')
    return tmp_path


def suites(root: Path, suite: str = "bookworm") -> list[str]:
    return [
        str(source)
        for source in sources_from_host("debian", suite, root=str(root), architecture="amd64")
    ]


def test_one_line_sources_are_read() -> None:
    text = f"""\
    # a comment
    deb {MIRROR} bookworm main contrib # why
    deb [arch=amd64 signed-by=/K.gpg trusted=yes check-valid-until=no by-hash=no] {MIRROR}/ b main
    deb-src {MIRROR} bookworm main
    nonsense
    """

    assert list(parse_list(text)) == [
        Source(uri=MIRROR, suite="bookworm", components=("main", "contrib")),
        Source(
            uri=MIRROR,
            suite="b",
            components=("main",),
            architectures=("amd64",),
            signed_by="/K.gpg",
            trusted=True,
            check_valid_until=False,
            by_hash=False,
        ),
    ]


def test_deb822_sources_are_read() -> None:
    text = dedent(f"""\
    Types: deb deb-src
    URIs: {MIRROR}
    Suites: bookworm bookworm-updates
    Components: main
    Signed-By:
     -----BEGIN PGP PUBLIC KEY BLOCK-----
     .
     AAAA

    Types: deb
    Enabled: no
    URIs: {MIRROR}
    Suites: sid
    Components: main

    Types: deb-src
    URIs: {MIRROR}
    Suites: source
    Components: main
    """)

    found = list(parse_deb822(text))

    assert [source.suite for source in found] == ["bookworm", "bookworm-updates"]
    assert found[0].signed_by.splitlines()[0] == "-----BEGIN PGP PUBLIC KEY BLOCK-----"


def test_release_comes_with_its_updates_and_security_updates(host: Path) -> None:
    write(
        host / "etc/apt/sources.list.d/debian.sources",
        f"""\
        Types: deb
        URIs: {MIRROR}
        Suites: bookworm bookworm-updates bookworm-backports
        Components: main

        Types: deb
        URIs: {MIRROR}-security
        Suites: bookworm-security
        Components: main
        """,
    )

    assert suites(host) == [
        f"{MIRROR} bookworm",
        f"{MIRROR} bookworm-updates",
        f"{MIRROR}-security bookworm-security",
    ]


def test_another_release_is_looked_for_at_the_same_places(host: Path) -> None:
    write(
        host / "etc/apt/sources.list",
        f"""\
        deb {MIRROR} bookworm main
        deb {MIRROR} bookworm-updates main
        """,
    )

    found = sources_from_host("debian", "trixie", root=str(host), architecture="amd64")

    assert [(source.suite, source.optional) for source in found] == [
        ("trixie", False),
        ("trixie-updates", True),
    ]


def test_archives_of_others_are_left_alone(host: Path) -> None:
    write(
        host / "etc/apt/sources.list",
        f"""\
        deb {MIRROR} bookworm main
        deb http://other.test/linux/debian bookworm stable
        deb cdrom:[disc]/ bookworm main
        """,
    )

    assert suites(host) == [f"{MIRROR} bookworm"]


def test_source_for_another_architecture_is_left_alone(host: Path) -> None:
    write(
        host / "etc/apt/sources.list",
        f"""\
        deb {MIRROR} bookworm main
        deb [arch=i386,arm64] {MIRROR}-ports bookworm-updates main
        """,
    )

    assert suites(host) == [f"{MIRROR} bookworm"]


def test_mirror_list_in_a_file_is_followed(host: Path) -> None:
    write(host / "etc/apt/mirrors.txt", f"# ours\n{MIRROR}/\tpriority:1\nhttp://b.test/\n")
    write(host / "etc/apt/sources.list", "deb mirror+file:/etc/apt/mirrors.txt bookworm main\n")

    assert suites(host) == [f"{MIRROR} bookworm"]


@pytest.mark.parametrize("distribution", ["debian", "ubuntu"])
def test_host_without_a_mirror_is_an_error_that_says_what_to_set(
    host: Path, distribution: str
) -> None:
    with pytest.raises(NotFound, match="no mirror of") as error:
        sources_from_host(distribution, "bookworm", root=str(host), architecture="amd64")

    assert "WHERRY_DEBIAN_MIRROR" in (error.value.hint or "")


@pytest.mark.parametrize(("asked", "setting"), [(True, "false"), (False, "true")])
def test_dates_are_not_checked_where_user_or_host_say_so(asked: bool, setting: str) -> None:
    request = Request(name="debian:bookworm", mirror=MIRROR, check_valid_until=asked)
    config = AptConfig.parse(f'Acquire::Check-Valid-Until "{setting}";\n')

    found = sources_of(request, target_of(request), config)

    assert not any(source.check_valid_until for source in found)


def test_distribution_of_the_host_is_read(host: Path) -> None:
    assert host_distribution(str(host)) == ("debian", "bookworm")
    assert host_distribution(str(host / "nothing")) == ("", "")


def test_keyrings_of_the_host_are_found(host: Path) -> None:
    write(host / "usr/share/keyrings/debian-archive-keyring.gpg", "")
    write(host / "etc/apt/trusted.gpg.d/b.asc", "")
    write(host / "etc/apt/trusted.gpg.d/ignored.txt", "")

    assert [Path(p).name for p in distribution_keyrings("debian", str(host))] == [
        "debian-archive-keyring.gpg"
    ]
    assert [Path(p).name for p in trusted_keyrings(str(host))] == ["b.asc"]
    assert distribution_keyrings("ubuntu", str(host)) == []


def test_mirror_of_the_user_comes_with_what_it_may_have() -> None:
    found = sources_from_mirror(
        f"{MIRROR}/", ["bookworm"], ["main"], security="http://s.test/", guess_pockets=["-updates"]
    )

    assert [(str(source), source.optional) for source in found] == [
        (f"{MIRROR} bookworm", False),
        (f"{MIRROR} bookworm-updates", True),
        ("http://s.test bookworm-security", False),
    ]


@pytest.mark.parametrize("mirror", ["mirror.test/debian", "ftp://mirror.test", "http://", "x"])
def test_what_is_no_address_is_an_error(mirror: str) -> None:
    with pytest.raises(UsageError, match="not a mirror's address"):
        sources_from_mirror(mirror, ["bookworm"], ["main"])


def test_password_is_not_shown() -> None:
    source = Source(uri="https://me:secret@mirror.test/debian", suite="bookworm")

    assert str(source) == "https://mirror.test/debian bookworm"


PROXIES = """\
Acquire::http::Proxy "http://proxy.test:3128";
Acquire::http::Proxy::direct.test "DIRECT";
Acquire::https::Proxy "false";
"""


@pytest.mark.parametrize(
    ("scheme", "host_name", "proxy"),
    [
        ("http", "mirror.test", "http://proxy.test:3128"),
        ("http", "mirror.test:8080", "http://proxy.test:3128"),
        ("http", "direct.test", None),
        ("https", "mirror.test", None),
    ],
)
def test_proxy_is_that_of_apt(scheme: str, host_name: str, proxy: str | None) -> None:
    assert AptConfig.parse(PROXIES).proxy(scheme, host_name) == proxy


def test_proxy_of_the_environment_is_used_where_apt_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://environment.test:1")
    monkeypatch.setenv("no_proxy", "inside.test")

    assert AptConfig().proxy("http", "mirror.test") == "http://environment.test:1"
    assert AptConfig().proxy("http", "inside.test") is None


def test_detected_proxy_is_used(tmp_path: Path) -> None:
    program = tmp_path / "detect"
    program.write_text('#!/bin/sh\necho "$1" | grep -q mirror && echo http://found.test:9\n')
    program.chmod(0o755)
    config = AptConfig.parse(f'Acquire::http::Proxy-Auto-Detect "{program}";\n')

    assert config.proxy("http", "mirror.test") == "http://found.test:9"
