"""Where a container's output goes beside the terminal: files, journald, syslog, nowhere."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.settings import OFFLINE, as_root, on_linux

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.cli import Cli
    from support.terminal import Terminal

_JOURNALD = "/lib/systemd/systemd-journald"


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_log_that_is_compressed_reads_as_a_whole(
    wherry: Cli, busybox_image: str, driver: str
) -> None:
    limits = ("max-size=20k", "max-file=50", "compress=true")
    options = [word for each in limits for word in ("--log-opt", each)]
    script = "for i in $(seq 3000); do echo line $i; done"

    wherry(
        "run", OFFLINE, "--name", "box", "--log-driver", driver, *options,
        busybox_image, "sh", "-c", script,
    )  # fmt: skip

    assert wherry("logs", "box").lines == [f"line {number}" for number in range(1, 3001)]
    assert wherry("logs", "--tail", "2", "box").lines == ["line 2999", "line 3000"]


def test_details_show_what_was_asked_for(wherry: Cli, busybox_image: str) -> None:
    options = ("--log-opt=labels=tier", "--log-opt=env=STAGE", "--log-opt=tag={{.Name}}")

    wherry(
        "run", OFFLINE, "--name", "box", "--label", "tier=web", "-e", "STAGE=test", *options,
        busybox_image, "echo", "hello",
    )  # fmt: skip

    shown = wherry("logs", "--details", "box").stdout
    assert shown == "STAGE=test,tag=box,tier=web hello\n"
    assert wherry("logs", "box").stdout == "hello\n"


def test_wrong_option_is_told_before_anything_is_made(wherry: Cli, busybox_image: str) -> None:
    result = wherry("run", OFFLINE, "--log-opt", "size=1", busybox_image, "true", check=False)

    assert result.returncode == 125
    assert "unknown log opt 'size' for json-file log driver" in result.stderr
    assert wherry("ps", "-aq").stdout == ""


def _lines(server: socket.socket, count: int) -> list[str]:
    server.settimeout(60)
    return [server.recv(65536).decode() for _ in range(count)]


@on_linux  # as all that listen on this host: a machine's loopback and sockets are its own
def test_syslog_gets_every_line_and_logs_still_reads_them(
    wherry: Cli, busybox_image: str, host_dir: str
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(f"{host_dir}/syslog")
        os.chmod(f"{host_dir}/syslog", 0o666)
        script = "echo one; echo two >&2; printf three"

        wherry(
            "run", OFFLINE, "--name", "box", "--log-driver", "syslog",
            "--log-opt", f"syslog-address=unixgram://{host_dir}/syslog",
            "--log-opt", "syslog-facility=local0", "--log-opt", "tag=web",
            busybox_image, "sh", "-c", script,
        )  # fmt: skip

        lines = sorted(_lines(server, 3))
    pattern = r"<(\d+)>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d web\[\d+\]: (\w+)"
    found = [re.fullmatch(pattern, line) for line in lines]
    assert {match.groups() for match in found if match} == {
        ("131", "two"), ("134", "one"), ("134", "three"),
    }  # fmt: skip
    result = wherry("logs", "box")
    assert (result.stdout, result.stderr) == ("one\nthree", "two\n")


@on_linux
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_syslog_goes_to_another_host(wherry: Cli, busybox_image: str, transport: str) -> None:
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as server:
        server.bind(("127.0.0.1", 0))
        if transport == "tcp":
            server.listen()
        address = f"{transport}://127.0.0.1:{server.getsockname()[1]}"

        wherry(
            "run", OFFLINE, "--rm", "--log-driver", "syslog",
            "--log-opt", f"syslog-address={address}", "--log-opt", "syslog-format=rfc5424",
            busybox_image, "echo", "hello",
        )  # fmt: skip

        if transport == "tcp":
            connection, _ = server.accept()
            with connection:
                (line,) = _lines(connection, 1)
        else:
            (line,) = _lines(server, 1)
    ending = "\n" if transport == "tcp" else ""
    assert re.fullmatch(rf"<30>1 \S+Z \S+ [0-9a-f]{{12}} \d+ [0-9a-f]{{12}} - hello{ending}", line)


@pytest.mark.parametrize("address", ["unixgram:///no/such/socket", "tcp://127.0.0.1:1"])
def test_syslog_that_is_not_there_is_told(wherry: Cli, busybox_image: str, address: str) -> None:
    result = wherry(
        "run", OFFLINE, "--rm", "--log-driver", "syslog",
        "--log-opt", f"syslog-address={address}", busybox_image, "true", check=False,
    )  # fmt: skip

    assert result.returncode == 125
    assert "failed to initialize logging driver syslog" in result.stderr
    assert wherry("ps", "-aq").stdout == ""


@on_linux
def test_container_outlives_its_syslog(wherry: Cli, busybox_image: str, host_dir: str) -> None:
    path = f"{host_dir}/syslog"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        os.chmod(path, 0o666)
        wherry(
            "run", OFFLINE, "-d", "--name", "box", "--log-driver", "syslog",
            "--log-opt", f"syslog-address=unixgram://{path}",
            busybox_image, "sh", "-c", "echo one; exec sleep 1000",
        )  # fmt: skip
        _lines(server, 1)
    os.unlink(path)
    followed = wherry.start("logs", "--follow", "box")
    assert followed.stdout is not None
    assert followed.stdout.readline() == b"one\n"

    wherry("exec", "box", "sh", "-c", "echo two > /proc/1/fd/1")

    assert followed.stdout.readline() == b"two\n"
    wherry("rm", "--force", "box")
    followed.communicate(timeout=60)


@as_root
@pytest.mark.skipif(not os.path.exists(_JOURNALD), reason=f"needs {_JOURNALD}")
def test_journald_gets_every_line(wherry: Cli, busybox_image: str, host_dir: str) -> None:
    # A journal of its own: the mounts are this script's alone.
    script = f"""
        set -e
        mkdir -p /run/systemd /run/log
        mount -t tmpfs tmpfs /run/systemd && mount -t tmpfs tmpfs /run/log
        mkdir -p /run/systemd/journal /run/log/journal
        {_JOURNALD} & journald=$!
        trap "kill $journald" EXIT
        while ! [ -S /run/systemd/journal/socket ]; do sleep 0.05; done
        "$@"
        journalctl --sync || true
        journalctl -D /run/log/journal --no-pager -o json CONTAINER_NAME=box
    """
    command = (
        *wherry.account.command, "run", OFFLINE, "--name", "box", "--log-driver", "journald",
        "--log-opt", "tag=web", "--log-opt", "labels=my-label", "--label", "my-label=x",
        busybox_image, "sh", "-c", "echo one; echo two >&2",
    )  # fmt: skip

    process = wherry.spawn(
        ["unshare", "--mount", "sh", "-c", script, "sh", *command], stderr=subprocess.DEVNULL
    )
    output, _ = process.communicate(timeout=60)

    lines = [line for line in output.decode().splitlines() if line.startswith("{")]
    entries = {entry["MESSAGE"]: entry for entry in map(json.loads, lines)}
    assert entries["one"]["PRIORITY"] == "6"
    assert entries["two"]["PRIORITY"] == "3"
    assert entries["one"]["SYSLOG_IDENTIFIER"] == "web"
    assert entries["one"]["IMAGE_NAME"] == "busybox"
    assert entries["one"]["MY_LABEL"] == "x"
    assert wherry("logs", "box").stdout == "one\n"


@on_linux  # a machine has no descriptors of the command
def test_streams_are_passed_through(wherry: Cli, busybox_image: str, host_dir: str) -> None:
    script = "exec 3>&1; stat -L -c %i /proc/$$/fd/3 >&2; cat"
    with open(f"{host_dir}/output", "wb") as file:
        process = wherry.start(
            "run", OFFLINE, "--name", "box", "--log-driver", "passthrough",
            busybox_image, "sh", "-c", script, stdout=file,
        )  # fmt: skip
        _, errors = process.communicate(b"hello", timeout=60)

    assert Path(f"{host_dir}/output").read_text() == "hello"
    assert errors.decode() == f"{os.stat(f'{host_dir}/output').st_ino}\n"
    told = wherry("logs", "box", check=False)
    assert told.returncode == 1
    assert "does not support reading" in told.stderr


def test_terminal_of_the_host_is_not_passed_through(
    terminal: Callable[..., Terminal], busybox_image: str
) -> None:
    box = terminal("run", OFFLINE, "--rm", "--log-driver", "passthrough", busybox_image, "true")

    box.expect("the log driver passthrough is not for terminals")
    assert box.wait() == 125
