"""A profile in docker's format becomes the section that holds for one container."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import pytest

from wherry.container.capabilities import DEFAULT, NAMES
from wherry.errors import UsageError

if sys.platform != "linux":
    pytest.skip("wherry_linux is for Linux", allow_module_level=True)

from wherry_linux.seccomp.numbers import NUMBERS
from wherry_linux.seccomp.profile import default_profile
from wherry_linux.seccomp.resolve import resolve_for

PODMANS = "/usr/share/containers/seccomp.json"

# What docker denies and podman allows, so that it runs inside its own containers, and
# calls that no kernel has any more.
PODMANS_OWN = {
    *("clone3", "fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr"),
    *("move_mount", "open_tree", "pivot_root", "setns", "umount", "umount2", "unshare"),
    *("get_mempolicy", "keyctl", "mbind", "pidfd_getfd", "reboot", "set_mempolicy", "syslog"),
}
GONE = {"query_module", "readdir", "sigaction", "signal", "sigpending", "sigsuspend", "syscall"}
GONE |= {"timerfd"}
# What docker took on after podman 4.3.
NEWER = {
    *("cachestat", "fchmodat2", "futex_requeue", "futex_wait", "futex_waitv", "futex_wake"),
    *("getxattrat", "io_pgetevents", "io_pgetevents_time64", "listmount", "listxattrat"),
    *("lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr", "map_shadow_stack"),
    *("mseal", "quotactl_fd", "removexattrat", "set_mempolicy_home_node", "setxattrat"),
    *("statmount", "uretprobe", "vmsplice", "riscv_hwprobe"),
    # Its CAP_BPF and CAP_PERFMON, which podman has under CAP_SYS_ADMIN alone.
    *("bpf", "perf_event_open"),
}


def resolved(profile: Any, capabilities: Any = DEFAULT, **system: str) -> Any:
    return resolve_for(
        profile, capabilities, **{"machine": "x86_64", "release": "6.1.0-13-amd64", **system}
    )


def allowed(section: Any) -> set[str]:
    rules = section["syscalls"]
    return {n for rule in rules if rule["action"] == "SCMP_ACT_ALLOW" for n in rule["names"]}


@pytest.mark.skipif(not os.path.exists(PODMANS), reason="needs podman's profile")
@pytest.mark.parametrize("capabilities", [(), DEFAULT, NAMES, *((name,) for name in NAMES)])
def test_the_default_profile_allows_what_podmans_does(capabilities: Any) -> None:
    with open(PODMANS) as file:
        podmans = allowed(resolved(json.load(file), capabilities))

    ours = allowed(resolved(default_profile(), capabilities))

    assert podmans - ours <= PODMANS_OWN | GONE
    assert ours - podmans <= NEWER


@pytest.mark.parametrize(
    "name",
    [
        *("add_key", "keyctl", "request_key", "userfaultfd", "io_uring_setup", "io_uring_enter"),
        *("bpf", "mount", "umount2", "setns", "unshare", "pivot_root", "kexec_load", "swapon"),
        *("init_module", "iopl", "reboot", "settimeofday", "perf_event_open", "acct", "syslog"),
        *("open_by_handle_at", "move_pages", "mbind", "vm86", "quotactl"),
    ],
)
def test_the_default_profile_keeps_away_from_the_machine(name: str) -> None:
    assert name not in allowed(resolved(default_profile()))


def test_every_name_of_the_default_profile_is_a_system_call() -> None:
    names = {name for rule in default_profile()["syscalls"] for name in rule["names"]}

    others = {"swapcontext", "riscv_flush_icache", "riscv_hwprobe"}
    assert {name for name in names if not name.startswith("s390_")} - others <= NUMBERS.keys()


def test_no_call_is_listed_twice_for_one_reason() -> None:
    for rule in default_profile()["syscalls"]:
        assert len(rule["names"]) == len(set(rule["names"]))


# ---- includes and excludes ----

CONDITIONS = [
    ({"includes": {"caps": ["CAP_A"]}}, ["CAP_A"], True),
    ({"includes": {"caps": ["CAP_A"]}}, [], False),
    ({"includes": {"caps": ["CAP_A", "CAP_B"]}}, ["CAP_A"], False),
    ({"excludes": {"caps": ["CAP_A", "CAP_B"]}}, ["CAP_A"], False),
    ({"excludes": {"caps": ["CAP_A"]}}, ["CAP_B"], True),
    ({"includes": {"arches": ["amd64", "x32"]}}, [], True),
    ({"includes": {"arches": ["arm64"]}}, [], False),
    ({"excludes": {"arches": ["amd64"]}}, [], False),
    ({"includes": {"minKernel": "4.8"}}, [], True),
    ({"includes": {"minKernel": "6.1"}}, [], True),
    ({"includes": {"minKernel": "6.2"}}, [], False),
    ({"excludes": {"minKernel": "6.1"}}, [], False),
    ({"includes": {"arches": ["amd64"], "caps": ["CAP_A"]}}, [], False),
    ({"includes": {}, "excludes": None}, [], True),
]


@pytest.mark.parametrize(("conditions", "capabilities", "holds"), CONDITIONS)
def test_a_rule_holds_where_its_conditions_do(
    conditions: Any, capabilities: list[str], holds: bool
) -> None:
    rule = {"names": ["read"], "action": "SCMP_ACT_ALLOW", **conditions}

    section = resolved({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]}, capabilities)

    assert [set(rule) for rule in section["syscalls"]] == [{"names", "action"}] * holds


@pytest.mark.parametrize(
    ("machine", "architectures"),
    [
        ("x86_64", ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
        ("aarch64", ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
        ("vax", []),
    ],
)
def test_the_architectures_are_those_of_this_machine(
    machine: str, architectures: list[str]
) -> None:
    assert resolved(default_profile(), machine=machine)["architectures"] == architectures


def test_the_oldest_and_the_plain_form_are_read_too() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "listenerPath": "/run/agent",
        "syscalls": [
            {"name": "read", "action": "SCMP_ACT_ERRNO", "args": [], "errnoRet": 0},
            {"names": ["write"], "action": "SCMP_ACT_ERRNO", "args": None, "comment": "no"},
        ],
    }

    assert resolved(profile) == {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "listenerPath": "/run/agent",
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0},
            {"names": ["write"], "action": "SCMP_ACT_ERRNO"},
        ],
    }


@pytest.mark.parametrize(
    "profile",
    [
        {},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": 5},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": ["read"]},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "includes": 5}]},
        {"defaultAction": "a", "architectures": ["b"], "archMap": [{"architecture": "c"}]},
        {
            "defaultAction": "a",
            "syscalls": [{"names": [], "action": "b", "includes": {"minKernel": "new"}}],
        },
    ],
)
def test_a_profile_that_makes_no_sense_is_an_error(profile: Any) -> None:
    with pytest.raises(UsageError, match="seccomp profile"):
        resolved(profile)
