"""Classic BPF as seccomp(2) takes it: instructions, and code that is written back to front.

Every jump of a filter goes forward. Written from its end, a program's jump targets are
known when the jump is: a label is the distance of its instruction from the end.
"""

from __future__ import annotations

import struct

# linux/bpf_common.h
LD_W_ABS = 0x20
AND_K = 0x54
JA = 0x05
JEQ_K = 0x15
JGT_K = 0x25
JGE_K = 0x35
RET_K = 0x06

# linux/filter.h: BPF_MAXINSNS, and the eight bits of a conditional jump's distance.
LONGEST_PROGRAM = 4096
_FARTHEST = 255

Instruction = tuple[int, int, int, int]
Label = int


class Code:
    """Instructions from the last to the first."""

    def __init__(self) -> None:
        self._reversed: list[Instruction] = []
        self._returns: dict[int, Label] = {}

    def __len__(self) -> int:
        return len(self._reversed)

    def emit(self, code: int, k: int, jt: int = 0, jf: int = 0) -> Label:
        """Put an instruction in front of all others."""
        self._reversed.append((code, jt, jf, k))
        return len(self._reversed)

    def ret(self, action: int) -> Label:
        """An instruction that returns `action`, not too far away."""
        label = self._returns.get(action)
        if label is None or self._distance(label) > _FARTHEST:
            label = self._returns[action] = self.emit(RET_K, action)
        return label

    def jump(self, code: int, k: int, when_true: Label, when_false: Label) -> Label:
        """A conditional jump."""
        # A bridge for one of the two pushes the other one instruction further away.
        if self._distance(when_true) >= _FARTHEST:
            when_true = self._bridge(when_true)
        if self._distance(when_false) > _FARTHEST:
            when_false = self._bridge(when_false)
        return self.emit(code, k, self._distance(when_true), self._distance(when_false))

    def goto(self, label: Label) -> Label:
        """Code that goes on at `label`: nothing at all where it comes next."""
        return label if self._distance(label) == 0 else self._bridge(label)

    def program(self) -> list[Instruction]:
        """The instructions, first to last."""
        return self._reversed[::-1]

    def _distance(self, label: Label) -> int:
        return len(self._reversed) - label

    def _bridge(self, label: Label) -> Label:
        """A jump of any length, or the instruction itself where that is a return."""
        target = self._reversed[label - 1]
        if target[0] == RET_K:
            label = self._returns[target[3]] = self.emit(*_operands(target))
            return label
        return self.emit(JA, self._distance(label))


def _operands(instruction: Instruction) -> tuple[int, int]:
    return instruction[0], instruction[3]


def assemble(program: list[Instruction]) -> bytes:
    """The array of struct sock_filter."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
