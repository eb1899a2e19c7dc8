"""plic: the platform-level interrupt controller (RISC-V PLIC 1.0.0), with level-triggered sources.

Two contexts: machine mode of hart 0 and supervisor mode of hart 0. A source whose line is high
becomes pending; claimed, it is neither pending nor heard until it is completed; if its line is high
then, it is pending again. Pure.
"""

from __future__ import annotations

import struct

from servers.vmm.traps import Line

SOURCES = 64  # with source 0, which there is not
CONTEXTS = (Line.MEI, Line.SEI)
PRIORITY_BITS = 7  # as on QEMU's virt: priorities 0 to 7

PENDING, ENABLE, CONTEXT = 0x1000, 0x2000, 0x20_0000
ENABLE_STRIDE, CONTEXT_STRIDE = 0x80, 0x1000
THRESHOLD, CLAIM = 0, 4
LOW = 0xFFFF_FFFF

_STATE = struct.Struct(f"<{SOURCES}B3Q{len(CONTEXTS)}Q{len(CONTEXTS)}B")


class Plic:
    """The registers, all of 32 bits, and the levels of the lines."""

    def __init__(self) -> None:
        self.priority = [0] * SOURCES
        self.level = 0  # bits by source, as the next two
        self.pending = 0
        self.claimed = 0
        self.enabled = [0] * len(CONTEXTS)
        self.threshold = [0] * len(CONTEXTS)

    def set_level(self, source: int, high: bool) -> None:
        """What the device does with its line."""
        bit = 1 << source
        self.level = self.level | bit if high else self.level & ~bit
        if high:
            self.pending |= bit & ~self.claimed
        else:
            self.pending &= ~bit

    def lines(self) -> int:
        """The lines to the hart that are high."""
        if not self.pending:
            return 0
        return sum(line for at, line in enumerate(CONTEXTS) if self._best(at))

    def load(self, offset: int) -> int:
        if offset < PENDING:
            source = offset // 4
            return self.priority[source] if source < SOURCES else 0
        if offset < ENABLE:
            return self.pending >> 8 * (offset - PENDING) & LOW
        if offset < CONTEXT:
            context, at = divmod(offset - ENABLE, ENABLE_STRIDE)
            return self.enabled[context] >> 8 * at & LOW if context < len(CONTEXTS) else 0
        context, at = divmod(offset - CONTEXT, CONTEXT_STRIDE)
        if context >= len(CONTEXTS):
            return 0
        if at == CLAIM:
            return self._claim(context)
        return self.threshold[context] if at == THRESHOLD else 0

    def store(self, offset: int, value: int) -> None:
        if offset < PENDING:
            source = offset // 4
            if 0 < source < SOURCES:
                self.priority[source] = value & PRIORITY_BITS
        elif ENABLE <= offset < CONTEXT:
            context, at = divmod(offset - ENABLE, ENABLE_STRIDE)
            if context < len(CONTEXTS) and at < SOURCES // 8:
                kept = self.enabled[context] & ~(LOW << 8 * at)
                self.enabled[context] = (kept | (value & LOW) << 8 * at) & ~1
        elif offset >= CONTEXT:
            context, at = divmod(offset - CONTEXT, CONTEXT_STRIDE)
            if context < len(CONTEXTS) and at == THRESHOLD:
                self.threshold[context] = value & PRIORITY_BITS
            elif context < len(CONTEXTS) and at == CLAIM:
                self._complete(context, value)

    def save(self) -> bytes:
        bits = self.level, self.pending, self.claimed
        return _STATE.pack(*self.priority, *bits, *self.enabled, *self.threshold)

    def restore(self, state: bytes) -> None:
        """Raises struct.error for anything but what `save` gave."""
        values = list(_STATE.unpack(state))
        self.priority, values = values[:SOURCES], values[SOURCES:]
        self.level, self.pending, self.claimed = values[:3]
        self.enabled, self.threshold = values[3:5], values[5:7]

    def _best(self, context: int) -> int:
        """The source that this context would claim: the highest priority, then the lowest number;
        0 when there is none."""
        heard = self.pending & self.enabled[context]
        best, most = 0, self.threshold[context]
        while heard:
            source = (heard & -heard).bit_length() - 1
            heard &= heard - 1
            if self.priority[source] > most:
                best, most = source, self.priority[source]
        return best

    def _claim(self, context: int) -> int:
        source = self._best(context)
        if source:
            self.pending &= ~(1 << source)
            self.claimed |= 1 << source
        return source

    def _complete(self, context: int, source: int) -> None:
        """Of a source that the context may not complete, nothing happens (§9)."""
        if not source < SOURCES or not self.enabled[context] >> source & 1:
            return
        self.claimed &= ~(1 << source)
        self.pending |= self.level & 1 << source
