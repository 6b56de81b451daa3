"""Images whose author means harm, through the command: one line, and nothing of them is left."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.layers import CHARACTER, DIRECTORY, LINK, SYMLINK, entry, layer
from support.settings import OFFLINE, as_root, on_linux

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from support.cli import Cli
    from support.layers import Entry
    from support.terminal import Terminal

ATTACKS: dict[str, list[Entry]] = {
    "parent": [entry("../../../escaped", b"1")],
    "link out of the root": [
        entry("a", kind=SYMLINK, linkname="../.."),
        entry("a/escaped", b"1"),
    ],
    "hard link out of the root": [entry("a", kind=LINK, linkname="../../layer.json")],
}


# A title and a colour of an author's choice; the second in a single character (C1).
ORDERS = "\x1b]0;title\x07\x9b31m"


def archive(content: bytes, diff_id: str = "", **document: Any) -> bytes:
    """A docker archive with one layer; `document` is more of the image's config."""
    diff_id = diff_id or f"sha256:{hashlib.sha256(content).hexdigest()}"
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        **document,
    }
    manifest = [{"Config": "c.json", "RepoTags": ["hostile:1"], "Layers": ["layer.tar"]}]
    return layer(
        entry("layer.tar", content),
        entry("c.json", json.dumps(config).encode()),
        entry("manifest.json", json.dumps(manifest).encode()),
    )


@pytest.mark.parametrize("attack", ATTACKS)
def test_layer_that_reaches_out_of_its_root_is_refused(wherry: Cli, attack: str) -> None:
    before = wherry("images", "-aq").stdout

    result = wherry("load", input=archive(layer(*ATTACKS[attack])), check=False)

    assert result.returncode == 1
    assert result.stderr.startswith("wherry: ")
    assert result.stderr.count("\n") == 1
    assert wherry("images", "-aq").stdout == before


@pytest.mark.parametrize("diff_id", ["sha256:../../../../escaped", f"sha256:{'0' * 64}"])
def test_layer_that_is_not_what_its_image_says_is_refused(wherry: Cli, diff_id: str) -> None:
    before = wherry("images", "-aq").stdout

    result = wherry("load", input=archive(layer(entry("a", b"1")), diff_id), check=False)

    assert result.returncode == 1
    assert result.stderr.startswith("wherry: ")
    assert wherry("images", "-aq").stdout == before


@pytest.mark.parametrize(
    "config",
    [
        {"User": "9" * 5000},
        {"StopSignal": "1" * 5000},
        {"StopSignal": f"RTMIN+{'1' * 5000}"},
        {"ExposedPorts": {"1" * 5000: {}}},
        {"ExposedPorts": {"abc/tcp": {}}},
    ],
    ids=["user", "signal", "real-time signal", "port", "no port"],
)
def test_number_that_is_none_is_one_line(wherry: Cli, config: dict[str, Any]) -> None:
    content = layer(entry("bin", kind=DIRECTORY))
    wherry("load", input=archive(content, config={"Cmd": ["/x"], **config}))

    result = wherry("create", "--publish-all", "--name", "box", "hostile:1", check=False)
    if result.returncode == 0:
        result = wherry("start", "box", check=False)

    assert result.returncode in (1, 125)
    assert result.stderr.startswith("wherry: ")
    assert "int" not in result.stderr.split(":")[1].split()  # of Python
    assert result.stderr.count("\n") == 1


@as_root
def test_device_of_an_image_is_none_of_the_hosts(wherry: Cli, host_dir: str) -> None:
    content = layer(
        entry("data", kind=DIRECTORY),
        entry("data/null", kind=CHARACTER, mode=0o666, device=(1, 3)),
        entry("data/file", b"1"),
    )
    wherry("load", input=archive(content, config={"Cmd": ["/x"]}))
    wherry("create", "--name", "box", "hostile:1")

    result = wherry("cp", "box:/data", "out")

    assert sorted(each.name for each in Path(host_dir, "out").iterdir()) == ["file"]
    assert "wherry: warning: out/null is left out: it is a device" in result.stderr


@on_linux
def test_links_of_an_image_lead_no_mount_out_of_it(wherry: Cli, host_dir: str) -> None:
    places = ("volume", "deep", "bound", "etc/hosts", "etc/resolv.conf", "etc/hostname", "run")
    up = "../" * 30
    links = [
        entry(place, kind=SYMLINK, linkname=f"{up if at % 2 else '/'}{host_dir[1:]}/{at}")
        for at, place in enumerate(places)
    ]
    content = layer(*links, entry("bin", kind=DIRECTORY))
    config = {"Cmd": ["/x"], "Volumes": {"/volume": {}, "/deep/below": {}}}
    wherry("load", input=archive(content, config=config))

    result = wherry(
        "run", "--rm", OFFLINE, "-v", f"{host_dir}:/bound/here:ro", "--tmpfs", "/run/t",
        "--workdir", "/deep/w", "hostile:1", check=False,
    )  # fmt: skip

    # The program is not there, which is found once everything has been mounted.
    assert (result.returncode, "no such file" in result.stderr) == (127, True), result.stderr
    assert list(Path(host_dir).iterdir()) == []


def test_what_an_image_says_of_itself_does_not_steer_the_terminal(
    wherry: Cli, terminal: Callable[..., Terminal]
) -> None:
    config = {"Labels": {"label": ORDERS}, "Cmd": [f"/{ORDERS}"], "WorkingDir": f"/{ORDERS}"}
    history = [{"created_by": ORDERS, "comment": ORDERS}]
    content = layer(entry("bin", kind=DIRECTORY))
    wherry("load", input=archive(content, config=config, history=history))
    wherry("create", "--name", "box", "hostile:1")

    for line in (
        ("history", "hostile:1"),
        ("history", "--format", "{{.CreatedBy}}", "hostile:1"),
        ("ps", "-a", "--format", "table {{.Command}}\t{{.Labels}}"),
        ("inspect", "box"),
        ("inspect", "--format", "{{.Config.Labels}}", "box"),
        ("events", "--since", "1h", "--until", "0s"),
        ("start", "-a", "box"),
    ):
        screen = terminal(*line, columns=200)
        screen.wait()
        assert b"\x1b]0" not in screen.screen, line
        assert "\x9b".encode() not in screen.screen, line
        assert b"0;title" in screen.screen, line


def test_names_of_files_do_not_steer_the_terminal(
    wherry: Cli, terminal: Callable[..., Terminal], busybox_image: str
) -> None:
    wherry("run", "--network=none", "--name", "box", busybox_image, "touch", f"/{ORDERS}")

    screen = terminal("diff", "box")

    assert screen.wait() == 0
    assert b"A /\\x1b]0;title\\x07\\x9b31m" in screen.screen


def test_format_is_whole_for_a_program_and_keeps_its_own_colours(
    wherry: Cli, terminal: Callable[..., Terminal], busybox_image: str
) -> None:
    wherry("create", "--name", "box", "--label", f"l={ORDERS}", busybox_image)
    template = '\x1b[1m{{.Label "l"}}'

    screen = terminal("ps", "-a", "--format", template)

    assert screen.wait() == 0
    assert b"\x1b[1m\\x1b]0;title\\x07\\x9b31m" in screen.screen
    assert wherry("ps", "-a", "--format", template).stdout == f"\x1b[1m{ORDERS}\n"
