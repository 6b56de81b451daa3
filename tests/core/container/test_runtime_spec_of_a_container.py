"""A create body becomes the runtime-spec document that docker would have made of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from wherry.container.bundle import (
    MASKED_PATHS,
    ContainerFacts,
    HostDevice,
    merge_image_config,
    runtime_spec,
)
from wherry.container.capabilities import DEFAULT, NAMES
from wherry.container.process import exec_process
from wherry.container.resources import changed_limits, drop_limits
from wherry.errors import UsageError

ID = "0123456789abcdef" * 4
ROOT_MAP = [{"containerID": 0, "hostID": 0, "size": 4294967295}]
USER_MAP = [
    {"containerID": 0, "hostID": 1000, "size": 1},
    {"containerID": 1, "hostID": 100000, "size": 65536},
]
SINGLE_MAP = [{"containerID": 0, "hostID": 1000, "size": 1}]


def facts(**changes: Any) -> ContainerFacts:
    return ContainerFacts(**{"id": ID, "rootfs": "/root/fs", "machine_hostname": "pc", **changes})


def spec_of(
    body: dict[str, Any] | None = None,
    *,
    host: dict[str, Any] | None = None,
    own: dict[str, Any] | None = None,
    image: dict[str, Any] | None = None,
    **given: Any,
) -> Any:
    whole = {"Cmd": ["true"], **(body or {}), "HostConfig": host or {}, "Wherry": own or {}}
    return runtime_spec(whole, None if image is None else {"config": image}, facts(**given))


def mount_at(spec: Any, destination: str) -> Any:
    found = [mount for mount in spec["mounts"] if mount["destination"] == destination]
    assert len(found) <= 1
    return found[0] if found else None


def kinds(spec: Any) -> set[str]:
    return {namespace["type"] for namespace in spec["linux"]["namespaces"]}


# ---- entry point and command ----


@pytest.mark.parametrize(
    ("body", "image", "args"),
    [
        ({}, {"Cmd": ["sh"]}, ["sh"]),
        ({}, {"Entrypoint": ["init"], "Cmd": ["-v"]}, ["init", "-v"]),
        ({"Cmd": ["ls"]}, {"Entrypoint": ["init"], "Cmd": ["-v"]}, ["init", "ls"]),
        ({"Cmd": ["ls"]}, {"Cmd": ["sh"]}, ["ls"]),
        ({"Entrypoint": ["cat"]}, {"Entrypoint": ["init"], "Cmd": ["-v"]}, ["cat"]),
        ({"Entrypoint": ["cat"], "Cmd": ["x"]}, {"Entrypoint": ["init"]}, ["cat", "x"]),
        ({"Entrypoint": [""], "Cmd": ["x"]}, {"Entrypoint": ["init"]}, ["x"]),
    ],
)
def test_entry_point_and_command_combine_as_in_docker(
    body: dict[str, Any], image: dict[str, Any], args: list[str]
) -> None:
    spec: Any = runtime_spec(body, {"config": image}, facts())

    assert spec["process"]["args"] == args


@pytest.mark.parametrize("body", [{}, {"Entrypoint": [""]}])
def test_nothing_to_run_is_an_error(body: dict[str, Any]) -> None:
    image = {"config": {"Entrypoint": ["init"], "Cmd": ["sh"]}} if body else {"config": {}}

    with pytest.raises(UsageError, match="no command specified"):
        runtime_spec(body, image, facts())


def test_a_merged_body_keeps_what_the_user_said() -> None:
    body = {
        "User": "app",
        "Labels": {"a": "mine"},
        "Healthcheck": {"Interval": 5},
        "Volumes": {"/mine": {}},
    }
    image = {
        "User": "root",
        "WorkingDir": "/srv",
        "StopSignal": "SIGINT",
        "Labels": {"a": "image", "b": "image"},
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 9},
        "Volumes": {"/image": {}},
    }

    merged = merge_image_config(body, {"config": image})

    assert merged["User"] == "app"
    assert merged["WorkingDir"] == "/srv"
    assert merged["StopSignal"] == "SIGINT"
    assert merged["Labels"] == {"a": "mine", "b": "image"}
    assert merged["Healthcheck"] == {"Test": ["CMD", "true"], "Interval": 5}
    assert merged["Volumes"] == {"/mine": {}, "/image": {}}


# ---- environment ----

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOSTNAME = f"HOSTNAME={ID[:12]}"


@pytest.mark.parametrize(
    ("body", "own", "image_env", "env"),
    [
        ({}, {}, [], [PATH, HOSTNAME, "container=wherry"]),
        ({"Tty": True}, {}, [], [PATH, HOSTNAME, "TERM=xterm", "container=wherry"]),
        (
            {"Env": ["B=2"]},
            {},
            ["PATH=/bin", "B=1", "C=3"],
            ["PATH=/bin", HOSTNAME, "container=wherry", "B=2", "C=3"],
        ),
        ({"Env": ["HOSTNAME=x", "E="]}, {}, [], [PATH, "HOSTNAME=x", "container=wherry", "E="]),
        ({"Env": ["PATH"]}, {}, [], [HOSTNAME, "container=wherry"]),
        ({}, {"UnsetEnv": ["PATH", "C"]}, ["C=3", "D=4"], [HOSTNAME, "container=wherry", "D=4"]),
        ({"Env": ["A=1"]}, {"UnsetEnvAll": True}, ["C=3"], ["A=1"]),
    ],
)
def test_environment_is_the_defaults_then_the_users_then_the_images(
    body: dict[str, Any], own: dict[str, Any], image_env: list[str], env: list[str]
) -> None:
    spec = spec_of(body, own=own, image={"Env": image_env})

    assert spec["process"]["env"] == env


@pytest.mark.parametrize(
    ("body", "host", "hostname", "variable"),
    [
        ({}, {}, ID[:12], ID[:12]),
        ({"Hostname": "box", "Domainname": "lan"}, {}, "box", "box"),
        ({"Hostname": "box"}, {"UTSMode": "host"}, None, "pc"),
    ],
)
def test_the_container_knows_its_name(
    body: dict[str, Any], host: dict[str, Any], hostname: str | None, variable: str
) -> None:
    spec = spec_of(body, host=host)

    assert spec.get("hostname") == hostname
    assert spec.get("domainname") == body.get("Domainname")
    assert f"HOSTNAME={variable}" in spec["process"]["env"]


# ---- user, directory, limits of the process ----


@pytest.mark.parametrize(
    ("user", "numbers"),
    [
        ("", {"uid": 0, "gid": 0}),
        ("1000", {"uid": 1000, "gid": 0}),
        ("1000:50", {"uid": 1000, "gid": 50}),
        ("www-data", {"uid": 0, "gid": 0}),
        ("www-data:50", {"uid": 0, "gid": 50}),
    ],
)
def test_what_only_the_image_knows_of_a_user_is_left_to_the_annotation(
    user: str, numbers: dict[str, int]
) -> None:
    spec = spec_of({"User": user})

    assert spec["process"]["user"] == numbers
    assert spec["annotations"]["org.wherry.user"] == user


def test_groups_are_numbers_or_names() -> None:
    spec = spec_of(host={"GroupAdd": ["7", "audio", "keep-groups", "video"]})

    assert spec["process"]["user"]["additionalGids"] == [7]
    assert spec["annotations"]["org.wherry.groups"] == "audio,video"
    assert spec["annotations"]["run.oci.keep_original_groups"] == "1"


@pytest.mark.parametrize(
    ("body", "own"),
    [
        ({"User": "4294967295"}, {}),
        ({"WorkingDir": "srv"}, {}),
        ({}, {"Umask": "0888"}),
        ({}, {"Umask": "7777"}),
    ],
)
def test_a_process_that_cannot_be_is_an_error(body: dict[str, Any], own: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        spec_of(body, own=own)


def test_process_settings_are_carried_over() -> None:
    spec = spec_of(
        {"Tty": True, "WorkingDir": "/srv//app/../x/"},
        host={
            "ConsoleSize": [24, 80],
            "OomScoreAdj": -5,
            "Init": True,
            "Ulimits": [
                {"Name": "nofile", "Soft": 1, "Hard": 2},
                {"Name": "core", "Soft": 0, "Hard": -1},
                {"Name": "nofile", "Soft": 3, "Hard": 4},
            ],
            "SecurityOpt": ["apparmor=mine", "no-new-privileges"],
        },
        own={"Umask": "0027", "Personality": "linux32"},
    )

    process = spec["process"]
    assert process["cwd"] == "/srv/x"
    assert process["consoleSize"] == {"height": 24, "width": 80}
    assert process["oomScoreAdj"] == -5
    assert process["user"]["umask"] == 0o027
    assert process["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "soft": 3, "hard": 4},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 2**64 - 1},
    ]
    assert process["apparmorProfile"] == "mine"
    assert process["noNewPrivileges"]
    assert spec["annotations"]["org.wherry.init"] == "true"
    assert spec["linux"]["personality"] == {"domain": "LINUX32"}


# ---- namespaces ----


def test_all_eight_namespaces_are_the_containers_own() -> None:
    spec = spec_of(uid_maps=ROOT_MAP, gid_maps=ROOT_MAP)

    assert kinds(spec) == {"user", "cgroup", "ipc", "uts", "network", "mount", "pid", "time"}
    assert all("path" not in namespace for namespace in spec["linux"]["namespaces"])
    assert spec["linux"]["uidMappings"] == ROOT_MAP


def test_a_namespace_that_the_kernel_lacks_is_not_asked_for() -> None:
    assert "time" not in kinds(spec_of(namespaces=("mount", "pid", "network", "ipc", "uts")))


@pytest.mark.parametrize(
    ("host", "own", "missing"),
    [
        ({"PidMode": "host"}, {}, "pid"),
        ({"NetworkMode": "host"}, {}, "network"),
        ({"IpcMode": "host"}, {}, "ipc"),
        ({"UTSMode": "host"}, {}, "uts"),
        ({"CgroupnsMode": "host"}, {}, "cgroup"),
        ({}, {"TimeMode": "host"}, "time"),
    ],
)
def test_host_mode_leaves_the_container_in_the_hosts_namespace(
    host: dict[str, Any], own: dict[str, Any], missing: str
) -> None:
    everything = kinds(spec_of())

    assert everything - kinds(spec_of(host=host, own=own)) == {missing}


def test_another_containers_namespaces_are_joined_by_path() -> None:
    paths = {"network": "/proc/7/ns/net", "user": "/proc/7/ns/user"}
    spec = spec_of(host={"NetworkMode": "container:x"}, namespace_paths=paths, uid_maps=ROOT_MAP)

    joined = {n["type"]: n["path"] for n in spec["linux"]["namespaces"] if "path" in n}
    assert joined == paths
    assert "uidMappings" not in spec["linux"]
    assert mount_at(spec, "/sys")["type"] == "sysfs"
    assert spec["linux"]["sysctl"] == {}


def test_joining_a_namespace_that_is_not_there_is_an_error() -> None:
    with pytest.raises(UsageError, match="cannot join the pid namespace of container x"):
        spec_of(host={"PidMode": "container:x"})


@pytest.mark.parametrize(
    ("seconds", "pair"),
    [
        (3600, {"secs": 3600, "nanosecs": 0}),
        (1.5, {"secs": 1, "nanosecs": 500_000_000}),
        (-0.25, {"secs": -1, "nanosecs": 750_000_000}),
    ],
)
def test_clock_offsets_are_whole_seconds_and_nanoseconds_that_are_not_negative(
    seconds: float, pair: dict[str, int]
) -> None:
    spec = spec_of(own={"ClockOffsets": {"boottime": seconds}})

    assert spec["linux"]["timeOffsets"] == {
        "monotonic": {"secs": 0, "nanosecs": 0},
        "boottime": pair,
    }


def test_a_clock_offset_without_a_time_namespace_is_an_error() -> None:
    with pytest.raises(UsageError, match="time namespace"):
        spec_of(own={"ClockOffsets": {"boottime": 1}, "TimeMode": "host"})


# ---- capabilities and security ----


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ({}, set(DEFAULT)),
        ({"CapAdd": ["net_admin", "CAP_SYS_TIME"]}, {*DEFAULT, "CAP_NET_ADMIN", "CAP_SYS_TIME"}),
        ({"CapDrop": ["chown"]}, set(DEFAULT) - {"CAP_CHOWN"}),
        ({"CapDrop": ["ALL"]}, set()),
        ({"CapDrop": ["all"], "CapAdd": ["CHOWN"]}, {"CAP_CHOWN"}),
        ({"CapAdd": ["ALL"]}, set(NAMES)),
        ({"CapAdd": ["ALL"], "CapDrop": ["CAP_SYS_ADMIN"]}, set(NAMES) - {"CAP_SYS_ADMIN"}),
        ({"Privileged": True}, set(NAMES)),
    ],
)
def test_capabilities_follow_dockers_rules(host: dict[str, Any], expected: set[str]) -> None:
    sets = spec_of(host=host)["process"]["capabilities"]

    assert set(sets["bounding"]) == expected
    assert sets["bounding"] == sets["effective"] == sets["permitted"]
    assert "inheritable" not in sets
    assert "ambient" not in sets


def test_all_capabilities_are_those_that_there_are_to_give() -> None:
    host, available = {"CapAdd": ["ALL"]}, ["CAP_CHOWN", "CAP_KILL"]

    limited = spec_of(host=host, capabilities=available)
    inside = spec_of(host=host, capabilities=available, uid_maps=ROOT_MAP)

    assert limited["process"]["capabilities"]["bounding"] == available
    assert inside["process"]["capabilities"]["bounding"] == list(NAMES)


def test_an_unknown_capability_is_an_error() -> None:
    with pytest.raises(UsageError, match='invalid capability: "flying"'):
        spec_of(host={"CapAdd": ["flying"]})


@pytest.mark.parametrize(
    "option", ["", "nonsense", "seccomp", "systempaths=confined", "no-new-privileges=maybe"]
)
def test_a_bad_security_option_is_an_error(option: str) -> None:
    with pytest.raises(UsageError, match="invalid --security-opt"):
        spec_of(host={"SecurityOpt": [option]})


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("no-new-privileges", True),
        ("no-new-privileges:true", True),
        ("no-new-privileges=true", True),
        ("no-new-privileges=false", False),
    ],
)
def test_no_new_privileges_has_three_spellings(option: str, expected: bool) -> None:
    assert spec_of(host={"SecurityOpt": [option]})["process"]["noNewPrivileges"] is expected


@pytest.mark.parametrize(
    ("host", "asked"),
    [
        ({}, [None]),
        ({"SecurityOpt": ["seccomp=builtin"]}, [None]),
        ({"SecurityOpt": ["seccomp=unconfined"]}, []),
        ({"Privileged": True}, []),
        ({"SecurityOpt": ['seccomp={"defaultAction": "x"}']}, [{"defaultAction": "x"}]),
        ({"Privileged": True, "SecurityOpt": ["seccomp=builtin"]}, [None]),
    ],
)
def test_the_seccomp_profile_is_chosen_as_in_docker(host: dict[str, Any], asked: list[Any]) -> None:
    profiles = []

    def resolve(profile: Any, capabilities: Any) -> Any:
        profiles.append(profile)
        return {"defaultAction": "SCMP_ACT_ERRNO"}

    spec = spec_of(host=host, seccomp=resolve)

    assert profiles == asked
    assert ("seccomp" in spec["linux"]) == bool(asked)


@pytest.mark.parametrize("profile", ["{", "[]"])
def test_a_profile_that_is_not_json_is_an_error(profile: str) -> None:
    with pytest.raises(UsageError, match="cannot read the seccomp profile"):
        spec_of(host={"SecurityOpt": [f"seccomp={profile}"]}, seccomp=lambda *_: {})


@pytest.mark.parametrize(
    ("host", "masked"),
    [
        ({}, [*MASKED_PATHS, "/sys/devices/system/cpu/cpu0/thermal_throttle"]),
        ({"MaskedPaths": ["/x"]}, ["/x"]),
        ({"MaskedPaths": []}, []),
        ({"SecurityOpt": ["systempaths=unconfined"]}, None),
        ({"Privileged": True}, None),
    ],
)
def test_system_paths_are_masked_unless_the_user_says_otherwise(
    host: dict[str, Any], masked: list[str] | None
) -> None:
    spec = spec_of(host=host, cpus=1)

    assert spec["linux"].get("maskedPaths") == masked
    assert ("readonlyPaths" in spec["linux"]) == (masked is not None)


# ---- sysctls ----


@pytest.mark.parametrize(
    ("host", "gid_maps", "expected"),
    [
        ({}, None, {"port": "0", "ping": "0 2147483647"}),
        ({}, ROOT_MAP, {"port": "0", "ping": "0 2147483647"}),
        ({}, [{"containerID": 0, "hostID": 5, "size": 65536}], {"port": "0", "ping": "0 65535"}),
        ({}, SINGLE_MAP, {"port": "0"}),
        ({"NetworkMode": "none"}, None, {"port": "0", "ping": "0 2147483647"}),
        ({"NetworkMode": "host"}, None, {}),
    ],
)
def test_a_network_of_its_own_has_dockers_default_sysctls(
    host: dict[str, Any], gid_maps: Any, expected: dict[str, str]
) -> None:
    names = {"port": "net.ipv4.ip_unprivileged_port_start", "ping": "net.ipv4.ping_group_range"}

    spec = spec_of(host=host, gid_maps=gid_maps)

    assert spec["linux"]["sysctl"] == {names[key]: text for key, text in expected.items()}


def test_a_users_sysctl_replaces_the_default() -> None:
    given = {"net.ipv4.ip_unprivileged_port_start": "80", "kernel.msgmax": "9", "fs.mqueue.x": "1"}

    spec = spec_of(host={"Sysctls": given})

    assert spec["linux"]["sysctl"].items() >= given.items()


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("kernel.panic", {}),
        ("vm.swappiness", {}),
        ("kernel.msgmaxx", {}),
        ("net.core.somaxconn", {"NetworkMode": "host"}),
        ("kernel.shmmax", {"IpcMode": "host"}),
    ],
)
def test_a_sysctl_of_the_hosts_is_an_error(name: str, host: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"sysctl '{name}' is not allowed"):
        spec_of(host={"Sysctls": {name: "1"}, **host})


# ---- mounts ----


def test_default_mounts_are_dockers() -> None:
    spec = spec_of()

    assert [(mount["destination"], mount["type"]) for mount in spec["mounts"]] == [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/sys", "sysfs"),
        ("/sys/fs/cgroup", "cgroup"),
        ("/dev/mqueue", "mqueue"),
        ("/dev/shm", "tmpfs"),
    ]
    assert "size=65536k" in mount_at(spec, "/dev")["options"]
    assert "gid=5" in mount_at(spec, "/dev/pts")["options"]
    assert f"size={64 << 20}" in mount_at(spec, "/dev/shm")["options"]
    assert "ro" in mount_at(spec, "/sys")["options"]
    assert "ro" in mount_at(spec, "/sys/fs/cgroup")["options"]


def test_the_terminals_group_is_left_out_where_it_is_not_mapped() -> None:
    def options(maps: Any) -> list[str]:
        return list(mount_at(spec_of(uid_maps=maps, gid_maps=maps), "/dev/pts")["options"])

    assert "gid=5" in options(USER_MAP)
    assert "gid=5" not in options(SINGLE_MAP)


@pytest.mark.parametrize(
    ("host", "destination", "source"),
    [
        ({"PidMode": "host"}, "/proc", "/proc"),
        ({"NetworkMode": "host"}, "/sys", "/sys"),
        ({"CgroupnsMode": "host"}, "/sys/fs/cgroup", "/sys/fs/cgroup"),
        ({"IpcMode": "host"}, "/dev/mqueue", "/dev/mqueue"),
    ],
)
def test_what_a_user_namespace_cannot_mount_is_bound_from_the_host(
    host: dict[str, Any], destination: str, source: str
) -> None:
    as_root = mount_at(spec_of(host=host), destination)
    bound = mount_at(spec_of(host=host, uid_maps=USER_MAP, gid_maps=USER_MAP), destination)

    assert as_root["type"] != "bind"
    assert (bound["type"], bound["source"]) == ("bind", source)
    assert "rbind" in bound["options"]
    if source.startswith("/sys"):
        assert "rro" in bound["options"]


def test_a_network_made_before_the_user_namespace_is_not_its_own() -> None:
    spec = spec_of(uid_maps=ROOT_MAP, gid_maps=ROOT_MAP, namespace_paths={"network": "/run/n"})

    assert mount_at(spec, "/sys")["type"] == "bind"


@pytest.mark.parametrize(
    ("host", "given", "source"),
    [
        ({"IpcMode": "host"}, {}, "/dev/shm"),
        ({"IpcMode": "container:x"}, {"shm_namespace": "/proc/7/ns/mnt"}, "/dev/shm"),
        ({"ShmSize": 4096}, {}, "tmpfs"),
        ({"IpcMode": "none"}, {}, None),
    ],
)
def test_shared_memory_belongs_to_the_ipc_namespace(
    host: dict[str, Any], given: dict[str, Any], source: str | None
) -> None:
    spec = spec_of(host=host, namespace_paths={"ipc": "/x"} if given else {}, **given)

    shm = mount_at(spec, "/dev/shm")
    assert (shm and shm["source"]) == source


def test_a_users_mount_replaces_the_default_and_comes_by_depth() -> None:
    given = [
        {"destination": "/a/b/c", "type": "bind", "source": "/1"},
        {"destination": "/dev/shm/", "type": "bind", "source": "/2"},
        {"destination": "/a", "type": "bind", "source": "/3"},
        {"destination": "/a/d", "type": "bind", "source": "/4"},
        {"destination": "/", "type": "bind", "source": "/5"},
    ]

    spec = spec_of(host={"Tmpfs": {"/a/b": ""}}, mounts=given)

    sources = [mount["source"] for mount in spec["mounts"]][-6:]
    assert sources == ["/5", "/3", "/2", "/4", "tmpfs", "/1"]
    assert [m["source"] for m in spec["mounts"] if m["destination"] == "/dev/shm"] == []


def test_a_dev_of_the_users_has_nothing_of_ours_in_it() -> None:
    spec = spec_of(mounts=[{"destination": "/dev", "type": "bind", "source": "/dev"}])

    below = [m["destination"] for m in spec["mounts"] if m["destination"].startswith("/dev")]
    assert below == ["/dev"]


@pytest.mark.parametrize(
    ("host", "options"),
    [
        ({"Tmpfs": {"/t": ""}}, ["noexec", "nosuid", "nodev"]),
        ({"Tmpfs": {"/t": "size=1m,exec"}}, ["nosuid", "nodev", "size=1m", "exec"]),
        (
            {
                "Mounts": [
                    {
                        "Type": "tmpfs",
                        "Target": "/t",
                        "ReadOnly": True,
                        "TmpfsOptions": {
                            "SizeBytes": 5,
                            "Mode": 0o1770,
                            "Options": [["exec"], ["uid", "7"]],
                        },
                    }
                ]
            },
            ["nosuid", "nodev", "ro", "size=5", "mode=1770", "exec", "uid=7"],
        ),
    ],
)
def test_a_tmpfs_has_dockers_options_unless_turned_round(
    host: dict[str, Any], options: list[str]
) -> None:
    assert mount_at(spec_of(host=host), "/t")["options"] == options


def test_a_privileged_container_may_write_to_sys_and_cgroups() -> None:
    privileged = spec_of(host={"Privileged": True})
    writable = spec_of(host={"SecurityOpt": ["writable-cgroups=true"]})

    assert "rw" in mount_at(privileged, "/sys")["options"]
    assert "rw" in mount_at(privileged, "/sys/fs/cgroup")["options"]
    assert "ro" in mount_at(writable, "/sys")["options"]
    assert "rw" in mount_at(writable, "/sys/fs/cgroup")["options"]


def test_a_read_only_root_may_keep_temporary_directories() -> None:
    spec = spec_of(host={"ReadonlyRootfs": True}, own={"ReadonlyTmpfs": True})

    assert spec["root"] == {"path": "/root/fs", "readonly": True}
    assert mount_at(spec, "/tmp")["type"] == "tmpfs"
    assert mount_at(spec_of(host={"ReadonlyRootfs": True}), "/tmp") is None


@pytest.mark.parametrize(
    ("options", "propagation"),
    [(["rbind", "rprivate"], None), (["rbind", "rslave"], "slave"), (["shared"], "shared")],
)
def test_the_root_propagates_as_its_mounts_need(
    options: list[str], propagation: str | None
) -> None:
    mount = {"destination": "/x", "type": "bind", "source": "/y", "options": options}

    assert spec_of(mounts=[mount])["linux"].get("rootfsPropagation") == propagation


# ---- resources and devices ----


@pytest.mark.parametrize(
    ("host", "resources"),
    [
        ({}, {}),
        ({"Memory": 1024}, {"memory": {"limit": 1024, "swap": 2048}}),
        ({"Memory": 8, "MemorySwap": -1}, {"memory": {"limit": 8, "swap": -1}}),
        ({"MemoryReservation": 8}, {"memory": {"reservation": 8}}),
        ({"MemorySwappiness": -1}, {}),
        ({"MemorySwappiness": 0}, {"memory": {"swappiness": 0}}),
        ({"OomKillDisable": True}, {"memory": {"disableOOMKiller": True}}),
        ({"NanoCpus": 1_500_000_000}, {"cpu": {"period": 100_000, "quota": 150_000}}),
        ({"CpuPeriod": 5000, "CpuQuota": 1000}, {"cpu": {"period": 5000, "quota": 1000}}),
        ({"CpuShares": 512, "CpusetCpus": "0-1"}, {"cpu": {"shares": 512, "cpus": "0-1"}}),
        ({"PidsLimit": 9}, {"pids": {"limit": 9}}),
        ({"PidsLimit": -1}, {"pids": {"limit": -1}}),
        ({"PidsLimit": 0}, {}),
        (
            {"BlkioWeight": 100, "BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 7}]},
            {
                "blockIO": {
                    "weight": 100,
                    "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 7}],
                }
            },
        ),
    ],
)
def test_limits_become_resources(host: dict[str, Any], resources: dict[str, Any]) -> None:
    spec = spec_of(host=host, rootless=True, block_devices={"/dev/sda": (8, 0)})

    assert spec["linux"]["resources"] == resources


@pytest.mark.parametrize(
    ("changes", "written"),
    [
        ({"PidsLimit": 5}, {"PidsLimit": 5}),
        ({"Memory": 6}, {"Memory": 6, "MemorySwap": 9}),
        ({"MemorySwap": 8}, {"Memory": 7, "MemorySwap": 8}),
        ({"CpuQuota": 3}, {"CpuQuota": 3, "CpuPeriod": 5}),
        ({"CpusetCpus": "1"}, {"CpusetCpus": "1"}),
    ],
)
def test_update_writes_what_belongs_together(
    changes: dict[str, Any], written: dict[str, Any]
) -> None:
    before = {"Memory": 7, "MemorySwap": 9, "CpuQuota": 2, "CpuPeriod": 5, "CpuShares": 1}

    assert changed_limits({**before, **changes}, changes) == written


@pytest.mark.parametrize(
    ("missing", "left"),
    [
        ([], {"memory": {"limit": 1, "swap": 2}, "blockIO": {"weight": 10}}),
        (["memory.swap.max"], {"memory": {"limit": 1}, "blockIO": {"weight": 10}}),
        (["io.weight"], {"memory": {"limit": 1, "swap": 2}, "blockIO": {}}),
        (["io", "memory"], {}),
    ],
)
def test_limits_that_a_host_has_not_got_are_left_out(missing: list[str], left: Any) -> None:
    resources: Any = {"memory": {"limit": 1, "swap": 2}, "blockIO": {"weight": 10}}

    drop_limits(resources, missing)

    assert resources == left


def test_cgroup_files_are_passed_on_as_they_are() -> None:
    spec = spec_of(own={"CgroupConf": {"memory.high": "1G"}}, rootless=True, cgroup_path="/w/x")

    assert spec["linux"]["resources"] == {"unified": {"memory.high": "1G"}}
    assert spec["linux"]["cgroupsPath"] == "/w/x"


def test_only_named_devices_may_be_used() -> None:
    fuse = {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666}
    given = [HostDevice(device=fuse, access="rw")]  # type: ignore[arg-type]

    spec = spec_of(host={"DeviceCgroupRules": ["c 13:* rwm", "a *:* m"]}, devices=given)

    assert spec["linux"]["devices"] == [fuse]
    assert spec["linux"]["resources"]["devices"] == [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
        {"allow": True, "type": "c", "major": 13, "access": "rwm"},
        {"allow": True, "type": "a", "access": "m"},
    ]


def test_a_privileged_container_may_use_every_device() -> None:
    spec = spec_of(host={"Privileged": True})

    assert spec["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]


@pytest.mark.parametrize("rule", ["", "c 1 r", "x 1:1 r", "c 1:1 q", "c a:1 r", "c 1:1"])
def test_a_bad_device_rule_is_an_error(rule: str) -> None:
    with pytest.raises(UsageError, match="invalid device cgroup format"):
        spec_of(host={"DeviceCgroupRules": [rule]})


def test_limiting_what_is_no_block_device_is_an_error() -> None:
    with pytest.raises(UsageError, match="cannot limit /dev/null"):
        spec_of(host={"BlkioDeviceReadBps": [{"Path": "/dev/null", "Rate": 1}]})


# ---- exec, and the whole ----


def test_exec_takes_over_what_it_does_not_say() -> None:
    process = spec_of({"Env": ["A=1"], "WorkingDir": "/srv", "User": "7:8"})["process"]

    plain: Any = exec_process(process, {"Cmd": ["id"]})
    changed: Any = exec_process(
        process,
        {
            "Cmd": ["id"],
            "Env": ["A=2", "B=3"],
            "User": "9",
            "WorkingDir": "/tmp",
            "Tty": True,
            "Privileged": True,
            "ConsoleSize": [10, 20],
        },
    )

    assert plain == {**process, "args": ["id"]}
    assert changed["user"] == {"uid": 9, "gid": 0}
    assert changed["cwd"] == "/tmp"
    assert {"A=2", "B=3", "TERM=xterm"} <= set(changed["env"])
    assert changed["consoleSize"] == {"height": 10, "width": 20}
    assert changed["capabilities"]["bounding"] == list(NAMES)


def test_the_document_is_json_and_the_body_is_left_alone() -> None:
    body = {"Cmd": ["true"], "Env": ["A=1"], "HostConfig": {"CapAdd": ["ALL"]}}
    before = json.dumps(body)

    spec = runtime_spec(body, {"config": {"Env": ["B=2"]}}, facts(uid_maps=USER_MAP))

    assert json.loads(json.dumps(spec)) == spec
    assert json.dumps(body) == before
