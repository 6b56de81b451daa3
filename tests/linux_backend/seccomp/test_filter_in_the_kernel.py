"""The kernel carries out what a filter decides, in real processes."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import signal
import socket
import stat
import struct
import sys
from typing import TYPE_CHECKING, Any

import pytest

from wherry.container.capabilities import DEFAULT
from wherry.errors import UsageError, WherryError

if sys.platform != "linux":
    pytest.skip("wherry_linux is for Linux", allow_module_level=True)

from wherry_linux import seccomp
from wherry_linux.constants import PR_SET_NO_NEW_PRIVS
from wherry_linux.seccomp.install import flag_bits, install
from wherry_linux.seccomp.resolve import resolve
from wherry_linux.syscalls import libc, prctl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.linux


@pytest.fixture(autouse=True)
def own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WHERRY_ROOT", str(tmp_path))
    monkeypatch.setattr(seccomp, "_prepared", {})
    return tmp_path


def section(*rules: dict[str, Any], **more: Any) -> Any:
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list(rules), **more}


def rule(name: str, action: str, **more: Any) -> dict[str, Any]:
    return {"names": [name], "action": f"SCMP_ACT_{action}", **more}


def in_child(function: Callable[[], Any]) -> tuple[Any, int]:
    """What `function` returns, and the child's wait status."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(writer, json.dumps(function()).encode())
            os._exit(0)
        finally:
            os._exit(70)
    os.close(writer)
    with open(reader, "rb") as answer:
        content = answer.read()
    return json.loads(content or b"null"), os.waitpid(child, 0)[1]


def call(number: int, *arguments: int) -> int:
    """0, or the error number of a system call."""
    ctypes.set_errno(0)
    result = libc.syscall(*map(ctypes.c_long, (number, *arguments)))
    return 0 if result >= 0 else ctypes.get_errno()


def getppid() -> int:
    """The same of a call that cannot fail: the C library passes on what the kernel says."""
    return max(0, -int(libc.getppid()))


def filtered(profile: Any, function: Callable[[], Any]) -> tuple[Any, int]:
    seccomp.prepare(profile)

    def child() -> Any:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        seccomp.install_profile(profile, "{}")
        return function()

    return in_child(child)


@pytest.mark.parametrize(
    ("rules", "error"),
    [
        ([rule("getppid", "ERRNO")], errno.EPERM),
        ([rule("getppid", "ERRNO", errnoRet=errno.EXDEV)], errno.EXDEV),
        ([rule("getppid", "TRACE")], errno.ENOSYS),
        ([rule("getppid", "LOG")], 0),
        ([rule("getuid", "ERRNO")], 0),
    ],
)
def test_a_denied_call_fails_with_the_profiles_error(rules: Any, error: int) -> None:
    assert filtered(section(*rules), getppid) == (error, 0)


@pytest.mark.parametrize("action", ["KILL", "KILL_THREAD", "KILL_PROCESS", "TRAP"])
def test_a_deadly_call_ends_the_process(action: str) -> None:
    _, status = filtered(section(rule("getppid", action)), getppid)

    assert os.WTERMSIG(status) == signal.SIGSYS


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="calls by x86_64's numbers")
@pytest.mark.parametrize(
    ("family", "allowed"),
    [(1, True), (2, True), (38, False), (40, False), (38 | 1 << 32, False)],
)
def test_the_default_profile_decides_about_sockets(family: int, allowed: bool) -> None:
    result, _ = filtered(resolve(None, DEFAULT), lambda: call(41, family, 1, 0))

    assert (result != errno.EPERM) == allowed


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="calls by x86_64's numbers")
def test_namespaces_and_mounts_are_denied_by_default() -> None:
    unshare, mount, clone3, newer = (272, 0x10000000), (165, 0, 0, 0, 0, 0), (435, 0, 0), (5000,)

    result, _ = filtered(
        resolve(None, DEFAULT), lambda: [call(*c) for c in (unshare, mount, clone3, newer)]
    )

    assert result == [errno.EPERM, errno.EPERM, errno.ENOSYS, errno.ENOSYS]


def test_programs_run_under_the_default_profile() -> None:
    program = "import threading; threading.Thread(target=int).start(); import subprocess as s"
    program += "; s.run(['true'], check=True)"

    def work() -> int:
        return os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", program])

    assert filtered(resolve(None, DEFAULT), work) == (0, 0)


@pytest.mark.parametrize(
    "flags", [None, [], ["SECCOMP_FILTER_FLAG_LOG"], ["SECCOMP_FILTER_FLAG_TSYNC"]]
)
def test_flags_reach_the_kernel(flags: Any) -> None:
    profile = section(rule("getppid", "ERRNO"), **({} if flags is None else {"flags": flags}))

    assert filtered(profile, getppid) == (errno.EPERM, 0)


def test_an_unknown_flag_is_an_error() -> None:
    with pytest.raises(UsageError, match="unknown seccomp flag FLY"):
        flag_bits(["FLY"])


def test_a_filter_without_the_right_to_it_is_explained() -> None:
    program = seccomp.load_program(section())

    def unprivileged() -> str | None:
        os.setuid(1234)
        try:
            install(program)
        except WherryError as error:
            return error.hint
        return None

    if os.geteuid() != 0:
        pytest.skip("needs root to give it up")
    assert "no-new-privileges" in str(in_child(unprivileged)[0])


# ---- the cache ----


def cached(root: Path) -> list[Path]:
    return list((root / "data" / "cache" / "seccomp").glob("*.bpf"))


def test_a_program_is_compiled_once(own_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = section(rule("getppid", "ERRNO"))
    first = seccomp.load_program(profile)
    monkeypatch.setattr(seccomp, "_compile", lambda _: pytest.fail("compiled again"))

    assert seccomp.load_program(profile) == first
    (file,) = cached(own_root)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_other_rules_make_another_program(own_root: Path) -> None:
    seccomp.load_program(section(rule("getppid", "ERRNO")))
    seccomp.load_program(section(rule("getppid", "ERRNO", errnoRet=2)))

    assert len(cached(own_root)) == 2


@pytest.mark.parametrize("damage", ["writable", "odd", "empty", "link"])
def test_a_file_that_cannot_be_ours_is_compiled_again(own_root: Path, damage: str) -> None:
    profile = section(rule("getppid", "ERRNO"))
    program = seccomp.load_program(profile)
    (file,) = cached(own_root)
    other = struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000)

    if damage == "writable":
        file.write_bytes(other)
        file.chmod(0o666)
    elif damage == "link":
        (own_root / "other").write_bytes(other)
        file.unlink()
        file.symlink_to(own_root / "other")
    else:
        file.write_bytes(other[:5] if damage == "odd" else b"")

    assert seccomp.load_program(profile) == program


def test_a_prepared_filter_needs_no_files(own_root: Path) -> None:
    profile = section(rule("getppid", "ERRNO"))
    seccomp.prepare(profile)
    loaded = set(sys.modules)

    def in_an_empty_root() -> list[Any]:
        if os.geteuid() == 0:
            os.chroot(own_root)
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        seccomp.install_profile(profile, "{}")
        return [getppid(), sorted(set(sys.modules) - loaded)]

    assert in_child(in_an_empty_root) == ([errno.EPERM, []], 0)


def test_a_filter_that_was_not_prepared_is_an_error() -> None:
    with pytest.raises(WherryError, match="not prepared"):
        seccomp.install_profile(section(rule("getppid", "ERRNO")), "{}")


# ---- notifications ----


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "agent"))
        server.listen()
        yield server


def test_a_listener_is_given_the_notifications(agent: socket.socket) -> None:
    profile = section(
        rule("getppid", "NOTIFY"), listenerPath=agent.getsockname(), listenerMetadata="mine"
    )
    state = {"ociVersion": "1.2.0", "id": "box", "status": "creating", "pid": 77, "bundle": "/b"}
    seccomp.prepare(profile)
    if (child := os.fork()) == 0:
        try:
            prctl(PR_SET_NO_NEW_PRIVS, 1)
            seccomp.install_profile(profile, json.dumps(state))
            os._exit(libc.getppid() & 0x7F)
        finally:
            os._exit(70)

    seccomp.release(profile)
    connection, _ = agent.accept()
    with connection:
        content, descriptors, _, _ = socket.recv_fds(connection, 65536, 4)
        assert connection.recv(1) == b""
    (notifications,) = descriptors
    answer(notifications, 42)
    os.close(notifications)

    assert json.loads(content) == {
        "ociVersion": "1.3.0",
        "fds": ["seccompFd"],
        "pid": 77,
        "metadata": "mine",
        "state": state,
    }
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42


def answer(notifications: int, result: int) -> None:
    """Answer one notification (seccomp_unotify(2)) in the kernel's place."""
    import fcntl

    receive, send = 0xC0502100, 0xC0182101
    assert select.select([notifications], [], [], 60)[0]
    request = bytearray(80)
    fcntl.ioctl(notifications, receive, request)
    (cookie,) = struct.unpack_from("=Q", request)
    fcntl.ioctl(notifications, send, bytearray(struct.pack("=QqiI", cookie, result, 0, 0)))


def test_a_listener_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    profile = section(rule("getppid", "NOTIFY"), listenerPath=str(tmp_path / "nobody"))

    with pytest.raises(WherryError, match="cannot reach the seccomp listener"):
        seccomp.prepare(profile)


@pytest.mark.parametrize(
    "profile", [section(rule("sendmsg", "NOTIFY")), {"defaultAction": "SCMP_ACT_NOTIFY"}]
)
def test_a_profile_that_would_wait_for_itself_is_an_error(
    profile: Any, agent: socket.socket
) -> None:
    with pytest.raises(UsageError, match="SCMP_ACT_NOTIFY cannot be"):
        seccomp.prepare(profile | {"listenerPath": agent.getsockname()})
