"""A compiled filter decides what its section means, and what libseccomp's would."""

from __future__ import annotations

import random
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.bpf import (
    ALLOW,
    ERRNO,
    KILL_PROCESS,
    KILL_THREAD,
    LOG,
    NOTIFY,
    TOKENS,
    TRACE,
    TRAP,
    X32_BIT,
    libseccomp,
    run,
    steps,
)
from wherry.container.capabilities import DEFAULT, NAMES
from wherry.errors import Unsupported, UsageError

if sys.platform != "linux":
    pytest.skip("wherry_linux is for Linux", allow_module_level=True)

from wherry_linux.seccomp.compiler import ACTIONS, OPERATORS, compile_filter
from wherry_linux.seccomp.numbers import ARCHITECTURES, NUMBERS
from wherry_linux.seccomp.profile import default_profile
from wherry_linux.seccomp.resolve import resolve_for

EPERM, ENOSYS = 1, 38
X86_ARCHES = ("x86_64", "x86", "x32")
ARM_ARCHES = ("aarch64", "arm")
LISTED = [f"SCMP_ARCH_{name}" for name in ("X86_64", "X86", "X32", "AARCH64", "ARM")]


def number_of(arch: str, name: str) -> int | None:
    row = NUMBERS.get(name)
    number = row[ARCHITECTURES.index(arch)] if row else None
    return None if number is None else number + (X32_BIT if arch == "x32" else 0)


def decide(program: bytes, arch: str, name: str, *arguments: int) -> int:
    number = number_of(arch, name)
    assert number is not None
    return run(program, TOKENS[arch], number, arguments)


def section(*rules: dict[str, Any], default: str = "SCMP_ACT_ERRNO", **more: Any) -> Any:
    return {
        "defaultAction": default,
        "architectures": LISTED,
        "syscalls": [{"action": "SCMP_ACT_ALLOW", **rule} for rule in rules],
        **more,
    }


def argument(op: str, value: int, two: int = 0, index: int = 0) -> dict[str, Any]:
    return {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": two}


def default_section(capabilities: Any = DEFAULT, machine: str = "x86_64") -> Any:
    return resolve_for(default_profile(), capabilities, machine=machine, release="6.1.0")


# ---- what a section means, said once more and plainly ----


def meaning(seccomp: Any, arch: str, name: str, arguments: list[int]) -> int:
    def value(action: str, errno: int | None) -> int:
        number = ACTIONS[action]
        return number | (EPERM if errno is None else errno) if number in (ERRNO, TRACE) else number

    word = 0xFFFFFFFF if arch in ("x86", "x32", "arm") else 0xFFFFFFFFFFFFFFFF

    def holds(condition: Any) -> bool:
        left = arguments[condition["index"]] & word
        right, two = condition["value"] & word, condition.get("valueTwo", 0) & word
        answers: dict[str, bool] = {
            "SCMP_CMP_NE": left != right,
            "SCMP_CMP_LT": left < right,
            "SCMP_CMP_LE": left <= right,
            "SCMP_CMP_EQ": left == right,
            "SCMP_CMP_GE": left >= right,
            "SCMP_CMP_GT": left > right,
            "SCMP_CMP_MASKED_EQ": left & right == two & right,
        }
        return answers[condition["op"]]

    default = value(seccomp["defaultAction"], seccomp.get("defaultErrnoRet"))
    rules = [
        (rule.get("args") or [], value(rule["action"], rule.get("errnoRet")))
        for rule in seccomp["syscalls"]
        if name in rule["names"]
    ]
    rules = [(args, action) for args, action in rules if action != default]
    for args, action in rules:
        if not args:
            return action
    for args, action in rules:
        repeated = len({condition["index"] for condition in args}) < len(args)
        if (any if repeated else all)(map(holds, args)):
            return action
    return default


VALUES = [0, 1, 2, 11, 12, 38, 39, 40, 41, 0x20000, 0x7E020000, 0x10000000, 0xFFFFFFFF]
VALUES += [0x100000026, 0x1_0000_0000, 0xFFFFFFFF_00000000, 0xFFFFFFFFFFFFFFFF, 1 << 63]


@pytest.mark.parametrize(
    "capabilities", [DEFAULT, (), NAMES, ("CAP_SYS_ADMIN",), ("CAP_SYS_PTRACE", "CAP_BPF")]
)
@pytest.mark.parametrize(("machine", "arches"), [("x86_64", X86_ARCHES), ("aarch64", ARM_ARCHES)])
def test_the_default_profile_means_the_same_compiled(
    capabilities: Any, machine: str, arches: tuple[str, ...]
) -> None:
    seccomp = default_section(capabilities, machine)
    named = {name for rule in seccomp["syscalls"] for name in rule["names"]}
    numbers = random.Random(0)

    program = compile_filter(seccomp, machine)

    for arch in arches:
        for name in NUMBERS:
            if number_of(arch, name) is None or (name not in named and name.startswith("file_")):
                continue
            for first in [0, *numbers.sample(VALUES, 3)] if name != "socket" else VALUES:
                given_arguments = [first, *numbers.sample(VALUES, 5)]
                expected = meaning(seccomp, arch, name, given_arguments)
                if name == "open_tree_attr":
                    # Newer than the newest that the profile names.
                    expected = ERRNO | ENOSYS
                got = decide(program, arch, name, *given_arguments)
                assert got == expected, (arch, name, given_arguments)


@pytest.mark.parametrize("capabilities", [DEFAULT, (), NAMES])
def test_the_default_profile_does_what_libseccomp_makes_of_it(capabilities: Any) -> None:
    library = libseccomp()
    seccomp = default_section(capabilities)
    ours = compile_filter(seccomp, "x86_64")
    theirs = library.compile(seccomp, ACTIONS, X86_ARCHES)

    for arch in X86_ARCHES:
        for name in NUMBERS:
            number = library.number(arch, name)
            if number is None:
                continue
            for first in VALUES:
                call = (TOKENS[arch], number, [first, first, 0, 0, 0, 0])
                assert run(ours, *call) == run(theirs, *call), (arch, name, first)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_numbers_are_libseccomps(arch: str) -> None:
    library = libseccomp()

    theirs = {name: library.number(arch, name) for name in NUMBERS}

    different = {
        name: (number_of(arch, name), number)
        for name, number in theirs.items()
        if number is not None and number_of(arch, name) != number
    }
    assert different == {}


# ---- any section ----

CALLS = ["read", "socket", "personality", "clone", "ptrace", "chroot", "semop", "no_such_call"]
CONDITIONS = st.builds(
    lambda op, value, two, index: argument(op.removeprefix("SCMP_CMP_"), value, two, index),
    st.sampled_from(OPERATORS),
    st.sampled_from(VALUES),
    st.sampled_from(VALUES),
    st.integers(0, 2),
)


@st.composite
def rules(draw: Any, actions: list[str]) -> Any:
    action = draw(st.sampled_from(actions))
    rule = {
        "names": draw(st.lists(st.sampled_from(CALLS), min_size=1, max_size=3, unique=True)),
        "action": action,
        "args": draw(st.lists(CONDITIONS, max_size=3)),
    }
    if action in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        rule["errnoRet"] = draw(st.integers(0, 4095))
    return rule


def sections(actions: list[str], max_size: int = 8) -> Any:
    return st.builds(
        lambda given_rules, default: section(*given_rules, default=default),
        st.lists(rules(actions), max_size=max_size),
        st.sampled_from(["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_KILL_PROCESS"]),
    )


@settings(max_examples=150)
@given(
    sections(list(ACTIONS)),
    st.lists(st.lists(st.sampled_from(VALUES), min_size=6, max_size=6), min_size=1, max_size=5),
)
def test_any_section_means_the_same_compiled(seccomp: Any, tries: list[list[int]]) -> None:
    program = compile_filter(seccomp, "x86_64")

    for arch in ("x86_64", "x32", "x86"):
        for name in CALLS:
            number = number_of(arch, name)
            named = [n for rule in seccomp["syscalls"] for n in rule["names"]]
            if number is None or name not in named:
                continue
            for arguments in tries:
                got = run(program, TOKENS[arch], number, arguments)
                assert got == meaning(seccomp, arch, name, arguments), (arch, name, arguments)


@settings(max_examples=60, derandomize=True)
@given(
    # What libseccomp makes of overlapping rules with several actions depends on how it
    # happens to build its tree; over many rules with several arguments it can take forever.
    st.sampled_from(["SCMP_ACT_LOG", "SCMP_ACT_TRAP"]).flatmap(lambda one: sections([one], 3)),
    st.lists(st.lists(st.sampled_from(VALUES), min_size=6, max_size=6), min_size=1, max_size=5),
)
def test_any_section_does_what_libseccomp_makes_of_it(seccomp: Any, tries: list[list[int]]) -> None:
    library = libseccomp()
    native: Any = {**seccomp, "architectures": []}
    ours, theirs = compile_filter(native, "x86_64"), library.compile(native, ACTIONS, ["x86_64"])

    named = {name for rule in seccomp["syscalls"] for name in rule["names"]} - {"no_such_call"}
    for name in named:
        number = number_of("x86_64", name)
        for arguments in tries:
            if number is not None:
                call = (TOKENS["x86_64"], number, arguments)
                assert run(ours, *call) == run(theirs, *call), (name, arguments)


@pytest.mark.parametrize(
    ("rule", "decision"),
    [
        ({"action": "SCMP_ACT_ALLOW"}, ALLOW),
        ({"action": "SCMP_ACT_LOG"}, LOG),
        ({"action": "SCMP_ACT_TRACE"}, TRACE | 1),
        ({"action": "SCMP_ACT_TRACE", "errnoRet": 7}, TRACE | 7),
        ({"action": "SCMP_ACT_NOTIFY"}, NOTIFY),
        ({"action": "SCMP_ACT_ERRNO"}, ERRNO | 1),
        ({"action": "SCMP_ACT_ERRNO", "errnoRet": 13}, ERRNO | 13),
        ({"action": "SCMP_ACT_TRAP"}, TRAP),
        ({"action": "SCMP_ACT_KILL"}, KILL_THREAD),
        ({"action": "SCMP_ACT_KILL_THREAD"}, KILL_THREAD),
        ({"action": "SCMP_ACT_KILL_PROCESS"}, KILL_PROCESS),
    ],
)
def test_every_action_has_its_value(rule: dict[str, Any], decision: int) -> None:
    program = compile_filter(section({"names": ["read"], **rule}, defaultErrnoRet=5), "x86_64")

    assert decide(program, "x86_64", "read") == decision
    assert decide(program, "x86_64", "chroot") != decision


def test_the_default_error_is_the_profiles() -> None:
    program = compile_filter(section({"names": ["reboot"]}, defaultErrnoRet=13), "x86_64")

    assert decide(program, "x86_64", "read") == ERRNO | 13


def test_calls_newer_than_the_profile_are_not_implemented() -> None:
    program = compile_filter(section({"names": ["openat2", "cacheflush"]}), "x86_64")

    assert decide(program, "x86_64", "clone3") == ERRNO | EPERM
    assert decide(program, "x86_64", "openat2") == ALLOW
    assert decide(program, "x86_64", "faccessat2") == ERRNO | ENOSYS
    assert decide(program, "x32", "faccessat2") == ERRNO | ENOSYS
    assert decide(program, "x32", "rt_sigaction") == ERRNO | EPERM
    assert run(program, TOKENS["x86_64"], 5000) == ERRNO | ENOSYS
    assert run(program, TOKENS["x86_64"], 0xFFFFFFFF) == ERRNO | EPERM


def test_arms_own_calls_are_not_newer_ones() -> None:
    program = compile_filter(section({"names": ["openat2", "cacheflush"]}), "aarch64")

    assert decide(program, "arm", "cacheflush") == ALLOW
    assert decide(program, "arm", "set_tls") == ERRNO | EPERM
    assert decide(program, "arm", "faccessat2") == ERRNO | ENOSYS


@pytest.mark.parametrize("default", ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"])
def test_a_profile_that_lets_calls_pass_lets_newer_ones_pass(default: str) -> None:
    denied = {"names": ["read"], "action": "SCMP_ACT_ERRNO"}
    program = compile_filter(section(denied, default=default), "x86_64")

    assert run(program, TOKENS["x86_64"], 5000) != ERRNO | ENOSYS


def test_an_architecture_that_is_not_listed_kills() -> None:
    seccomp = section({"names": ["read"]}, architectures=[])
    program = compile_filter(seccomp, "x86_64")

    assert decide(program, "x86_64", "read") == ALLOW
    assert decide(program, "x86", "read") == KILL_PROCESS
    assert decide(program, "x32", "read") == KILL_PROCESS
    assert run(program, TOKENS["x86_64"], 0xFFFFFFFF) == ERRNO | EPERM
    assert run(program, 0x12345678, 0) == KILL_PROCESS


def test_a_32_bit_call_is_judged_by_32_bits() -> None:
    rule = {"names": ["socket"], "args": [argument("EQ", 38)], "action": "SCMP_ACT_ERRNO"}
    program = compile_filter(section(rule, default="SCMP_ACT_ALLOW"), "x86_64")

    assert decide(program, "x86", "socket", 0x1_0000_0026) == ERRNO | EPERM
    assert decide(program, "x86_64", "socket", 0x1_0000_0026) == ALLOW


def test_a_rule_reaches_the_call_behind_socketcall_and_ipc() -> None:
    rule = {"names": ["connect", "shmat"], "action": "SCMP_ACT_ERRNO"}
    program = compile_filter(section(rule, default="SCMP_ACT_ALLOW"), "x86_64")

    assert decide(program, "x86", "socketcall", 3) == ERRNO | EPERM
    assert decide(program, "x86", "socketcall", 4) == ALLOW
    assert decide(program, "x86", "ipc", 21) == ERRNO | EPERM
    assert decide(program, "x86", "ipc", 0x10015) == ERRNO | EPERM
    assert decide(program, "x86", "ipc", 22) == ALLOW


@pytest.mark.parametrize("family", range(64))
@pytest.mark.parametrize("above", [0, 1 << 32, 1 << 63])
def test_hardware_crypto_and_hypervisor_sockets_are_denied_by_default(
    family: int, above: int
) -> None:
    program = compile_filter(default_section(), "x86_64")

    allowed = decide(program, "x86_64", "socket", family | above) == ALLOW
    if family in (38, 40) or above:
        assert not allowed
    if family in (1, 2, 10, 16, 17) and not above:
        assert allowed


def test_namespaces_need_the_capability() -> None:
    program = compile_filter(default_section(), "x86_64")
    admin = compile_filter(default_section(NAMES), "x86_64")

    for flag in (0x20000, 0x10000000, 0x40000000):
        assert decide(program, "x86_64", "clone", flag | 17) == ERRNO | EPERM
        assert decide(admin, "x86_64", "clone", flag | 17) == ALLOW
    assert decide(program, "x86_64", "clone", 17) == ALLOW
    assert decide(program, "x86_64", "clone3") == ERRNO | ENOSYS
    assert decide(admin, "x86_64", "clone3") == ALLOW
    assert decide(program, "x86_64", "mount") == ERRNO | EPERM
    assert decide(admin, "x86_64", "mount") == ALLOW


def test_jumps_of_any_length_arrive() -> None:
    names = [name for name in NUMBERS if number_of("x86_64", name) is not None]
    many = [
        {"names": [name], "args": [argument("EQ", place * 7 + k) for k in range(2)]}
        for place, name in enumerate(names)
    ]
    program = compile_filter(section(*many, architectures=[]), "x86_64")

    assert len(program) // 8 > 2000
    for place, name in enumerate(names):
        assert decide(program, "x86_64", name, place * 7 + 1) == ALLOW
        assert decide(program, "x86_64", name, place * 7 + 2) == ERRNO | EPERM


def test_a_decision_takes_few_instructions() -> None:
    program = compile_filter(default_section(), "x86_64")

    longest = max(
        steps(program, TOKENS["x86_64"], number)
        for name in NUMBERS
        if name not in ("socket", "personality")
        and (number := number_of("x86_64", name)) is not None
    )
    assert longest <= 20


def test_a_program_longer_than_the_kernel_takes_is_an_error() -> None:
    many = [{"names": ["read"], "args": [argument("EQ", number)]} for number in range(2000)]

    with pytest.raises(UsageError, match="instructions"):
        compile_filter(section(*many), "x86_64")


@pytest.mark.parametrize(
    "change",
    [
        {"defaultAction": "SCMP_ACT_FLY"},
        {"architectures": ["VAX"]},
        {"syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096}]},
        {"syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1}]},
        {"syscalls": [{"names": ["read"], "action": "SCMP_ACT_LOG", "args": [argument("EW", 1)]}]},
        {
            "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_LOG", "args": [argument("EQ", 1, index=6)]}
            ]
        },
    ],
)
def test_a_section_that_makes_no_sense_is_an_error(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        compile_filter(section() | change, "x86_64")


def test_a_machine_without_numbers_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="vax"):
        compile_filter(section(), "vax")
