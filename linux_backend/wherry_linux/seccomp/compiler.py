"""From runtime-spec's seccomp section to a BPF program.

The meaning is that of libseccomp, which runc and crun use, so that a profile does here
what it does there:

- a rule without arguments decides for its call, whatever other rules say of it; of two
  the first decides;
- rules with arguments are tried in order, the first whose conditions all hold decides,
  and the default action where none does;
- a rule that does what the default does anyway is no rule;
- conditions on one argument twice within a rule are alternatives;
- names that an architecture does not have are passed over;
- an architecture that is not listed kills the process.

Calls that are newer than the newest one that the profile names for an architecture get
ENOSYS instead of a denying default action: its author cannot have meant to forbid them,
and a C library that meets a call it did not expect to be refused fails, while on ENOSYS
it falls back on the older one.

The numbers of an architecture are cut into intervals with one decision each, and a
balanced tree finds the interval. What is allowed whatever its arguments the kernel
remembers after the first look (since 5.11), so the tree is about all others.
"""

from __future__ import annotations

from wherry.errors import Unsupported, UsageError
from wherry_linux.seccomp.bpf import (
    AND_K,
    JEQ_K,
    JGE_K,
    JGT_K,
    LD_W_ABS,
    LONGEST_PROGRAM,
    Code,
    assemble,
)
from wherry_linux.seccomp.numbers import ARCHITECTURES, NUMBERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from wherry.oci.runtime_spec import LinuxSeccomp, LinuxSeccompArg, LinuxSyscall
    from wherry_linux.seccomp.bpf import Label

# linux/seccomp.h
KILL_PROCESS = 0x80000000
KILL_THREAD = 0x00000000
TRAP = 0x00030000
ERRNO = 0x00050000
USER_NOTIF = 0x7FC00000
TRACE = 0x7FF00000
LOG = 0x7FFC0000
ALLOW = 0x7FFF0000

ACTIONS = {
    "SCMP_ACT_KILL": KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_TRAP": TRAP,
    "SCMP_ACT_ERRNO": ERRNO,
    "SCMP_ACT_TRACE": TRACE,
    "SCMP_ACT_ALLOW": ALLOW,
    "SCMP_ACT_LOG": LOG,
    "SCMP_ACT_NOTIFY": USER_NOTIF,
}
OPERATORS = (
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
)
_EPERM = 1
_ENOSYS = 38
_LARGEST_ERRNO = 4095

# libseccomp's architecture: linux/audit.h's token, our column of numbers, bits of a word.
ARCHES: dict[str, tuple[int, str, int]] = {
    "SCMP_ARCH_X86_64": (0xC000003E, "x86_64", 64),
    "SCMP_ARCH_X86": (0x40000003, "x86", 32),
    "SCMP_ARCH_X32": (0xC000003E, "x32", 32),
    "SCMP_ARCH_AARCH64": (0xC00000B7, "aarch64", 64),
    "SCMP_ARCH_ARM": (0x40000028, "arm", 32),
}
NATIVE = {
    "x86_64": "SCMP_ARCH_X86_64",
    "i686": "SCMP_ARCH_X86",
    "aarch64": "SCMP_ARCH_AARCH64",
    "armv7l": "SCMP_ARCH_ARM",
}
# What is not listed here cannot run on such a machine.
_COMPATIBLE = {
    "SCMP_ARCH_X86_64": ("SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "SCMP_ARCH_AARCH64": ("SCMP_ARCH_ARM",),
}

# struct seccomp_data
_OFFSET_NUMBER = 0
_OFFSET_ARCH = 4
_OFFSET_ARGUMENTS = 16

_X32_BIT = 0x40000000
# The first number that no architecture can have. -1 is what a tracer leaves that skips a call.
_NEGATIVE = 0x80000000
_NUMBERS_END = 1 << 32
# x32 has calls of its own between 512 and 547, arm from 0x0f0000 on.
_PRIVATE = {"x32": range(512, 548), "arm": range(0xF0000, 0xF0800)}

# What a 32-bit program says to socketcall(2) and ipc(2) in place of the call itself:
# a rule for the call has to reach it there too.
_SOCKETCALL = (
    *("socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername"),
    *("socketpair", "send", "recv", "sendto", "recvfrom", "shutdown", "setsockopt"),
    *("getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg", "sendmmsg"),
)
_IPC = {
    "semop": 1,
    "semget": 2,
    "semctl": 3,
    "semtimedop": 4,
    "msgsnd": 11,
    "msgrcv": 12,
    "msgget": 13,
    "msgctl": 14,
    "shmat": 21,
    "shmdt": 22,
    "shmget": 23,
    "shmctl": 24,
}
_MULTIPLEXED = {
    **{name: ("socketcall", number) for number, name in enumerate(_SOCKETCALL, 1)},
    **{name: ("ipc", number) for name, number in _IPC.items()},
}

# Argument, operator, its one or two numbers, bits of a word.
Condition = tuple[int, str, int, int, int]
Conditions = tuple[Condition, ...]
# What is decided for a number: rules (conditions, action), and the action after them.
Decision = tuple[tuple[tuple[Conditions, int], ...], int]
Interval = tuple[int, Decision]


def compile_filter(seccomp: LinuxSeccomp, machine: str) -> bytes:
    """The program, an array of struct sock_filter, for a kernel of uname's `machine`.

    Raises UsageError where the section makes no sense.
    """
    try:
        native = NATIVE[machine]
    except KeyError:
        raise Unsupported(
            f"wherry has no system call numbers for seccomp on {machine}",
            hint="run with --security-opt seccomp=unconfined",
        ) from None
    code = Code()
    unknown = code.ret(KILL_PROCESS)
    after = unknown
    for token, intervals in reversed(_sections(seccomp, native)):
        entry = _tree(code, intervals)
        entry = code.goto(entry)
        entry = code.emit(LD_W_ABS, _OFFSET_NUMBER)
        after = code.jump(JEQ_K, token, entry, after)
    code.emit(LD_W_ABS, _OFFSET_ARCH)
    program = code.program()
    if len(program) > LONGEST_PROGRAM:
        raise UsageError(
            f"the seccomp profile needs {len(program)} instructions: "
            f"the kernel takes {LONGEST_PROGRAM}"
        )
    return assemble(program)


def action_of(name: str, errno: int | None) -> int:
    """The value that a filter returns. Raises UsageError."""
    try:
        action = ACTIONS[name]
    except KeyError:
        raise UsageError(f"unknown seccomp action {name}") from None
    if action in (ERRNO, TRACE):
        data = _EPERM if errno is None else errno
        if not 0 <= data <= _LARGEST_ERRNO:
            raise UsageError(f"seccomp: errnoRet {data} is no error number")
        return action | data
    if errno is not None:
        raise UsageError(f"seccomp: errnoRet has no meaning with {name}")
    return action


# ---- what is decided ----


def _sections(seccomp: LinuxSeccomp, native: str) -> list[tuple[int, list[Interval]]]:
    """For each architecture token what is decided for which numbers."""
    default = action_of(seccomp["defaultAction"], seccomp.get("defaultErrnoRet"))
    listed = seccomp.get("architectures") or ()
    for name in listed:
        if not name.startswith("SCMP_ARCH_"):
            raise UsageError(f"unknown seccomp architecture {name}")
    arches = [native, *(name for name in _COMPATIBLE.get(native, ()) if name in listed)]
    by_token: dict[int, list[Interval]] = {}
    for arch in arches:
        token, column, bits = ARCHES[arch]
        decisions = _decisions(seccomp.get("syscalls") or (), column, bits, default)
        numbers = _with_enosys(decisions, column, default)
        if column == "x32":
            numbers = [(start + _X32_BIT, decision) for start, decision in numbers]
        by_token.setdefault(token, []).extend(numbers)
    return [
        (token, _merge(_close(token, intervals, default))) for token, intervals in by_token.items()
    ]


def _close(token: int, intervals: list[Interval], default: int) -> list[Interval]:
    """The same over all numbers: x32's where that is not listed, and negative ones."""
    if token == ARCHES["SCMP_ARCH_X32"][0] and all(start < _X32_BIT for start, _ in intervals):
        last = _NUMBERS_END - 1
        return [*intervals, (_X32_BIT, ((), KILL_PROCESS)), (last, ((), default))]
    return [*intervals, (_NEGATIVE, ((), default))]


def _decisions(
    rules: Sequence[LinuxSyscall], column: str, bits: int, default: int
) -> dict[int, Decision]:
    """The decision for every number that a rule names."""
    final: dict[int, int] = {}
    conditional: dict[int, list[tuple[Conditions, int]]] = {}
    named: dict[int, None] = {}
    for rule in rules:
        action = action_of(rule["action"], rule.get("errnoRet"))
        alternatives = [] if action == default else _alternatives(rule.get("args") or (), bits)
        for number, extra in _numbers(rule["names"], column):
            named[number] = None
            for conditions in alternatives:
                # Arguments in memory cannot be looked at, those beside them are others.
                if extra and conditions:
                    continue
                if both := extra + conditions:
                    conditional.setdefault(number, []).append((both, action))
                else:
                    final.setdefault(number, action)
    return {
        number: ((), final[number])
        if number in final
        else (tuple(conditional.get(number, ())), default)
        for number in named
    }


def _numbers(names: Iterable[str], column: str) -> Iterable[tuple[int, Conditions]]:
    """The numbers of these calls, and where one stands for several what tells them apart."""
    place = ARCHITECTURES.index(column)
    for name in names:
        number = NUMBERS.get(name, (None,) * len(ARCHITECTURES))[place]
        if number is not None:
            yield number, ()
        if column == "x86" and name in _MULTIPLEXED:
            parent, subcall = _MULTIPLEXED[name]
            multiplexer = NUMBERS[parent][place]
            assert multiplexer is not None
            # ipc(2) has a version in the upper half.
            mask = 0xFFFF if parent == "ipc" else 0xFFFFFFFF
            yield multiplexer, ((0, "SCMP_CMP_MASKED_EQ", mask, subcall, 32),)


def _alternatives(arguments: Sequence[LinuxSeccompArg], bits: int) -> list[Conditions]:
    """What has to hold: all of one of these."""
    conditions = tuple(_condition(argument, bits) for argument in arguments)
    if len({index for index, *_ in conditions}) < len(conditions):
        return [(condition,) for condition in conditions]
    return [conditions]


def _condition(argument: LinuxSeccompArg, bits: int) -> Condition:
    index, operator = argument["index"], argument["op"]
    if operator not in OPERATORS:
        raise UsageError(f"unknown seccomp operator {operator}")
    if not 0 <= index < 6:
        raise UsageError(f"seccomp: a system call has six arguments, there is no number {index}")
    word = (1 << bits) - 1
    number = argument.get("value", 0) & word
    # MASKED_EQ compares under the mask on both sides.
    return index, operator, number, argument.get("valueTwo", 0) & number, bits


def _with_enosys(decisions: Mapping[int, Decision], column: str, default: int) -> list[Interval]:
    """Intervals over the numbers of an architecture."""
    otherwise: Decision = ((), default)
    private = _PRIVATE.get(column, range(0))
    intervals: list[Interval] = [(0, otherwise)]
    for number in sorted(decisions):
        intervals += [(number, decisions[number]), (number + 1, otherwise)]
    newest = max((number for number in decisions if number not in private), default=None)
    # A tracer, as one that allows, has to decide for itself.
    if newest is not None and default & 0x7FFF0000 not in (ALLOW, LOG, TRACE):
        unknown: Decision = ((), ERRNO | _ENOSYS)
        intervals.append((newest + 1, unknown))
        if private:
            ours = [item for item in intervals if item[0] in private]
            intervals = [item for item in intervals if item[0] not in private]
            intervals += [(private.start, otherwise), *ours, (private.stop, unknown)]
    return intervals


def _merge(intervals: list[Interval]) -> list[Interval]:
    """Sorted, the later of two at one number alone, neighbours with one decision as one."""
    merged: list[Interval] = []
    for start, decision in sorted(dict(intervals).items()):
        if not merged or merged[-1][1] != decision:
            merged.append((start, decision))
    return merged


# ---- how it is written ----


def _tree(code: Code, intervals: list[Interval]) -> Label:
    """Code that finds the interval of the number in the accumulator."""
    if len(intervals) == 1:
        rules, last = intervals[0][1]
        return _chain(code, rules, last)
    middle = len(intervals) // 2
    above = _tree(code, intervals[middle:])
    below = _tree(code, intervals[:middle])
    return code.jump(JGE_K, intervals[middle][0], above, below)


def _chain(code: Code, rules: Sequence[tuple[Conditions, int]], last: int) -> Label:
    """Code that tries the rules in order."""
    following = code.ret(last)
    for conditions, action in reversed(rules):
        holds = code.ret(action)
        for condition in reversed(conditions):
            holds = _test(code, condition, holds, following)
        following = holds
    return following


def _test(code: Code, condition: Condition, holds: Label, fails: Label) -> Label:
    """Code that compares one argument, the upper word first.

    Of a 32-bit program's there is none to look at: what the registers hold above, when a
    64-bit program makes such a call, the kernel ignores.
    """
    index, operator, number, second, bits = condition
    low = _OFFSET_ARGUMENTS + 8 * index
    if operator == "SCMP_CMP_MASKED_EQ":
        return _test_masked(code, low, (number, second), holds, fails)
    if operator in _OPPOSITES:
        operator, holds, fails = _OPPOSITES[operator], fails, holds
    instruction = _INSTRUCTIONS[operator]
    upper, lower = number >> 32, number & 0xFFFFFFFF
    code.jump(instruction, lower, holds, fails)
    compared = code.emit(LD_W_ABS, low)
    if bits == 32:
        return compared
    compared = code.jump(JEQ_K, upper, compared, fails)
    if instruction != JEQ_K:
        code.jump(JGT_K, upper, holds, compared)
    return code.emit(LD_W_ABS, low + 4)


_OPPOSITES = {
    "SCMP_CMP_NE": "SCMP_CMP_EQ",
    "SCMP_CMP_LT": "SCMP_CMP_GE",
    "SCMP_CMP_LE": "SCMP_CMP_GT",
}
_INSTRUCTIONS = {"SCMP_CMP_EQ": JEQ_K, "SCMP_CMP_GE": JGE_K, "SCMP_CMP_GT": JGT_K}


def _test_masked(code: Code, low: int, pair: tuple[int, int], holds: Label, fails: Label) -> Label:
    mask, wanted = pair
    label = holds
    for offset, shift in ((low, 0), (low + 4, 32)):
        bits, expected = mask >> shift & 0xFFFFFFFF, wanted >> shift & 0xFFFFFFFF
        # A word of which nothing is asked need not be looked at.
        if bits or expected:
            code.jump(JEQ_K, expected, label, fails)
            code.emit(AND_K, bits)
            label = code.emit(LD_W_ABS, offset)
    return label
