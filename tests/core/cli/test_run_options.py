"""The options of `run`, up to docker's create body."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from wherry.cli.host import read_secrets, resolve
from wherry.cli.run import create, run
from wherry.container.create import create_body
from wherry.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from wherry.container.spec import CreateBody


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty docker configuration, and the directory that holds it."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_DEFAULT_PLATFORM", raising=False)
    return tmp_path


def body_of(line: str | list[str]) -> CreateBody:
    words = line.split() if isinstance(line, str) else line
    return create_body(resolve(run.parse([*words, "busybox"])))


def host_of(line: str | list[str]) -> Any:
    return body_of(line)["HostConfig"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--rm", {"AutoRemove": True}),
        ("-v /a:/b:ro -v vol:/c", {"Binds": ["/a:/b:ro", "vol:/c"]}),
        ("--privileged", {"Privileged": True}),
        ("--network none", {"NetworkMode": "none"}),
        ("--net host", {"NetworkMode": "host"}),
        ("--restart always", {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 0}}),
        (
            "--restart on-failure:3",
            {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}},
        ),
        ("--cap-add net_admin --cap-drop ALL", {"CapAdd": ["CAP_NET_ADMIN"], "CapDrop": ["ALL"]}),
        (
            "--device /dev/fuse --device /dev/a:/dev/b:r",
            {
                "Devices": [
                    {
                        "PathOnHost": "/dev/fuse",
                        "PathInContainer": "/dev/fuse",
                        "CgroupPermissions": "rwm",
                    },
                    {
                        "PathOnHost": "/dev/a",
                        "PathInContainer": "/dev/b",
                        "CgroupPermissions": "r",
                    },
                ]
            },
        ),
        (
            "--device nvidia.com/gpu=all",
            {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}]},
        ),
        (
            "--gpus all",
            {
                "DeviceRequests": [
                    {"Driver": "", "Options": {}, "Count": -1, "Capabilities": [["gpu"]]}
                ]
            },
        ),
        ("--security-opt no-new-privileges", {"SecurityOpt": ["no-new-privileges"]}),
        ("--volumes-from a:ro", {"VolumesFrom": ["a:ro"]}),
        ("--link db:database", {"Links": ["db:database"]}),
        ("--init", {"Init": True}),
        ("--init=false", {"Init": False}),
        (
            "--log-opt max-size=1m",
            {"LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}}},
        ),
        ("--shm-size 128m", {"ShmSize": 128 << 20}),
        ("--read-only", {"ReadonlyRootfs": True}),
        ("-m 1.5g", {"Memory": 3 << 29}),
        ("-m 64m --memory-swap -1", {"Memory": 64 << 20, "MemorySwap": -1}),
        ("--pid host", {"PidMode": "host"}),
        ("-c 512", {"CpuShares": 512}),
        ("--cpus 1.5", {"NanoCpus": 1_500_000_000}),
        ("--add-host a:1.2.3.4 --add-host b=::1", {"ExtraHosts": ["a:1.2.3.4", "b:::1"]}),
        ("--add-host h:host-gateway", {"ExtraHosts": ["h:host-gateway"]}),
        ("--userns keep-id:uid=5,gid=6", {"UsernsMode": "keep-id:uid=5,gid=6"}),
        ("--ulimit nofile=1024:-1", {"Ulimits": [{"Name": "nofile", "Soft": 1024, "Hard": -1}]}),
        ("--ulimit core=0", {"Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}]}),
        ("--tmpfs /run:size=1m --tmpfs /tmp", {"Tmpfs": {"/run": "size=1m", "/tmp": ""}}),
        ("--ipc container:a", {"IpcMode": "container:a"}),
        ("--sysctl net.core.somaxconn=1", {"Sysctls": {"net.core.somaxconn": "1"}}),
        ("--cpuset-cpus 0-2,4", {"CpusetCpus": "0-2,4"}),
        ("--pids-limit -1", {"PidsLimit": -1}),
        ("--dns 1.1.1.1 --dns-search a.b", {"Dns": ["1.1.1.1"], "DnsSearch": ["a.b"]}),
        ("--group-add audio --group-add 5", {"GroupAdd": ["audio", "5"]}),
        ("-P", {"PublishAllPorts": True}),
        ("--annotation a=b", {"Annotations": {"a": "b"}}),
        ("--blkio-weight 100", {"BlkioWeight": 100}),
        (
            "--device-write-bps /dev/sda:1mb",
            {"BlkioDeviceWriteBps": [{"Path": "/dev/sda", "Rate": 1 << 20}]},
        ),
        ("--cgroupns host", {"CgroupnsMode": "host"}),
        ("--oom-score-adj -500", {"OomScoreAdj": -500}),
        ("--uts host", {"UTSMode": "host"}),
        ("--device-cgroup-rule", {"DeviceCgroupRules": ["c 10:229 rwm"]}),
    ],
)
def test_an_option_is_a_key_of_host_config(line: str, expected: dict[str, Any]) -> None:
    words = line.split()
    if words == ["--device-cgroup-rule"]:
        words.append("c 10:229 rwm")

    host = host_of(words)

    assert {key: host.get(key) for key in expected} == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-u 1000:1000", {"User": "1000:1000"}),
        ("-w /src", {"WorkingDir": "/src"}),
        ("-h box --domainname example", {"Hostname": "box", "Domainname": "example"}),
        ("--entrypoint sh", {"Entrypoint": ["sh"]}),
        ("--entrypoint=", {"Entrypoint": [""]}),
        ("", {"Entrypoint": None, "Cmd": None}),
        ("-l a=b -l c", {"Labels": {"a": "b", "c": ""}}),
        ("-v /data", {"Volumes": {"/data": {}}}),
        ("--stop-signal INT --stop-timeout 0", {"StopSignal": "INT", "StopTimeout": 0}),
        ("--no-healthcheck", {"Healthcheck": {"Test": ["NONE"]}}),
        (
            "--health-cmd true --health-interval 1m30s --health-retries 2",
            {
                "Healthcheck": {
                    "Test": ["CMD-SHELL", "true"],
                    "Interval": 90_000_000_000,
                    "Retries": 2,
                }
            },
        ),
        ("-p 80 --expose 90/udp", {"ExposedPorts": {"80/tcp": {}, "90/udp": {}}}),
        (
            "",
            {
                "AttachStdin": False,
                "AttachStdout": True,
                "AttachStderr": True,
                "OpenStdin": False,
                "StdinOnce": False,
            },
        ),
        ("-i", {"AttachStdin": True, "OpenStdin": True, "StdinOnce": True}),
        ("-di", {"AttachStdin": False, "AttachStdout": False, "OpenStdin": True}),
        ("-a stdout", {"AttachStdout": True, "AttachStderr": False}),
    ],
)
def test_an_option_is_a_key_of_the_body(line: str, expected: dict[str, Any]) -> None:
    body = body_of(line)

    assert {key: body.get(key) for key in expected} == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--umask 0077", {"Umask": "0077"}),
        ("--unsetenv A --unsetenv B", {"UnsetEnv": ["A", "B"]}),
        ("--unsetenv-all", {"UnsetEnvAll": True}),
        ("--no-hosts --no-hostname", {"NoHosts": True, "NoHostname": True}),
        ("--passwd=false", {"Passwd": False}),
        ("--passwd", {"Passwd": True}),
        ("--timeout 5", {"Timeout": 5}),
        ("--tz Europe/Berlin", {"Timezone": "Europe/Berlin"}),
        ("--read-only-tmpfs", {"ReadonlyTmpfs": True}),
        ("--personality linux32", {"Personality": "LINUX32"}),
        ("--preserve-fds 2", {"PreserveFds": 2}),
        ("--rm --rmi", {"RemoveImage": True}),
        ("--cgroup-conf memory.high=1G", {"CgroupConf": {"memory.high": "1G"}}),
        ("--health-on-failure kill", {"HealthOnFailure": "kill"}),
        ("--sdnotify healthy", {"SdNotify": "healthy"}),
        (
            "--health-startup-cmd up --health-startup-success 2 --health-startup-interval 1s",
            {
                "StartupHealth": {
                    "Test": ["CMD-SHELL", "up"],
                    "Successes": 2,
                    "Interval": 1_000_000_000,
                }
            },
        ),
        (
            "--clock-offset monotonic=60,boottime=-3.5",
            {"ClockOffsets": {"monotonic": 60.0, "boottime": -3.5}},
        ),
    ],
)
def test_what_docker_has_no_word_for_is_ours(line: str, expected: dict[str, Any]) -> None:
    own: Any = body_of(line)["Wherry"]

    assert own == expected


def test_networks_have_settings_of_their_own() -> None:
    body = body_of(
        "--network name=a,alias=x,alias=y,ip=10.0.0.2 --network b --mac-address 02:00:00:00:00:01"
    )

    assert body["HostConfig"]["NetworkMode"] == "a"
    assert body["NetworkingConfig"]["EndpointsConfig"] == {
        "a": {
            "Aliases": ["x", "y"],
            "IPAMConfig": {"IPv4Address": "10.0.0.2"},
            "MacAddress": "02:00:00:00:00:01",
        },
        "b": {},
    }


def test_the_environment_comes_from_files_then_options_then_the_host(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INHERITED", "here")
    monkeypatch.delenv("UNSET", raising=False)
    file = config / "env"
    file.write_text('A=file\nB="raw"\nINHERITED\n')

    body = body_of(["--env-file", str(file), "-e", "A=option", "-e", "UNSET", "-e", "C="])

    assert body["Env"] == ["A=option", 'B="raw"', "INHERITED=here", "C="]


def test_the_proxies_of_config_json_go_into_the_container(config: Path) -> None:
    (config / "config.json").write_text('{"proxies": {"default": {"httpProxy": "http://p:1"}}}')

    assert body_of("")["Env"] == ["HTTP_PROXY=http://p:1", "http_proxy=http://p:1"]
    assert body_of("-e http_proxy=x")["Env"] == ["HTTP_PROXY=http://p:1", "http_proxy=x"]
    assert body_of("--http-proxy=false")["Env"] == []


def test_the_detach_keys_of_config_json_are_the_default(config: Path) -> None:
    (config / "config.json").write_text('{"detachKeys": "ctrl-x,x"}')

    assert resolve(run.parse(["busybox"]))["detach_keys"] == "ctrl-x,x"
    assert resolve(run.parse(["--detach-keys=a", "busybox"]))["detach_keys"] == "a"


def test_a_seccomp_profile_is_read_on_the_host(config: Path) -> None:
    profile = config / "profile.json"
    profile.write_text('{ "defaultAction":\n "SCMP_ACT_ALLOW" }')

    host = host_of(["--security-opt", f"seccomp={profile}"])

    assert host["SecurityOpt"] == ['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}']


def test_a_secret_is_read_on_the_host_and_kept_out_of_the_body(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (config / "token").write_bytes(b"\0secret")
    monkeypatch.setenv("TOKEN", "other")

    mounts, contents = read_secrets(
        (f"id=one,src={config / 'token'},uid=5,mode=0400", "id=two,env=TOKEN,type=env,target=T")
    )

    assert contents == {"one": b"\0secret", "two": b"other"}
    assert mounts == [
        {
            "Name": "one",
            "Type": "mount",
            "Target": "/run/secrets/one",
            "UID": 5,
            "GID": 0,
            "Mode": 0o400,
        },
        {"Name": "two", "Type": "env", "Target": "T"},
    ]


@pytest.mark.parametrize(
    ("line", "platform"),
    [
        ("--platform linux/arm64/v8", "linux/arm64/v8"),
        ("--arch arm --variant v7", "linux/arm/v7"),
        ("", ""),
    ],
)
def test_a_platform_can_be_told_in_parts(line: str, platform: str) -> None:
    assert resolve(run.parse([*line.split(), "busybox"]))["platform"] == platform


def test_a_cidfile_that_exists_is_refused(config: Path) -> None:
    (config / "cid").write_text("")

    with pytest.raises(UsageError, match="container ID file found"):
        body_of(["--cidfile", str(config / "cid")])


def test_what_was_resolved_can_be_said_again_elsewhere(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERE", "x")
    (config / "labels").write_text("a=1\n")
    line = [
        *"-e HERE --cpus 0.25 -m 64m --health-interval 5s --init=false --rm -it".split(),
        *["--label-file", str(config / "labels"), "-v", "./x:/y", "--rootfs", "."],
        *["--mount", "type=bind,src=.,dst=/z", "--", "sh", "-c", "--x"],
    ]
    resolved = resolve(run.parse(line))
    body = create_body(resolved)

    argv = run.argv(**resolved)
    monkeypatch.chdir(os.path.sep)
    monkeypatch.delenv("HERE")
    (config / "labels").unlink()

    assert create_body(resolve(run.parse(argv[1:]))) == body


def test_create_takes_what_run_takes_but_what_is_about_staying() -> None:
    only_run = {each.name for each in run.options} - {each.name for each in create.options}

    assert only_run == {"detach", "detach_keys", "explain", "sig_proxy"}


DOCKERS = """
    add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent
    cgroupns cidfile cpu-count cpu-percent cpu-period cpu-quota cpu-rt-period cpu-rt-runtime
    cpu-shares cpus cpuset-cpus cpuset-mems detach detach-keys device device-cgroup-rule
    device-read-bps device-read-iops device-write-bps device-write-iops disable-content-trust dns
    dns-option dns-search domainname entrypoint env env-file expose gpus group-add health-cmd
    health-interval health-retries health-start-interval health-start-period health-timeout
    hostname init interactive io-maxbandwidth io-maxiops ip ip6 ipc isolation kernel-memory label
    label-file link link-local-ip log-driver log-opt mac-address memory memory-reservation
    memory-swap memory-swappiness mount name network network-alias no-healthcheck
    oom-kill-disable oom-score-adj pid pids-limit platform privileged publish publish-all pull
    quiet read-only restart rm runtime security-opt shm-size sig-proxy stop-signal stop-timeout
    storage-opt sysctl tmpfs tty ulimit use-api-socket user userns uts volume volume-driver
    volumes-from workdir
"""


def test_every_option_of_dockers_is_there() -> None:
    ours = {flag for each in run.options for flag in each.flags}

    assert {f"--{name}" for name in DOCKERS.split()} - ours == set()
