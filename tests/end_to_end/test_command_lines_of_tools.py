"""What programs type that drive docker's command, and what they read of its answers.

Each test is one tool's way through a container, its command lines as the tool writes them
(with `--network` where the tool would make a network of its own).
"""

from __future__ import annotations

import io
import json
import os
import re
import select
import signal
import tarfile
from typing import TYPE_CHECKING, Any

from support.settings import OFFLINE, as_root
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from subprocess import Popen

    from support.cli import Cli


def _read_until(process: Popen[bytes], wanted: bytes) -> bytes:
    """What a command writes, up to a line that has `wanted`."""
    assert process.stdout is not None
    read = b""
    while wanted not in read:
        line = process.stdout.readline()
        assert line, f"it ended with {read!r}"
        read += line
    return read


def _wait_until_it_listens(events: Popen[bytes], wherry: Cli) -> None:
    """Start containers until `events` tells of one: what happened before is not for it."""
    assert events.stdout is not None
    output = events.stdout.fileno()

    def told() -> bool:
        wherry("run", "--rm", OFFLINE, "busybox", "true")
        return bool(select.select([output], [], [], 0)[0])

    wait_until(told, Deadline(60, "events to listen"))


def _end(process: Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)


# ---- VS Code's dev containers, and @devcontainers/cli ----

_DEV_ENTRY = """echo Container started
trap "exit 0" 15

exec "$@"
while sleep 1 & wait $!; do :; done"""


def test_dev_containers(wherry: Cli, busybox_image: str, host_dir: str) -> None:
    os.mkdir(f"{host_dir}/project", 0o755)
    labels = {
        "devcontainer.local_folder": f"{host_dir}/project",
        "devcontainer.metadata": json.dumps([{"remoteUser": "root", "init": True}]),
    }
    assert re.fullmatch(r"\w+ version [\d.]+\S*\n", wherry("-v").stdout)
    assert re.match(r"\d+\.\d+\.\d+", wherry("version", "--format", "{{.Server.Version}}").stdout)
    assert wherry("info", "-f", "{{.Runtimes.nvidia}}").stdout == "<no value>\n"
    find = [f"label={name}={text}" for name, text in labels.items()]
    known = [word for each in find[:1] for word in ("--filter", each)]
    assert wherry("ps", "-q", "-a", *known).stdout == ""
    (image,) = json.loads(wherry("inspect", "--type", "image", busybox_image).stdout)
    assert {"Id", "Config", "Os", "Architecture"} <= set(image)

    events = wherry.start("events", "--format", "{{json .}}", "--filter", "event=start")
    _wait_until_it_listens(events, wherry)
    run = wherry.start(
        "run", OFFLINE, "--sig-proxy=false", "-a", "STDOUT", "-a", "STDERR",
        "--mount",
        f"type=bind,source={host_dir}/project,target=/workspaces/project,consistency=cached",
        *[word for name, text in labels.items() for word in ("-l", f"{name}={text}")],
        "-u", "root", "-e", "SHELL=/bin/sh", "--init", "--security-opt", "seccomp=unconfined",
        "--entrypoint", "/bin/sh", busybox_image, "-c", _DEV_ENTRY, "-",
    )  # fmt: skip
    _read_until(run, b"Container started")
    event = json.loads(_read_until(events, b"devcontainer.local_folder").splitlines()[-1])
    assert event["Actor"]["Attributes"]["devcontainer.local_folder"] == f"{host_dir}/project"
    assert event["status"] == "start"
    _end(events)

    (identity,) = wherry("ps", "-q", "-a", *known).lines
    assert event["id"].startswith(identity)
    (details,) = json.loads(wherry("inspect", "--type", "container", identity).stdout)
    assert details["State"]["Status"] == "running"
    assert details["Config"]["Labels"]["devcontainer.metadata"] == labels["devcontainer.metadata"]
    assert [mount["Destination"] for mount in details["Mounts"]] == ["/workspaces/project"]
    assert details["NetworkSettings"]["Ports"] == {}

    # It keeps a shell open, and marks the ends of what it asks for.
    shell = wherry.start("exec", "-i", "-u", "root", identity, "/bin/sh")
    assert shell.stdin is not None
    for command in ("echo hello", "false"):
        shell.stdin.write(f"echo -n ␄; ( {command} ); echo -n ␄$?␄; echo\n".encode())
        shell.stdin.flush()
        answer = _read_until(shell, b"\n" if command == "false" else b"0\xe2\x90\x84")
        assert ("␄1␄" if command == "false" else "hello\n␄0␄") in answer.decode()
    shell.stdin.close()
    assert shell.wait(60) == 0
    argv = ("-i", "-u", "root", "-e", "ONE=two words", "-w", "/workspaces/project", identity)
    told = wherry("exec", *argv, "sh", "-c", 'echo "$ONE"; pwd', input="")
    assert told.stdout == "two words\n/workspaces/project\n"

    wherry("stop", "-t", "0", identity)
    run.communicate(timeout=60)
    wherry("start", identity)
    wherry("rm", "-f", identity)
    assert wherry("ps", "-q", "-a", *known).stdout == ""


# ---- the runner of GitHub Actions ----


def test_actions_runner(wherry: Cli, busybox_image: str, host_dir: str) -> None:
    os.mkdir(f"{host_dir}/work", 0o755)
    os.chown(f"{host_dir}/work", wherry.account.uid, wherry.account.gid)
    with open(f"{host_dir}/work/step.sh", "w") as file:
        file.write('echo "$INPUT_WHO in $PWD"; echo "::error::told" >&2; exit 4\n')
    for side in ("Server", "Client"):
        version = wherry("version", "--format", f"{{{{.{side}.APIVersion}}}}").stdout
        assert tuple(map(int, version.split("."))) >= (1, 35)
    assert wherry("ps", "--all", "--quiet", "--no-trunc", "--filter", "label=6f3a12").stdout == ""

    identity = wherry(
        "create", "--name", "job_busybox", "--label", "6f3a12", "--workdir", "/__w/repo/repo",
        "--network", "none", "-e", "HOME=/github/home", "-e", "GITHUB_ACTIONS=true",
        "-e", "CI=true", "-v", f"{host_dir}/work:/__w", "--entrypoint", "tail",
        busybox_image, "-f", "/dev/null",
    ).stdout.strip()  # fmt: skip
    assert re.fullmatch("[0-9a-f]{64}", identity)
    wherry("start", identity)

    running = wherry(
        "ps", "--all", "--filter", f"id={identity}", "--filter", "status=running", "--no-trunc",
        "--format", "{{.ID}} {{.Status}}",
    ).stdout  # fmt: skip
    assert re.fullmatch(rf"{identity} Up .*\n", running)
    names = wherry(
        "inspect", "--format", "{{range .Config.Env}}{{println .}}{{end}}", identity
    ).lines
    assert "CI=true" in names
    assert any(name.startswith("PATH=") for name in names)
    health = "{{if .Config.Healthcheck}}{{print .State.Health.Status}}{{end}}"
    assert wherry("inspect", f"--format={health}", identity).stdout == "\n"
    assert wherry("port", identity).stdout == ""

    step = wherry(
        "exec", "-i", "--workdir", "/__w/repo/repo", "-e", "INPUT_WHO", identity,
        "sh", "-e", "/__w/step.sh", env={"INPUT_WHO": "octocat"}, check=False,
    )  # fmt: skip
    assert (step.returncode, step.stdout) == (4, "octocat in /__w/repo/repo\n")
    assert step.stderr == "::error::told\n"

    assert wherry("logs", "--details", identity).stdout == ""
    assert wherry("rm", "--force", identity).stdout == f"{identity}\n"
    listed = wherry("ps", "--all", "--quiet", "--no-trunc", "--filter", "label=6f3a12")
    assert listed.stdout == ""


def test_actions_runner_waits_for_a_service(wherry: Cli, busybox_image: str) -> None:
    identity = wherry(
        "create", "--name", "service", "--label", "6f3a12", "--network", "none",
        "--health-cmd", "test -e /ready", "--health-interval", "100ms",
        "--health-timeout", "5s", "--health-retries", "50",
        busybox_image, "sh", "-c", "sleep 0.5; touch /ready; exec sleep 1000",
    ).stdout.strip()  # fmt: skip
    wherry("start", identity)
    health = "{{if .Config.Healthcheck}}{{print .State.Health.Status}}{{end}}"

    followed = wherry.start("events", "--filter", "event=health_status", "--since", "1m")
    _read_until(followed, b"health_status: healthy")
    _end(followed)

    assert wherry("inspect", f"--format={health}", identity).stdout == "healthy\n"


# ---- cibuildwheel ----


class _Shell:
    """cibuildwheel's shell in a container, through the pipes of `start --attach`."""

    def __init__(self, process: Popen[bytes]) -> None:
        self.process = process

    def call(self, command: str) -> tuple[int, bytes]:
        assert self.process.stdin is not None
        end = "f00dcafe" * 4
        script = f'(\ncd "/"\n{command}\n)\nprintf "%04d%s\\n" $? {end}\n'
        self.process.stdin.write(script.encode())
        self.process.stdin.flush()
        read = _read_until(self.process, end.encode() + b"\n")
        output = read.removesuffix(end.encode() + b"\n")
        return int(output[-4:]), output[:-4]


def test_cibuildwheel(wherry: Cli, busybox_image: str, host_dir: str) -> None:
    version = json.loads(wherry("version", "-f", "{{json .}}").stdout)
    assert version["Client"]["Version"]
    assert version["Server"]["Version"]
    platform = wherry("image", "inspect", busybox_image, "--format", "{{.Os}}/{{.Architecture}}")
    assert platform.stdout.startswith("linux/")
    name = "cibuildwheel-0b1c"
    wherry(
        "create", "--env=CIBUILDWHEEL", "--env=SOURCE_DATE_EPOCH", f"--name={name}",
        "--interactive", f"--volume={host_dir}:/host", "--network=host",
        f"--platform={platform.stdout.strip()}", busybox_image, "/bin/sh",
        env={"CIBUILDWHEEL": "1"},
    )  # fmt: skip

    process = wherry.start("start", "--attach", "--interactive", name)
    shell = _Shell(process)
    assert shell.call('printf "%s" "$CIBUILDWHEEL-${SOURCE_DATE_EPOCH-unset}"') == (0, b"1-unset")
    assert shell.call("exit 7")[0] == 7
    every_byte = "".join(f"\\{number:03o}" for number in range(256))
    assert shell.call(f"printf '{every_byte}'") == (0, bytes(range(256)))

    os.mkdir(f"{host_dir}/project")
    content = os.urandom(1 << 20)
    with open(f"{host_dir}/project/data.bin", "wb") as file:
        file.write(content)
    wherry("cp", f"{host_dir}/project/.", f"{name}:/project")
    packed = _tar({"extra.txt": b"more"})
    wherry("exec", "-i", name, "tar", "-xC", "/project", "-f", "-", input=packed)
    assert shell.call("ls /project") == (0, b"data.bin\nextra.txt\n")
    out = wherry("exec", "-i", name, "tar", "-cC", "/project", "-f", "-", ".", input=b"").output
    with tarfile.open(fileobj=io.BytesIO(out)) as archive:
        member = archive.extractfile("./data.bin")
        assert member is not None
        assert member.read() == content

    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 0
    wherry("rm", "--force", "-v", name)


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


# ---- pre-commit ----


def test_pre_commit(wherry: Cli, busybox_image: str, host_dir: str) -> None:
    os.chmod(host_dir, 0o755)
    with open(f"{host_dir}/a.py", "w") as file:
        file.write("print()\n")
    info = json.loads(wherry("system", "info", "--format", "{{ json . }}").stdout)
    is_rootless = any(option.startswith("name=rootless") for option in info["SecurityOptions"])
    assert is_rootless == (wherry.account.uid != 0)
    # As pre-commit does: a rootless engine maps its own user to root.
    user = [] if is_rootless else ["--user", f"{wherry.account.uid}:{wherry.account.gid}"]

    result = wherry(
        "run", OFFLINE, "--rm", "--tty", *user, "-v", f"{host_dir}:/src:rw,Z",
        "--workdir", "/src", "--entrypoint", "sh", busybox_image,
        "-c", "touch made; grep -n print \"$@\"; exit 1", "hook", "a.py", check=False,
    )  # fmt: skip

    assert (result.returncode, result.stdout) == (1, "1:print()\r\n")
    assert os.stat(f"{host_dir}/made").st_uid == wherry.account.uid


# ---- kind ----


@as_root
def test_kind(wherry: Cli, busybox_image: str) -> None:
    info = json.loads(wherry("info", "--format", "{{json .}}").stdout)
    assert {"CgroupDriver", "CgroupVersion", "MemoryLimit", "PidsLimit", "CPUShares"} <= set(info)
    cluster = ("--filter", "label=io.x-k8s.kind.cluster=kind")
    assert wherry("ps", "-a", *cluster, "--format", "{{.Names}}").stdout == ""
    devices = ["--device", "/dev/fuse"] if os.path.exists("/dev/fuse") else []

    wherry(
        "run", "--name", "kind-control-plane", "--hostname", "kind-control-plane",
        "--label", "io.x-k8s.kind.role=control-plane", "--privileged",
        "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
        "--tmpfs", "/tmp", "--tmpfs", "/run", "--volume", "/var",
        "--volume", "/lib/modules:/lib/modules:ro", "-e", "KIND_EXPERIMENTAL_X",
        "--detach", "--tty", "--label", "io.x-k8s.kind.cluster=kind", "--net", "none",
        "--restart=on-failure:1", "--init=false", "--cgroupns=private", *devices,
        "--publish=127.0.0.1:35139:6443/TCP", "-e", "KUBECONFIG=/etc/kubernetes/admin.conf",
        busybox_image, "sh", "-c", "echo Reached target Multi-User System.; exec sleep 1000",
    )  # fmt: skip

    followed = wherry.start("logs", "-f", "kind-control-plane")
    _read_until(followed, b"Reached target Multi-User System")
    _end(followed)
    named = ("ps", "-a", "--filter", "label=io.x-k8s.kind.cluster")
    assert wherry(*named, "--format", '{{.Label "io.x-k8s.kind.cluster"}}').stdout == "kind\n"
    assert wherry(*named, "--format", "{{.Names}}").stdout == "kind-control-plane\n"
    role = '{{ index .Config.Labels "io.x-k8s.kind.role"}}'
    assert wherry("inspect", "--format", role, "kind-control-plane").stdout == "control-plane\n"
    addresses = "{{range .NetworkSettings.Networks}}{{.IPAddress}},{{.GlobalIPv6Address}}{{end}}"
    assert wherry("inspect", "-f", addresses, "kind-control-plane").stdout == ",\n"
    identity = wherry("image", "inspect", "-f", "{{ .Id }}", busybox_image).stdout
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", identity)

    script = "hostname; cat /dev/stdin; mount | grep -c ' on /tmp type tmpfs'"
    ran = wherry(
        "exec", "--privileged", "-i", "-e", "A=b", "kind-control-plane", "sh", "-c", script,
        input="piped\n",
    )  # fmt: skip
    assert ran.stdout == "kind-control-plane\npiped\n1\n"
    wherry("rm", "-f", "-v", "kind-control-plane")
    assert wherry("volume", "ls", "-q").stdout == ""


# ---- SWE-bench, and agents that work in a container ----


def test_agents(wherry: Cli, busybox_image: str, host_dir: str) -> None:
    identity = wherry(
        "run", OFFLINE, "-d", "--name", "minisweagent-1", "-w", "/testbed", "--rm",
        busybox_image, "sleep", "2h",
    ).stdout.strip()  # fmt: skip
    with open(f"{host_dir}/patch.diff", "w") as file:
        file.write("--- a\n+++ b\n")

    def step(command: str) -> tuple[int, str]:
        argv = ("exec", "-w", "/testbed", "-e", "PAGER=cat", identity, "sh", "-lc", command)
        result = wherry(*argv, check=False)
        return result.returncode, result.stdout

    assert step("echo $PAGER; pwd") == (0, "cat\n/testbed\n")
    wherry("cp", f"{host_dir}/patch.diff", f"{identity}:/tmp/patch.diff")
    assert step("cat /tmp/patch.diff; false") == (1, "--- a\n+++ b\n")
    assert step("touch /testbed/new") == (0, "")
    assert "A /testbed/new" in wherry("diff", identity).lines
    committed = wherry("commit", identity, "snapshot:1").stdout
    details: Any = json.loads(wherry("image", "inspect", "snapshot:1").stdout)[0]
    assert details["Id"] == committed.strip()
    wherry("cp", f"{identity}:/testbed/new", f"{host_dir}/new")
    assert os.path.exists(f"{host_dir}/new")

    wherry("stop", "-t", "0", identity)

    assert wherry("ps", "-aq").stdout == ""
