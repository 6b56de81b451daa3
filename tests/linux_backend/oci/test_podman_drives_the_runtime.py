"""podman with wherry as its runtime: what its users do all day."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.podman import Podman
from support.requirements import need_tool
from support.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.oci import Oci

pytestmark = pytest.mark.linux


@pytest.fixture
def podman(oci: Oci) -> Iterator[Podman]:
    podman = Podman(oci)
    yield podman
    podman.close()


# Says that it is there, and how it was asked to end.
_POLITE = "trap 'echo bye; exit 3' TERM; echo hello; while :; do sleep 0.05; done"


def _inside(podman: Podman, *words: str, image: str = "busybox") -> str:
    """What `run --rm` with these options and then a command after `--` prints."""
    at = words.index("--")
    return podman("run", "--rm", *words[:at], image, *words[at + 1 :]).stdout


def test_podman_runs_a_program(podman: Podman) -> None:
    result = podman("run", "--rm", "busybox", "sh", "-c", "echo hi; exit 6", check=False)

    assert (result.returncode, result.stdout, result.stderr) == (6, "hi\n", "")


def test_podman_execs_pauses_and_stops(podman: Podman) -> None:
    podman("run", "-d", "--name", "c", "busybox", "sh", "-c", _POLITE)

    assert podman("exec", "c", "echo", "in").stdout == "in\n"
    assert podman("exec", "c", "sh", "-c", "exit 5", check=False).returncode == 5
    assert podman("exec", "c", "nope", check=False).returncode == 127
    assert podman("exec", "-u", "12:34", "-w", "/tmp", "c", "sh", "-c", "id; pwd").stdout == (
        "uid=12 gid=34\n/tmp\n"
    )
    podman("pause", "c")
    assert podman("inspect", "--format", "{{.State.Status}}", "c").stdout == "paused\n"
    podman("unpause", "c")
    podman("stop", "--time", "20", "c")
    assert podman("wait", "c").stdout == "3\n"
    assert podman("logs", "c").stdout == "hello\nbye\n"


def test_podman_kills_and_starts_again(podman: Podman) -> None:
    podman("run", "-d", "--name", "c", "busybox", "sleep", "60")

    podman("kill", "c")
    assert podman("wait", "c").stdout == "137\n"
    podman("start", "c")
    first = podman("inspect", "--format", "{{.State.Pid}}", "c").stdout
    podman("restart", "--time", "0", "c")

    assert podman("inspect", "--format", "{{.State.Pid}}", "c").stdout != first
    assert podman("exec", "c", "echo", "again").stdout == "again\n"


def test_podman_shows_the_processes_of_a_container(podman: Podman) -> None:
    podman("run", "-d", "--name", "c", "busybox", "sleep", "60")

    assert podman("top", "c", "pid", "args").stdout.split() == [
        "PID",
        "COMMAND",
        "1",
        "sleep",
        "60",
    ]


def test_podman_copies_files_in_and_out(podman: Podman, oci: Oci) -> None:
    podman("run", "-d", "--name", "c", "busybox", "sleep", "60")
    (oci.base / "in").write_text("text\n")

    podman("cp", str(oci.base / "in"), "c:/tmp/there")
    podman("cp", "c:/tmp/there", str(oci.base / "out-again"))

    assert podman("exec", "c", "cat", "/tmp/there").stdout == "text\n"
    assert (oci.base / "out-again").read_text() == "text\n"


def test_podman_gives_a_terminal(podman: Podman) -> None:
    assert _inside(podman, "-t", "--", "tty") == "/dev/pts/0\n"


def test_podman_joins_a_terminal_to_ours(podman: Podman) -> None:
    podman("run", "-d", "--name", "c", "busybox", "sleep", "60")

    with Terminal(podman.cli(), "exec", "-it", "c", "sh") as terminal:
        terminal.send("stty size; tty; exit 7\n")
        terminal.expect("24 80")
        terminal.expect("/dev/pts/0")
        assert terminal.wait() == 7


def test_podman_attaches_to_a_detached_container(podman: Podman) -> None:
    podman("run", "-d", "-i", "--name", "c", "busybox", "cat")

    assert podman("attach", "c", input="through\n").stdout.strip() == "through"
    assert podman("wait", "c").stdout == "0\n"


def test_podman_checks_the_health_of_a_container(podman: Podman) -> None:
    podman(
        "run", "-d", "--name", "c", "--health-cmd", "test -e /tmp/well",
        "--health-interval", "disable", "busybox", "sleep", "60",
    )  # fmt: skip

    assert podman("healthcheck", "run", "c", check=False).returncode == 1
    podman("exec", "c", "touch", "/tmp/well")
    assert podman("healthcheck", "run", "c").returncode == 0


def test_podman_mounts_a_volume_in_a_read_only_root(podman: Podman, oci: Oci) -> None:
    shared = oci.base / "shared"
    shared.mkdir()

    _inside(
        podman, "--read-only", "-v", f"{shared}:/data", "--",
        "sh", "-c", "echo x > /data/file; ! echo y > /file",
    )  # fmt: skip

    assert (shared / "file").read_text() == "x\n"
    assert _inside(podman, "-v", "named:/data", "--", "sh", "-c", "echo z >/data/f; cat /data/f")
    assert podman(
        "run", "-v", f"{shared}:/d:ro", "busybox", "touch", "/d/f", check=False
    ).returncode


def test_podman_mounts_a_tmpfs_with_the_mode_that_was_asked_for(podman: Podman) -> None:
    shown = _inside(
        podman, "--mount", "type=tmpfs,dst=/t,tmpfs-mode=1777", "--", "stat", "-c", "%a", "/t"
    )

    assert shown == "1777\n"


def test_mounts_of_the_host_reach_a_container_that_shares_them(podman: Podman, oci: Oci) -> None:
    shared = oci.base / "shared"
    (shared / "later").mkdir(parents=True)
    subprocess.run(["mount", "--bind", shared, shared], check=True)
    subprocess.run(["mount", "--make-shared", shared], check=True)
    mount = f"type=bind,src={shared},dst=/s,bind-propagation=rshared"
    podman("run", "-d", "--name", "c", "--mount", mount, "busybox", "sleep", "60")
    subprocess.run(["mount", "-t", "tmpfs", "late", shared / "later"], check=True)
    try:
        assert "late /s/later tmpfs" in podman("exec", "c", "cat", "/proc/mounts").stdout
    finally:
        subprocess.run(["umount", "--recursive", shared], check=True)
    assert "late " not in podman("exec", "c", "cat", "/proc/mounts").stdout


def test_podman_hands_over_secrets_and_an_init(podman: Podman) -> None:
    podman("secret", "create", "word", "-", input="xyzzy")

    assert _inside(podman, "--secret", "word", "--", "cat", "/run/secrets/word") == "xyzzy"
    init = need_tool("catatonit")
    shown = _inside(podman, "--init", "--init-path", init, "--", "cat", "/proc/1/cmdline")
    assert shown.startswith("/run/podman-init\0")


@pytest.mark.parametrize("kind", ["pid", "ipc", "uts", "network"])
def test_podman_shares_a_namespace_with_the_host_or_a_container(podman: Podman, kind: str) -> None:
    link = f"/proc/self/ns/{'net' if kind == 'network' else kind}"
    podman("run", "-d", "--name", "other", "busybox", "sleep", "60")
    others = podman("exec", "other", "readlink", link).stdout

    assert _inside(podman, f"--{kind}=container:other", "--", "readlink", link) == others
    assert _inside(podman, f"--{kind}=host", "--", "readlink", link) == f"{os.readlink(link)}\n"
    assert _inside(podman, "--", "readlink", link) not in (others, f"{os.readlink(link)}\n")


def test_podman_maps_users(podman: Podman) -> None:
    shown = _inside(podman, "--uidmap", "0:100000:65536", "--", "cat", "/proc/self/uid_map")

    assert shown.split() == ["0", "100000", "65536"]


def test_podman_does_without_control_groups(podman: Podman) -> None:
    [ours] = [
        line for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::"
    ]

    shown = _inside(podman, "--cgroups=disabled", "--", "cat", "/proc/self/cgroup").splitlines()

    assert ours in shown


def test_containers_of_a_pod_share_their_namespaces(podman: Podman) -> None:
    need_tool("catatonit")  # what podman's pause image runs
    podman("pod", "create", "--name", "p", "--network", "none", "--hostname", "peas")
    podman("run", "-d", "--pod", "p", "--name", "a", "busybox", "sleep", "60")
    podman("run", "-d", "--pod", "p", "--name", "b", "busybox", "sleep", "60")

    ipc = [podman("exec", name, "readlink", "/proc/self/ns/ipc").stdout for name in "ab"]
    assert ipc[0] == ipc[1]
    assert podman("exec", "a", "hostname").stdout == "peas\n"
    podman("pod", "stop", "--time", "0", "p")
    assert podman("pod", "inspect", "--format", "{{.State}}", "p").stdout == "Exited\n"
    podman("pod", "start", "p")
    assert podman("exec", "b", "echo", "up").stdout == "up\n"


def test_podman_restricts_a_program(podman: Podman) -> None:
    shown = _inside(
        podman, "--cap-drop", "all", "--security-opt", "no-new-privileges", "--umask", "077",
        "--ulimit", "nofile=100:200", "--ulimit", "nproc=1000", "--oom-score-adj", "100",
        "--user", "12:34", "--group-add", "56", "--personality", "LINUX32", "--",
        "sh", "-c", "grep -E 'CapEff|NoNew|Seccomp:' /proc/self/status; umask; ulimit -n;"
        "ulimit -H -n; cat /proc/self/oom_score_adj; id -u; id -g; id -G; uname -m",
    )  # fmt: skip

    assert shown.split() == [
        "CapEff:", "0" * 16, "NoNewPrivs:", "1", "Seccomp:", "2", "0077", "100", "200", "100",
        "12", "34", "34", "56", "i686",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("program", "code", "reason"),
    [
        ("nope", 127, "executable file not found"),
        ("/etc", 126, "is a directory"),
    ],
)
def test_podman_tells_of_a_program_that_cannot_run(
    podman: Podman, program: str, code: int, reason: str
) -> None:
    result = podman("run", "--rm", "busybox", program, check=False)

    assert result.returncode == code
    assert reason in result.stderr
