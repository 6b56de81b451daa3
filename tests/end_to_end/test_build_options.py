"""The options of `build` that docker, buildx and podman have: each works, or says why not."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.building import build, context, inspect, run
from support.settings import OFFLINE, on_linux

if TYPE_CHECKING:
    from support.building import Build
    from support.cli import Cli

__all__ = ["build", "context"]


def test_a_run_has_the_rights_and_files_that_the_command_line_says(
    wherry: Cli, build: Build
) -> None:
    shown = build(
        """
        FROM busybox
        RUN grep CapBnd /proc/self/status; cat /etc/resolv.conf /etc/hosts; ulimit -n; hostname
        """,
        *("--cap-drop=ALL", "--cap-add=CHOWN", "--dns=192.0.2.7", "--dns-search=example.net"),
        *("--add-host=other:192.0.2.8", "--ulimit=nofile=77:77", "-t", "made"),
    ).stderr

    lines = [line.split(" ", 2)[-1] for line in shown.splitlines()]
    assert "CapBnd:\t0000000000000001" in lines
    assert "nameserver 192.0.2.7" in lines
    assert "search example.net" in lines
    assert any(line.split() == ["192.0.2.8", "other"] for line in lines)
    assert "77" in lines
    without = build("FROM busybox\nRUN cat /etc/hosts; echo end\n", "--no-hosts").stderr
    assert "127.0.0.1" not in without


@on_linux
def test_a_run_sees_a_volume_of_the_command_line(wherry: Cli, build: Build, context: Path) -> None:
    build(
        "FROM busybox\nRUN cp /deep/data/hello /copied\n",
        *("-v", f"{context}:/deep/data:ro", "-t", "made"),
    )

    assert run(wherry, "made", "cat", "/copied") == "hello\n"
    assert run(wherry, "made", "ls", "/deep", check=False) == ""


def test_a_limit_holds_for_run_or_is_said_not_to(wherry: Cli, build: Build) -> None:
    limited = wherry("run", "--rm", OFFLINE, "--memory=40m", "busybox", "true").stderr
    text = "FROM busybox\nRUN cat /sys/fs/cgroup/memory.max || true\n"
    built = build(text, "--memory=40m", "--memory-swap=-1", "--progress=plain").stderr

    warning = "memory limits are discarded"
    assert (warning in built) == (warning in limited)
    assert (" 41943040\n" in built) == (warning not in limited)


def test_an_image_gets_and_loses_variables_and_labels(wherry: Cli, build: Build) -> None:
    build(
        """
        FROM busybox
        ENV THERE=1
        LABEL there=1 other=2
        RUN test $THERE$GIVEN = 12
        """,
        *("--env", "GIVEN=2", "--unsetenv=THERE", "--unsetlabel=there", "-t", "made"),
        *("--annotation", "org.example=x", "--omit-history", "--layers=false"),
    )

    config = inspect(wherry, "made")["Config"]
    assert isinstance(config, dict)
    assert "GIVEN=2" in config["Env"]
    assert "THERE=1" not in config["Env"]
    assert config["Labels"] == {"other": "2"}
    assert "RUN" not in wherry("history", "--no-trunc", "made").stdout


def test_annotations_are_the_manifests(build: Build, host_dir: str) -> None:
    build("FROM busybox\n", "--annotation=org.example=x", "-o", f"type=oci,dest={host_dir}/a.tar")
    subprocess.run(["tar", "-xf", f"{host_dir}/a.tar", "-C", host_dir], check=True)

    entry = json.loads((Path(host_dir) / "index.json").read_text())["manifests"][0]
    manifest = Path(host_dir) / "blobs" / entry["digest"].replace(":", "/")
    assert json.loads(manifest.read_text())["annotations"] == {"org.example": "x"}


def test_another_image_can_stand_in_the_first_from(wherry: Cli, build: Build) -> None:
    build("FROM nowhere.example/none AS one\nRUN echo a > /a\n", "--from=busybox", "-t", "made")

    assert run(wherry, "made", "cat", "/a") == "a\n"


def test_all_layers_become_one(wherry: Cli, build: Build) -> None:
    build("FROM busybox\nRUN echo a > /a\nRUN echo b > /b\n", "--squash-all", "-t", "made")

    assert run(wherry, "made", "cat", "/a", "/b") == "a\nb\n"
    found = inspect(wherry, "made")["RootFS"]
    assert isinstance(found, dict)
    assert len(found["Layers"]) == 1


def test_an_image_that_is_not_here_is_not_fetched(build: Build) -> None:
    failed = build("FROM nowhere.example/none\n", "--pull=never", check=False)

    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].endswith(
        "nowhere.example/none:latest: image not found, and --pull=never"
    )


def test_another_ignore_file_can_be_named(
    wherry: Cli, build: Build, context: Path, host_dir: str
) -> None:
    (context / ".dockerignore").write_text("sub\n")
    with open(f"{host_dir}/ignore", "w") as file:
        file.write("hello\n")
    build("FROM busybox\nCOPY . /all/\n", f"--ignorefile={host_dir}/ignore", "-t", "made")

    found = run(wherry, "made", "ls", "/all").split()
    assert "sub" in found
    assert "hello" not in found


def test_what_is_said_can_go_to_a_file(build: Build, host_dir: str) -> None:
    log = f"{host_dir}/log"
    quiet = build("FROM busybox\nRUN echo told\n", "--logfile", log, "-t", "made")

    assert quiet.stderr == ""
    with open(log) as file:
        assert " told\n" in file.read()


def test_proxies_of_dockers_config_are_known_to_run(
    wherry: Cli, build: Build, host_dir: str
) -> None:
    config = {"proxies": {"default": {"httpProxy": "http://proxy.example:1"}}}
    with open(f"{host_dir}/config.json", "w") as file:
        json.dump(config, file)
    wherry.environment["DOCKER_CONFIG"] = host_dir
    build("FROM busybox\nRUN echo $HTTP_PROXY > /proxy\n", "-t", "made")

    assert run(wherry, "made", "cat", "/proxy") == "http://proxy.example:1\n"
    assert "proxy.example" not in wherry("history", "--no-trunc", "made").stdout
    build("FROM busybox\nRUN echo $HTTP_PROXY > /proxy\n", "-t", "made", "--http-proxy=false",
          "--no-cache")  # fmt: skip
    assert run(wherry, "made", "cat", "/proxy") == "\n"


ACCEPTED = """
--provenance=false --sbom=false --attest=type=provenance,disabled=true
--provenance=mode=min,inline-only=true --isolation=default --rm
--force-rm --compress --format=docker --layers --load --builder=default --disable-content-trust
--security-opt=no-new-privileges --jobs=2 --skip-unused-stages -D --rewrite-timestamp
--identity-label=false --pull=missing --pull=newer --pull=false --tls-verify=false
"""


@on_linux
def test_what_changes_nothing_is_accepted(build: Build) -> None:
    build("FROM busybox\n", *(word for word in ACCEPTED.split() if word != "--pull=newer"))


@on_linux
@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--sbom=true", "attestations are not made"),
        ("--provenance=mode=max", "attestations are not made"),
        ("--attest=type=sbom", "attestations are not made"),
        ("--userns=host", "a RUN has namespaces of its own"),
        ("--stdin", "a RUN has nothing to read"),
        ("--sign-by=me", "images are not signed"),
    ],
)
def test_what_cannot_be_had_is_refused_in_a_line(build: Build, option: str, reason: str) -> None:
    refused = build("FROM busybox\n", option, check=False)

    assert refused.returncode == 1
    assert refused.stderr == f"wherry: {option.partition('=')[0]}: {reason}\n"


@on_linux
def test_a_dockerfile_is_checked_and_described_without_a_build(
    wherry: Cli, build: Build, context: Path
) -> None:
    text = """\
# VERSION is what is built
ARG VERSION=1
# one makes it
FROM busybox AS one
ARG VERSION
RUN --mount=type=secret,id=token,required=true true
FROM one
CMD sh
"""
    targets = build(text, "--call=targets").stdout.splitlines()
    assert [line.split(None, 1) for line in targets] == [
        ["TARGET", "DESCRIPTION"],
        ["one", "makes it"],
        ["(default)"],
    ]
    outline = build(text, "--call=outline", "--target=one").stdout.splitlines()
    assert outline[:2] == ["TARGET:      one", "DESCRIPTION: makes it"]
    assert outline[4].split(None, 2) == ["VERSION", "1", "is what is built"]
    assert outline[-1].split() == ["token", "true"]
    checked = build(text, "--check", check=False)
    assert checked.returncode == 1
    assert checked.stdout.startswith("WARNING: JSONArgsRecommended\n")
    assert "   8 | >>> CMD sh\n" in checked.stdout
    assert checked.stdout.endswith("Check complete, 1 warning has been found!\n")
    fine = build(text.replace("CMD sh", 'CMD ["sh"]'), "--check")
    assert fine.stdout == "Check complete, no warnings found.\n"
    failed = build(f"# check=error=true\n{text}", check=False)
    assert failed.returncode == 1
    assert " signals (line 9)\n" in failed.stderr
    assert failed.stderr.endswith("lint violation found for rules: JSONArgsRecommended\n")
    unset = build("FROM busybox\nRUN --mount=target=${a?none} true", "--call=outline", check=False)
    assert unset.returncode == 1
    assert unset.stderr.endswith("a: none\n")


@on_linux
def test_scripts_that_ask_buildx_for_its_builder_go_on(wherry: Cli) -> None:
    assert wherry("buildx", "version").stdout.startswith("wherry buildx ")
    assert wherry("buildx", "ls").stdout.splitlines()[1].startswith("default*")
    assert "Platforms:" in wherry("buildx", "inspect", "--bootstrap").stdout
    wherry("buildx", "use", "default")
    for words in (("create", "--use", "--name=mine"), ("rm", "mine"), ("bake",)):
        refused = wherry("buildx", *words, check=False)
        assert refused.returncode == 1
        assert refused.stderr.startswith("wherry: there is one builder, and it is always there\n")


@on_linux
def test_programs_of_another_processor_are_called_that(build: Build, context: Path) -> None:
    # An ELF header of Itanium, which nothing emulates.
    (context / "sh").write_bytes(
        b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x32\x00\x01" + bytes(43)
    )
    (context / "sh").chmod(0o755)
    failed = build("FROM --platform=linux/ia64 scratch\nCOPY sh /bin/sh\nRUN true\n", check=False)

    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-2].endswith('exec: "/bin/sh": exec format error')
    assert "programs of linux/ia64 run on linux/amd64 where there is an emulator" in failed.stderr
