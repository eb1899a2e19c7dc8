"""atomics: whether there are atomic instructions (unprivileged ISA §8) in a piece of memory. Pure.

What is code and what is data nobody knows, so the answer may be yes when it is no.
"""

from __future__ import annotations

import re

AMO = 0x2F
OPERATIONS = {0, 1, 2, 3, 4, 8, 12, 16, 20, 24, 28}  # funct5: AMOs, LR and SC
SWEPT = 64 << 10  # bytes of a program that is read instruction by instruction
PAGE = 4096
ZEROS = bytes(PAGE)

_CANDIDATE = re.compile(rb"[\x2f\xaf][\x20-\x3f\xa0-\xbf]..", re.DOTALL)


def is_atomic(instruction: int) -> bool:
    """LR, SC or an AMO, of 4 or 8 bytes."""
    width = instruction >> 12 & 7
    return instruction & 0x7F == AMO and width in (2, 3) and instruction >> 27 in OPERATIONS


def found(memory: memoryview) -> bool:
    """Whether there may be one. A small program at the start of `memory` is followed from one
    instruction to the next, which keeps most chance hits away."""
    last = -1
    for page in range(0, len(memory), PAGE):
        if bytes(memory[page : page + PAGE]) == ZEROS:
            continue
        for match in _CANDIDATE.finditer(memory[page : page + PAGE + 2]):
            at = page + match.start()
            if not at & 1 and is_atomic(int.from_bytes(match[0], "little")):
                last = at
        if last >= SWEPT:
            return True
    return last >= 0 and _sweep(memory[: last + 4])


def _sweep(code: memoryview) -> bool:
    halves = code[: len(code) & ~1].cast("H")
    at = 0
    while at < len(halves) - 1:
        if halves[at] & 3 != 3:
            at += 1
            continue
        if is_atomic(halves[at] | halves[at + 1] << 16):
            return True
        at += 2
    return False
