"""Properties of a spec that name something of the kernel's: what the container then has."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.requirements import need_tool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.oci import Oci

pytestmark = pytest.mark.linux


@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        ({"mode": "MPOL_BIND", "nodes": "0"}, "bind:0"),
        ({"mode": "MPOL_INTERLEAVE", "nodes": "0-0"}, "interleave:0"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}, "bind=static:0"),
        ({"mode": "MPOL_LOCAL"}, "local"),
    ],
)
def test_memory_policy_is_that_of_the_program_and_of_exec(
    oci: Oci, policy: dict[str, Any], shown: str
) -> None:
    if not Path("/proc/self/numa_maps").exists():
        pytest.skip("needs a kernel with CONFIG_NUMA")
    oci.spec["linux"]["memoryPolicy"] = policy

    assert f" {shown} " in oci.run("cat", "/proc/self/numa_maps").stdout
    oci.create("c2", "sleep", "60")
    oci("start", "c2")
    assert f" {shown} " in oci("exec", "c2", "cat", "/proc/self/numa_maps").stdout


@pytest.fixture
def device() -> Iterator[str]:
    """A network interface of the host that has an address; its peer stays."""
    need_tool("ip")
    name, peer = f"wt{os.getpid() % 10000}a", f"wt{os.getpid() % 10000}b"
    made = _ip("link", "add", name, "type", "veth", "peer", "name", peer, check=False)
    if made.returncode:
        pytest.skip(f"needs virtual network devices: {made.stderr.strip()}")
    _ip("addr", "add", "192.0.2.7/24", "dev", name)
    _ip("addr", "add", "2001:db8::7/64", "dev", name, "nodad")
    _ip("link", "set", name, "mtu", "1400")
    yield name
    # A veth ends with its namespace; where it did not get there it is still here.
    _ip("link", "delete", peer, check=False)


def _ip(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True)


def _inside(oci: Oci, *words: str) -> str:
    """What ip(8) of the host says in the network namespace of container c1."""
    pid = json.loads(oci("state", "c1").stdout)["pid"]
    return subprocess.run(
        ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", *words],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip


def test_network_device_of_the_host_becomes_the_containers(oci: Oci, device: str) -> None:
    oci.spec["linux"]["netDevices"] = {device: {"name": "eth7"}}

    oci.create("c1", "sleep", "60")

    assert _ip("link", "show", device, check=False).returncode != 0
    shown = _inside(oci, "addr", "show", "eth7")
    assert "inet 192.0.2.7/24" in shown
    assert "inet6 2001:db8::7/64" in shown
    assert "mtu 1400" in shown
    assert ",UP" in shown


def test_network_device_keeps_its_name_or_gets_the_next_one(oci: Oci, device: str) -> None:
    oci.spec["linux"]["netDevices"] = {device: {"name": "eth%d"}}
    oci.create("c1", "sleep", "60")
    assert "inet 192.0.2.7/24" in _inside(oci, "addr", "show", "eth0")


def test_network_device_is_moved_into_a_user_namespace(
    oci: Oci, device: str, mapped: Callable[[], None]
) -> None:
    mapped()
    oci.spec["linux"]["netDevices"] = {device: {}}
    oci.create("c1", "sleep", "60")
    assert "inet 192.0.2.7/24" in _inside(oci, "addr", "show", device)


@pytest.mark.parametrize(
    ("devices", "reason"),
    [
        ({"nosuch0": {}}, "cannot move network device nosuch0"),
        ({"DEVICE": {"name": "lo"}}, "the container has a device lo already"),
        ({"DEVICE": {"name": "a/b"}}, "'a/b' is not the name of an interface"),
        ({"DEVICE": {"name": "x" * 16}}, "is not the name of an interface"),
    ],
)
def test_network_device_that_cannot_be_moved_stays(
    oci: Oci, device: str, devices: dict[str, Any], reason: str
) -> None:
    oci.spec["linux"]["netDevices"] = {
        name.replace("DEVICE", device): value for name, value in devices.items()
    }

    result = oci.run("true", check=False)

    assert (result.returncode, result.stdout) == (1, "")
    assert reason in result.stderr
    assert _ip("link", "show", device, check=False).returncode == 0
    assert oci("list", "-q").stdout == ""


def test_network_device_needs_a_network_namespace(oci: Oci) -> None:
    oci.spec["linux"]["netDevices"] = {"eth0": {}}
    oci.spec["linux"]["namespaces"] = [
        entry for entry in oci.spec["linux"]["namespaces"] if entry["type"] != "network"
    ]

    assert "needs a network namespace" in oci.run("true", check=False).stderr


def test_writable_control_group_belongs_to_the_containers_user(oci: Oci) -> None:
    oci.spec["linux"]["cgroupsPath"] = f"/wherry-test-delegated-{os.getpid()}"
    oci.spec["process"]["user"]["uid"] = 12
    for entry in oci.spec["mounts"]:
        if entry["type"] == "cgroup":
            entry["options"].remove("ro")

    oci.create("c1", "sleep", "60")

    group = _group(f"wherry-test-delegated-{os.getpid()}")
    assert group.stat().st_uid == 12
    assert (group / "cgroup.procs").stat().st_uid == 12
    assert (group / "cgroup.freeze").stat().st_uid == 0


def test_control_group_that_is_read_only_stays_ours(oci: Oci) -> None:
    oci.spec["linux"]["cgroupsPath"] = f"/wherry-test-kept-{os.getpid()}"
    oci.spec["process"]["user"]["uid"] = 12

    oci.create("c1", "sleep", "60")

    assert _group(f"wherry-test-kept-{os.getpid()}").stat().st_uid == 0


def _group(name: str) -> Path:
    for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        if Path(top, name, "cgroup.procs").exists():
            return Path(top, name)
    pytest.skip("needs control groups of version 2")


def test_hook_that_fails_ends_with_the_last_hooks(oci: Oci) -> None:
    journal = oci.base / "journal"
    oci.spec["hooks"] = {
        "createRuntime": [{"path": "/bin/false"}],
        "poststop": [
            {"path": oci.script("first", f"#!/bin/sh\ncat > {journal}\nexit 1\n")},
            {
                "path": oci.script(
                    "second", f"#!/bin/sh\necho >> {journal}; echo two >> {journal}\n"
                )
            },
        ],
    }

    result = oci.run("true", check=False)

    assert result.returncode == 1
    state, word = journal.read_text().splitlines()
    assert (json.loads(state)["status"], word) == ("stopped", "two")


def test_last_hook_that_fails_does_not_keep_a_container(oci: Oci) -> None:
    oci.spec["hooks"] = {"poststop": [{"path": "/bin/false"}]}
    oci.create("c1", "true")

    log = oci.base / "log"
    assert oci("--log", str(log), "delete", "c1").returncode == 0

    assert "poststop hook /bin/false failed" in log.read_text()


def test_hook_after_the_start_that_fails_ends_the_container(oci: Oci) -> None:
    oci.spec["hooks"] = {"poststart": [{"path": "/bin/false"}]}
    oci.create("c1", "sleep", "60")

    result = oci("start", "c1", check=False)

    assert "poststart hook /bin/false failed with exit code 1" in result.stderr
    assert oci.status("c1") == "stopped"


@pytest.mark.parametrize(
    ("hook", "reason"),
    [
        ({"path": "false"}, "path 'false' is not absolute"),
        ({"path": "/bin/true", "timeout": 0}, "timeout 0 is not greater than zero"),
    ],
)
def test_hook_that_cannot_be_run_is_refused(oci: Oci, hook: dict[str, Any], reason: str) -> None:
    oci.spec["hooks"] = {"poststop": [hook]}

    assert reason in oci.run("true", check=False).stderr
