"""What runc's commands do to a container of a hand-made bundle."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from support.oci import Oci
from support.waiting import Deadline, wait_gone, wait_until

pytestmark = pytest.mark.linux


def test_container_is_created_started_killed_and_deleted(oci: Oci) -> None:
    oci.create("c1", "sleep", "60")
    assert oci.status("c1") == "created"

    oci("start", "c1")
    assert oci.status("c1") == "running"
    pid = json.loads(oci("state", "c1").stdout)["pid"]
    assert Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep\0")

    oci("kill", "c1", "KILL")
    wait_gone([pid])
    assert oci.status("c1") == "stopped"

    oci("delete", "c1")
    gone = oci("state", "c1", check=False)
    assert gone.returncode == 1
    assert gone.stderr == "wherry: container c1 does not exist\n"


def test_run_ends_with_the_exit_code_of_the_program(oci: Oci) -> None:
    result = oci.run("sh", "-c", "echo hello; exit 7", check=False)

    assert (result.returncode, result.stdout) == (7, "hello\n")


def test_run_with_keep_leaves_a_stopped_container(oci: Oci) -> None:
    oci.run("true", options=("--keep",))

    assert oci.status("c1") == "stopped"


def test_running_container_is_deleted_only_by_force(oci: Oci) -> None:
    oci.create("c1", "sleep", "60")
    oci("start", "c1")

    refused = oci("delete", "c1", check=False)

    assert refused.returncode == 1
    assert "cannot delete container c1: it is running" in refused.stderr
    oci("delete", "--force", "c1")
    assert oci("list", "-q").stdout == ""


def test_second_container_of_a_name_is_refused(oci: Oci) -> None:
    oci.create("c1", "true")

    result = oci("create", "--bundle", str(oci.bundle), "c1", check=False)

    assert "container c1 already exists" in result.stderr
    assert oci.status("c1") == "created"


def test_group_of_another_container_is_not_shared(oci: Oci) -> None:
    oci.spec["linux"]["cgroupsPath"] = f"/wherry/shared-{os.getpid()}"
    oci.create("first", "sleep", "60")
    oci("start", "first")

    result = oci("create", "--bundle", str(oci.bundle), "second", check=False)

    assert "is in use" in result.stderr
    assert oci.status("first") == "running"


def test_containers_of_one_name_in_other_directories_leave_each_other_alone(
    oci: Oci, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Oci(tmp_path_factory.mktemp("other"))
    oci.create("c1", "sleep", "60")
    other.create("c1", "sleep", "60")

    other("delete", "--force", "c1")

    assert oci.status("c1") == "created"


def test_change_of_the_bundle_after_create_means_nothing(oci: Oci) -> None:
    oci.spec["process"]["env"].append("COLOR=red")
    oci.create("c1", "sleep", "60")
    oci("start", "c1")
    oci.spec["process"]["env"].append("COLOR=blue")
    oci.write()

    assert oci("exec", "c1", "sh", "-c", "echo $COLOR").stdout == "red\n"


def test_exec_passes_the_exit_code_and_takes_options(oci: Oci) -> None:
    oci.create("c1", "sleep", "60")
    oci("start", "c1")

    result = oci(
        "exec", "-e", "A=b", "--cwd", "/tmp", "-u", "12:34", "c1",
        "sh", "-c", "echo $A $PWD; id; exit 5",
        check=False,
    )  # fmt: skip

    assert result.returncode == 5
    assert result.stdout == "b /tmp\nuid=12 gid=34\n"


def test_exec_of_a_process_document(oci: Oci) -> None:
    oci.create("c1", "sleep", "60")
    oci("start", "c1")
    document = oci.base / "process.json"
    document.write_text(json.dumps({"args": ["echo", "hi"], "cwd": "/", "env": ["PATH=/bin"]}))

    assert oci("exec", "--process", str(document), "c1").stdout == "hi\n"


def test_exec_detached_writes_the_pid_of_the_program(oci: Oci) -> None:
    oci.create("c1", "sleep", "60")
    oci("start", "c1")
    pid_file = oci.base / "pid"

    oci("exec", "--detach", "--pid-file", str(pid_file), "c1", "sleep", "50")

    assert Path(f"/proc/{pid_file.read_text()}/cmdline").read_bytes() == b"sleep\x0050\0"
    assert int(pid_file.read_text()) in json.loads(oci("ps", "--format", "json", "c1").stdout)


def test_paused_container_refuses_exec_until_it_goes_on(oci: Oci) -> None:
    oci.create("c1", "sleep", "60")
    oci("start", "c1")

    oci("pause", "c1")

    assert oci.status("c1") == "paused"
    assert "is paused" in oci("exec", "c1", "true", check=False).stderr
    oci("resume", "c1")
    assert oci("exec", "c1", "true").returncode == 0


def test_list_shows_containers_as_a_table_and_as_json(oci: Oci) -> None:
    oci.create("c1", "true")

    assert oci("list").stdout.split()[:6] == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    [entry] = json.loads(oci("list", "--format", "json").stdout)
    assert (entry["id"], entry["status"], entry["bundle"]) == ("c1", "created", str(oci.bundle))


def test_failure_is_logged_as_json(oci: Oci) -> None:
    log = oci.base / "log"

    oci("--log", str(log), "--log-format", "json", "start", "nobody", check=False)

    entry = json.loads(log.read_text())
    assert (entry["level"], entry["msg"]) == ("error", "container nobody does not exist")


def test_program_that_is_not_there_leaves_no_container(oci: Oci) -> None:
    result = oci.run("nope", check=False)

    assert result.returncode == 1
    assert 'exec: "nope": executable file not found in $PATH' in result.stderr
    assert oci("list", "-q").stdout == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [("no program\n", "exec format error"), ("#!/no/such\n", "no such file or directory")],
)
def test_program_that_the_kernel_refuses_says_so_where_the_container_writes(
    oci: Oci, text: str, reason: str
) -> None:
    program = oci.rootfs / "bin/program"
    program.write_text(text)
    program.chmod(0o755)
    oci.create("c1", "program")

    oci("start", "c1")

    _wait_until_stderr_has(oci, f"exec /bin/program: {reason}\n")
    wait_until(lambda: oci.status("c1") == "stopped", Deadline(60, "the container to end"))


def test_what_fails_after_start_is_told_where_the_container_writes(oci: Oci) -> None:
    oci.spec["hooks"] = {"startContainer": [{"path": "/no/such/hook"}]}
    oci.create("c1", "true")

    oci("start", "c1")

    _wait_until_stderr_has(
        oci, "wherry: cannot run startContainer hook /no/such/hook: No such file or directory\n"
    )


def _wait_until_stderr_has(oci: Oci, text: str) -> None:
    """Of a container that `create` has made; no other command may have written meanwhile."""
    errors = oci.base / "err"
    wait_until(lambda: errors.read_text() == text, Deadline(60, f"{text!r} in {errors}"))


def test_preserved_descriptor_reaches_the_program_and_no_other(oci: Oci) -> None:
    kept, _write = os.pipe()
    os.dup2(kept, 3)
    other = os.open("/", os.O_RDONLY)

    result = oci.run("ls", "/proc/self/fd", options=("--preserve-fds", "1"), pass_fds=(3, other))

    # The last one is of the directory that ls lists.
    assert result.stdout.split() == ["0", "1", "2", "3", "4"]
    os.close(other)


def test_hooks_run_in_order_with_the_state_on_their_input(oci: Oci) -> None:
    journal = oci.base / "journal"
    hook = oci.script("hook", f'#!/bin/sh\n(echo "$1"; cat; echo) >> {journal}\n')
    kinds = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    oci.spec["hooks"] = {kind: [{"path": hook, "args": ["hook", kind]}] for kind in kinds}

    oci.run("true")

    lines = journal.read_text().split("\n")[:-1]
    assert lines[::2] == list(kinds)
    states = [json.loads(line) for line in lines[1::2]]
    assert {state["id"] for state in states} == {"c1"}
    assert states[1]["status"] == "creating"
    assert states[-1]["status"] == "stopped"


def test_hook_that_fails_ends_the_creation(oci: Oci) -> None:
    hook = oci.script("hook", "#!/bin/sh\necho no luck >&2\nexit 3\n")
    oci.spec["hooks"] = {"createRuntime": [{"path": hook}]}

    result = oci.run("true", check=False)

    assert "createRuntime hook" in result.stderr
    assert "no luck" in result.stderr


def test_hook_that_takes_too_long_is_ended(oci: Oci) -> None:
    hook = oci.script("hook", "#!/bin/sh\nexec sleep 60\n")
    oci.spec["hooks"] = {"createRuntime": [{"path": hook, "timeout": 1}]}

    assert "took longer than 1 s" in oci.run("true", check=False).stderr


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer", "startContainer"])
def test_hook_has_no_descriptor_but_its_streams(oci: Oci, kind: str) -> None:
    listing = oci.rootfs / "tmp/listing"
    inside = kind == "startContainer"
    path = "/tmp/listing" if inside else str(listing)
    # The listing itself takes one.
    script = f"exec 9> {path}; ls /proc/self/fd >&9"
    oci.spec["hooks"] = {kind: [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    oci.spec["root"]["readonly"] = False
    leaked = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(leaked, True)

    oci.run("true", pass_fds=(leaked,))

    os.close(leaked)
    assert listing.read_text().split() == ["0", "1", "2", "3", "9"]


def test_start_hook_runs_a_program_of_the_container(oci: Oci) -> None:
    oci.spec["hooks"] = {
        "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "cat > /tmp/state"]}]
    }
    oci.spec["root"]["readonly"] = False

    state = json.loads(oci.run("cat", "/tmp/state").stdout)

    assert (state["id"], state["status"]) == ("c1", "created")
    assert state["pid"] > 0


def test_features_say_what_an_engine_may_ask_for(oci: Oci) -> None:
    features = json.loads(oci("features").stdout)

    assert "1.3.0" == features["ociVersionMax"] == oci.spec["ociVersion"]
    assert "time" in features["linux"]["namespaces"]
    assert "MPOL_BIND" in features["linux"]["memoryPolicy"]["modes"]
    assert features["linux"]["netDevices"]["enabled"]
    assert "rro" in features["mountOptions"]
    assert "SCMP_ACT_ERRNO" in features["linux"]["seccomp"]["actions"]


def test_events_tell_what_a_container_uses(oci: Oci) -> None:
    oci.create("c1", "sleep", "60")
    oci("start", "c1")

    event = json.loads(oci("events", "--stats", "c1").stdout)

    assert (event["type"], event["id"]) == ("stats", "c1")
    assert {"cpu", "memory", "pids", "blkio", "network_interfaces"} <= event["data"].keys()
    oci("kill", "c1", "KILL")
    # It ends with the container, however long the interval.
    oci("events", "--interval", "1h", "c1", check=False)


def test_update_is_kept_in_the_containers_config(oci: Oci) -> None:
    oci.spec["linux"]["resources"] = {"unified": {"cgroup.max.depth": "7"}}
    oci.create("c1", "sleep", "60")
    changes = oci.base / "changes.json"

    for limit in ("4", "5"):
        changes.write_text(json.dumps({"unified": {"cgroup.max.descendants": limit}}))
        oci("update", "--resources", str(changes), "c1")

    kept = json.loads((oci.state / "c1/config.json").read_text())["linux"]["resources"]
    assert kept["unified"] == {"cgroup.max.depth": "7", "cgroup.max.descendants": "5"}


def test_limit_of_no_processes_is_none_for_who_wrote_before_it_meant_something(oci: Oci) -> None:
    oci.spec["ociVersion"] = "1.2.1"
    oci.spec["linux"]["resources"] = {"pids": {"limit": 0}}

    assert oci.run("echo", "runs").stdout == "runs\n"

    oci.spec["ociVersion"] = "1.3.0"
    result = oci.run("sh", "-c", "ls | cat", check=False)
    # Its program runs and can fork none, or the host can limit nothing.
    assert "can't fork" in result.stderr or "pids controller is not available" in result.stderr


def test_containers_cannot_be_written_to_files(oci: Oci) -> None:
    result = oci("checkpoint", "c1", check=False)

    assert result.returncode == 1
    assert result.stderr == "wherry: wherry oci checkpoint: containers are not written to files\n"


@pytest.mark.parametrize("status", ["created", "running", "paused", "stopped"])
def test_container_is_deleted_by_force_whatever_it_does(oci: Oci, status: str) -> None:
    oci.create("c1", "sleep", "60")
    if status != "created":
        oci("start", "c1")
    if status == "paused":
        oci("pause", "c1")
    if status == "stopped":
        pid = json.loads(oci("state", "c1").stdout)["pid"]
        oci("kill", "c1", "KILL")
        wait_gone([pid])
    assert oci.status("c1") == status

    oci("delete", "--force", "c1")

    assert oci("list", "-q").stdout == ""
    assert oci("delete", "--force", "c1").returncode == 0


def test_signal_reaches_every_process(oci: Oci) -> None:
    oci.create("c1", "sleep", "60")
    oci("start", "c1")
    pid_file = oci.base / "pid"
    oci("exec", "--detach", "--pid-file", str(pid_file), "c1", "sleep", "50")

    oci("kill", "--all", "c1", "KILL")

    wait_gone([int(pid_file.read_text())])


@pytest.mark.parametrize("status", ["stopped", "nothing"])
def test_signal_to_what_does_not_run_is_refused(oci: Oci, status: str) -> None:
    if status == "stopped":
        oci.run("true", options=("--keep",))

    result = oci("kill", "c1", "TERM", check=False)

    assert result.returncode == 1
    assert "is not running" in result.stderr or "does not exist" in result.stderr
