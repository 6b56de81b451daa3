"""What is wrong with a Dockerfile, a context or a disk is told in docker's words."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.building import NO_NETWORK, build, context, run
from support.settings import as_root, as_rootless, as_single_uid

if TYPE_CHECKING:
    from support.building import Build
    from support.cli import Cli

__all__ = ["build", "context"]

START = "wherry: failed to build: failed to solve: "


AT = "dockerfile parse error on line"


@pytest.mark.parametrize(
    ("text", "reason", "marked"),
    [
        ("FROM busybox\nRUM true\n", f"{AT} 2: unknown instruction: RUM", 2),
        ("FROM busybox\nCOPY --form=a b c\n", f"{AT} 2: unknown flag: --form", 2),
        ("RUN true\n", f"{AT} 1: no build stage in current context", 1),
        ("FROM busybox\nCOPY a\n", f"{AT} 2: COPY requires at least two arguments", 2),
        ("FROM busybox\nRUN <<END\ntrue\n", f"{AT} 2: unterminated heredoc", 2),
        ("FROM busybox\nENV A=${B\n", f"{AT} 2: failed to process", 2),
        ("FROM busybox\nCOPY --from=1 /a /\n", "refers to a stage that is not before", 2),
        ("FROM busybox\nCOPY nowhere /\n", '"/nowhere": not found', 2),
        ("FROM busybox\nADD --checksum=sha256:1 hello /\n", "checksum can't be specified", 2),
        ("FROM busybox\nUSER nobody:none\nRUN true\n", "none", 3),
        ("FROM busybox\nRUN exit 7\n", "did not complete successfully: exit code: 7", 2),
        ('FROM busybox\nRUN ["nothing"]\n', '"nothing"', 2),
        ("FROM busybox\nHEALTHCHECK --interval=x CMD true\n", "interval", 2),
        ("FROM busybox\nSTOPSIGNAL SIGNONE\n", "SIGNONE", 2),
        ("FROM busybox\nHEALTHCHECK --retries=-1 CMD true\n", "cannot be less than 0: -1", 2),
        ("FROM busybox\nHEALTHCHECK --timeout=9us CMD\ttrue\n", "cannot be less than 1ms: 9us", 2),
        ("FROM busybox\nEXPOSE http\n", "http", 2),
        ("FROM busybox\nCOPY --chmod=9 hello /\n", "invalid chmod parameter: '9'", 2),
        ("FROM busybox\nRUN --mount=type=cache,target=/a,mode=9 true\n", "mode: '9'", 2),
        ("FROM busybox\nRUN --network=host true\n", "network.host is not allowed", 2),
        ("FROM busybox AS a\nCOPY --from=a /a /b\n", "cannot copy from stage 'a'", 2),
        ("FROM busybox\nCOPY --from=scratchy:0: /a /b\n", "invalid reference format", 2),
        ("ARG A=${B?none}\nFROM busybox\n", f"{AT} 1: failed to process", 1),
        ("FROM ${A?none}\n", f"{AT} 1: failed to process", 1),
        ("FROM --platform=windows/none busybox\n", "", 1),
    ],
)
def test_a_mistake_is_named_and_shown(build: Build, text: str, reason: str, marked: int) -> None:
    failed = build(text, check=False)

    assert failed.returncode == 1
    last = next(line for line in failed.stderr.splitlines() if line.startswith("wherry: "))
    assert reason in last
    assert "Traceback" not in failed.stderr
    if marked:
        assert last.startswith(START)
        line = text.splitlines()[marked - 1]
        assert f"{marked:>4} | >>> {line}" in failed.stderr


def test_what_is_not_there_to_be_built_is_named(wherry: Cli, context: Path) -> None:
    for words, reason in (
        ([str(context)], "failed to read dockerfile: open Dockerfile: no such file or directory"),
        (["-f", f"{context}/None", str(context)], "open None: no such file or directory"),
        ([f"{context}/none"], "path"),
    ):
        failed = wherry("build", *words, check=False)

        assert failed.returncode == 1
        assert failed.stderr.startswith("wherry: ")
        assert reason in failed.stderr
        assert len(failed.stderr.splitlines()) <= 2
    assert wherry("build", check=False).returncode == 1
    assert wherry("build", "--none", str(context), check=False).returncode == 125


def test_a_file_that_cannot_be_read_is_named(build: Build, context: Path, wherry: Cli) -> None:
    os.mkfifo(context / "pipe")
    failed = build("FROM busybox\nCOPY . /\n", check=False)

    assert "Traceback" not in failed.stderr
    assert failed.returncode in (0, 1)  # docker leaves pipes out, or copies them


@pytest.mark.parametrize("target", ["/etc/hostname", "../../outside"])
def test_no_link_leads_out_of_a_context(
    build: Build, context: Path, target: str, host_dir: str
) -> None:
    with open(f"{host_dir}/outside", "w") as file:
        file.write("hush\n")
    (context / "out").symlink_to(target)
    (context / "sub" / "up").symlink_to("../out")

    for text in (
        "COPY out /",
        "COPY out/ /x/",
        "COPY sub/up /",
        "COPY out/etc/hostname /",
        "ADD out /",
        "RUN --mount=source=out,target=/x cat /x /x/etc/hostname",
    ):
        failed = build(f"FROM busybox\n{text}\n", check=False)

        assert failed.returncode == 1, text
        assert "not found" in failed.stderr or "no such file" in failed.stderr.lower(), text
        assert "hush" not in failed.stderr


SIZES = ("4k", "64k", "600k", "1500k", "3m", "4500k")


@as_root
@pytest.mark.parametrize("size", SIZES)
def test_a_full_disk_is_one_line_and_no_damage(
    wherry: Cli, wherry_root: str, busybox_image: str, context: Path, size: str
) -> None:
    """The store is on a disk that has room for the base image, and `size` more."""
    (context / "Dockerfile").write_text(
        f"FROM {busybox_image}\nCOPY big /\nRUN dd if=/dev/urandom of=/other bs=1200 count=1000\n"
    )
    (context / "big").write_bytes(os.urandom(1 << 20))
    data, aside = f"{wherry_root}/data", f"{wherry_root}/aside"
    os.rename(data, aside)
    os.mkdir(data, 0o700)
    used = subprocess.run(["du", "-sk", aside], capture_output=True, text=True, check=True).stdout
    whole = int(used.split()[0]) * 1024 + _bytes(size)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={whole}", "none", data], check=True)
    try:
        subprocess.run(["cp", "-a", f"{aside}/.", data], check=True)
        failed = wherry("build", NO_NETWORK, "-t", "made", str(context), check=False)

        if failed.returncode:
            lines = [line for line in failed.stderr.splitlines() if line.startswith("wherry: ")]
            assert len(lines) == 1
            assert "No space left on device" in failed.stderr
            assert "Traceback" not in failed.stderr
        assert wherry("system", "check").lines == []
        assert not [*Path(data).glob("containers/*")]
        subprocess.run(["mount", "-o", "remount,size=64m", data], check=True)
        wherry("build", NO_NETWORK, "-t", "made", str(context))
        assert run(wherry, "made", "stat", "-c", "%s", "/big", "/other") == "1048576\n1200000\n"
        assert wherry("system", "check").lines == []
        wherry("rmi", "made")
    finally:
        subprocess.run(["umount", data], check=True)


def _bytes(size: str) -> int:
    return int(size[:-1]) << {"k": 10, "m": 20}[size[-1]]


@as_root
def test_a_full_disk_gets_no_half_of_an_output(wherry: Cli, build: Build, host_dir: str) -> None:
    full = f"{host_dir}/full"
    os.mkdir(full)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", full], check=True)
    try:
        for kind in ("tar", "oci", "docker"):
            failed = build("FROM busybox\n", "-o", f"type={kind},dest={full}/out", check=False)

            assert failed.returncode == 1
            assert "No space left on device" in failed.stderr
            assert os.listdir(full) == []
    finally:
        subprocess.run(["umount", full], check=True)


@as_rootless
def test_an_output_that_may_not_be_written_is_told_in_a_line(build: Build, host_dir: str) -> None:
    os.mkdir(f"{host_dir}/closed")
    os.chmod(f"{host_dir}/closed", 0o555)
    out = f"{host_dir}/closed/out"
    for option in (f"--output={out}", f"--output=type=oci,dest={out}", f"--iidfile={out}"):
        failed = build("FROM busybox\n", "-q", option, check=False)

        assert failed.returncode == 1
        assert failed.stderr.startswith("wherry: cannot ")
        assert failed.stderr.endswith(f" {out}: Permission denied\n")


@as_single_uid
def test_a_user_with_one_id_is_told_what_a_command_may_have_missed(build: Build) -> None:
    failed = build("FROM busybox\nRUN exit 100\n", check=False)

    assert "this user has a single id" in failed.stderr
    assert 'APT::Sandbox::User "root";' in failed.stderr


@as_root
@pytest.mark.parametrize("told", [{}, [], {"contexts": [{"key": "0" * 32, "entries": [["a", 1]]}]}])
def test_what_another_release_sends_to_a_machine_is_told_of_in_a_line(
    wherry: Cli, told: object
) -> None:
    """As the guest hears it: its build has a host's files on standard input."""
    text = json.dumps(told).encode()

    failed = wherry("build", "--sent", "-", input=struct.pack(">Q", len(text)) + text, check=False)

    assert failed.returncode == 1
    what, mend = failed.stderr.splitlines()
    assert what.startswith("wherry: the machine has another release of wherry than this host")
    assert mend == "`wherry machine restart` gives it this one"
