"""What runtime-spec says of a container, looked at from inside: the topics of its validators."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.oci import Oci

pytestmark = pytest.mark.linux


def _shell(oci: Oci, *lines: str) -> list[str]:
    """The words that a script prints in a container of the bundle."""
    return oci.run("sh", "-c", "\n".join(lines)).stdout.split()


def test_default_devices_and_links_are_there(oci: Oci) -> None:
    names = ("null", "zero", "full", "random", "urandom", "tty")
    shown = _shell(oci, f"cd /dev; stat -c %t:%T {' '.join(names)}")
    nodes = [os.stat(f"/dev/{name}").st_rdev for name in names]
    assert shown == [f"{os.major(node):x}:{os.minor(node):x}" for node in nodes]

    links = _shell(oci, "cd /dev; for name in fd stdin stdout stderr ptmx; do readlink $name; done")
    assert links == ["/proc/self/fd", *(f"/proc/self/fd/{n}" for n in range(3)), "pts/ptmx"]


def test_default_file_systems_are_there(oci: Oci) -> None:
    kinds = dict(line.split()[1:3] for line in oci.run("cat", "/proc/mounts").stdout.splitlines())

    for path, kind in (("/proc", "proc"), ("/sys", "sysfs"), ("/dev/pts", "devpts")):
        assert kinds[path] == kind
    assert kinds["/dev/shm"] == "tmpfs"


def test_device_has_the_numbers_mode_and_owner_of_the_spec(oci: Oci) -> None:
    oci.spec["linux"]["devices"] = [
        {"path": "/dev/own", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "gid": 7},
        {"path": "/dev/pipe", "type": "p"},
        {"path": "/tmp/null", "type": "u", "major": 1, "minor": 3},
    ]
    oci.spec["root"]["readonly"] = False

    shown = _shell(oci, "stat -c '%F/%a/%g/%t:%T' /dev/own /dev/pipe /tmp/null | tr ' ' _")

    assert shown[0] == "character_special_file/640/7/1:3"
    assert shown[1].startswith("fifo/666/0/")
    assert shown[2].startswith("character_special_file/666/0/1:3")


def test_file_in_the_place_of_a_device_is_an_error(oci: Oci) -> None:
    (oci.rootfs / "tmp/null").write_text("not a device")
    oci.spec["linux"]["devices"] = [
        {"path": "/tmp/null", "type": "c", "major": 1, "minor": 3},
    ]

    result = oci.run("true", check=False)

    assert "cannot make device /tmp/null: the image has another file there" in result.stderr
    assert (oci.rootfs / "tmp/null").read_text() == "not a device"


def test_device_that_is_there_already_is_taken(oci: Oci) -> None:
    os.mknod(oci.rootfs / "tmp/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    oci.spec["linux"]["devices"] = [
        {"path": "/tmp/null", "type": "c", "major": 1, "minor": 3},
    ]

    assert _shell(oci, "echo x > /tmp/null; echo done") == ["done"]


def test_process_has_the_ids_mask_and_limits_of_the_spec(oci: Oci) -> None:
    process = oci.spec["process"]
    process["user"] = {"uid": 12, "gid": 34, "additionalGids": [56, 78], "umask": 0o27}
    process["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]
    process["oomScoreAdj"] = 321
    process["cwd"] = "/tmp"

    shown = _shell(
        oci,
        "id -u; id -g; id -G; umask; ulimit -S -n; ulimit -H -n; ulimit -c; pwd",
        "cat /proc/self/oom_score_adj",
    )

    assert shown == ["12", "34", "34", "56", "78", "0027", "100", "200", "0", "/tmp", "321"]


def test_process_has_exactly_the_capabilities_of_the_spec(oci: Oci) -> None:
    chown, kill = 1 << 0, 1 << 5
    oci.spec["process"]["capabilities"] = {
        "bounding": ["CAP_CHOWN", "CAP_KILL"],
        "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_CHOWN", "CAP_KILL"],
        "inheritable": ["CAP_CHOWN"],
        "ambient": ["CAP_CHOWN"],
    }
    oci.spec["process"]["user"]["uid"] = 12

    lines = oci.run("cat", "/proc/self/status").stdout.splitlines()

    sets = {line[:6]: int(line.split()[1], 16) for line in lines if line.startswith("Cap")}
    assert sets == {
        "CapInh": chown,
        "CapPrm": chown,
        "CapEff": chown,
        "CapBnd": chown | kill,
        "CapAmb": chown,
    }


def test_unknown_capability_is_told_and_left_out(oci: Oci) -> None:
    oci.spec["process"]["capabilities"]["bounding"].append("CAP_FLY")

    result = oci.run("echo", "fine")

    assert (result.stdout, result.returncode) == ("fine\n", 0)
    assert "CAP_FLY" in result.stderr


def test_host_is_named_by_the_spec(oci: Oci) -> None:
    oci.spec["hostname"] = "box"
    oci.spec["domainname"] = "example.org"

    assert _shell(oci, "hostname; cat /proc/sys/kernel/domainname") == ["box", "example.org"]


@pytest.mark.parametrize("kind", ["pid", "network", "ipc", "uts", "cgroup", "time"])
def test_namespace_is_made_inherited_or_joined(oci: Oci, kind: str) -> None:
    link = f"/proc/self/ns/{'net' if kind == 'network' else kind}"
    spaces = [entry for entry in oci.spec["linux"]["namespaces"] if entry["type"] != kind]
    if kind == "uts":
        del oci.spec["hostname"]
    ours = os.readlink(link)

    oci.spec["linux"]["namespaces"] = [*spaces, {"type": kind}]
    made = oci.run("readlink", link).stdout.strip()
    oci.spec["linux"]["namespaces"] = spaces
    inherited = oci.run("readlink", link).stdout.strip()
    oci.spec["linux"]["namespaces"] = [*spaces, {"type": kind, "path": link}]
    joined = oci.run("readlink", link).stdout.strip()

    assert made not in (ours, "")
    assert inherited == joined == ours


def test_namespace_of_another_kind_is_an_error(oci: Oci) -> None:
    spaces = [entry for entry in oci.spec["linux"]["namespaces"] if entry["type"] != "ipc"]
    oci.spec["linux"]["namespaces"] = [*spaces, {"type": "ipc", "path": "/proc/self/ns/net"}]

    assert oci.run("true", check=False).returncode == 1


def test_clocks_have_the_offsets_of_the_spec(oci: Oci) -> None:
    oci.spec["linux"]["namespaces"].append({"type": "time"})
    oci.spec["linux"]["timeOffsets"] = {"boottime": {"secs": 86400, "nanosecs": 5}}
    before = float(Path("/proc/uptime").read_text().split()[0])

    uptime = float(oci.run("cat", "/proc/uptime").stdout.split()[0])

    assert 86400 <= uptime - before < 87000


def test_paths_are_masked_and_read_only(oci: Oci) -> None:
    (oci.rootfs / "tmp/secret").write_text("word")
    (oci.rootfs / "etc/there").mkdir()
    (oci.rootfs / "etc/there/file").touch()
    oci.spec["root"]["readonly"] = False
    oci.spec["linux"]["maskedPaths"] = ["/tmp/secret", "/etc/there", "/not/there"]
    oci.spec["linux"]["readonlyPaths"] = ["/etc", "/not/there"]

    shown = _shell(
        oci,
        "cat /tmp/secret; ls /etc/there; touch /etc/x || echo refused; touch /tmp/x && echo made",
    )

    assert shown == ["refused", "made"]


def test_root_is_read_only_where_the_spec_says_so(oci: Oci) -> None:
    oci.spec["root"]["readonly"] = True
    assert _shell(oci, "touch /x || echo refused") == ["refused"]
    oci.spec["root"]["readonly"] = False
    assert _shell(oci, "touch /x && echo made") == ["made"]


def test_kernel_parameter_is_the_containers(oci: Oci) -> None:
    oci.spec["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "8000"}

    assert _shell(oci, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax") == [
        "1",
        "8000",
    ]


@pytest.mark.parametrize(
    ("propagation", "shown"),
    [
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("unbindable", "unbindable"),
        ("private", "-"),
    ],
)
def test_root_propagates_as_the_spec_says(oci: Oci, propagation: str, shown: str) -> None:
    oci.spec["linux"]["rootfsPropagation"] = propagation

    lines = oci.run("cat", "/proc/self/mountinfo").stdout.splitlines()

    [root] = [line.split() for line in lines if line.split()[4] == "/"]
    assert root[6].startswith(shown)


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["ro", "nosuid", "nodev", "noexec"], {"ro", "nosuid", "nodev", "noexec"}),
        (["noatime"], {"rw", "noatime"}),
        (["nodiratime", "relatime"], {"rw", "nodiratime", "relatime"}),
        (["nosuid", "suid"], {"rw", "relatime"}),
        (["ro", "rw", "nodev", "dev", "noexec", "exec"], {"rw", "relatime"}),
        (["defaults", "nosymfollow"], {"rw", "nosymfollow"}),
    ],
)
def test_mount_has_the_options_of_the_spec(oci: Oci, options: list[str], shown: set[str]) -> None:
    oci.spec["mounts"].append(
        {"destination": "tmp", "type": "tmpfs", "source": "t", "options": options}
    )

    lines = oci.run("cat", "/proc/self/mountinfo").stdout.splitlines()

    [found] = [line.split() for line in lines if line.split()[4] == "/tmp"]
    assert shown <= set(found[5].split(","))


def test_recursive_option_reaches_the_mounts_below(oci: Oci) -> None:
    source = oci.base / "source"
    (source / "inner").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "inner", source / "inner"], check=True)
    try:
        oci.spec["mounts"].append(
            {
                "destination": "/tmp",
                "type": "bind",
                "source": str(source),
                "options": ["rbind", "rro"],
            }
        )
        shown = _shell(oci, "touch /tmp/x || echo outer; touch /tmp/inner/x || echo inner")
    finally:
        subprocess.run(["umount", source / "inner"], check=True)

    assert shown == ["outer", "inner"]


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("scheduler", {"policy": "SCHED_BATCH", "nice": 7}, ("3", "7")),
        ("scheduler", {"policy": "SCHED_IDLE"}, ("5", "0")),
        ("scheduler", {"policy": "SCHED_OTHER", "nice": 3}, ("0", "3")),
    ],
)
def test_program_is_scheduled_as_the_spec_says(
    oci: Oci, key: str, value: dict[str, Any], shown: tuple[str, str]
) -> None:
    oci.spec["process"][key] = value

    fields = oci.run("cat", "/proc/self/stat").stdout.rpartition(")")[2].split()

    assert (fields[38], fields[16]) == shown


def test_exec_runs_on_the_processors_of_its_document(oci: Oci) -> None:
    oci.create("c1", "sleep", "60")
    oci("start", "c1")
    last = max(os.sched_getaffinity(0))
    document = oci.base / "process.json"
    document.write_text(
        json.dumps(
            {
                "args": ["/bin/grep", "Cpus_allowed_list", "/proc/self/status"],
                "cwd": "/",
                "execCPUAffinity": {"initial": str(last), "final": str(last)},
            }
        )
    )

    assert oci("exec", "--process", str(document), "c1").stdout.split()[1] == str(last)


def test_program_that_is_created_does_not_run(oci: Oci) -> None:
    oci.spec["root"]["readonly"] = False
    oci.create("c1", "touch", "/ran")
    assert not (oci.rootfs / "ran").exists()

    refused = oci("kill", "nobody", check=False)
    assert refused.returncode == 1
    oci("start", "c1")

    assert oci("start", "c1", check=False).returncode == 1


def test_user_namespace_maps_as_the_spec_says(oci: Oci, mapped: Callable[[], None]) -> None:
    mapped()

    assert _shell(oci, "cat /proc/self/uid_map") == ["0", "0", "4294967295"]
