"""uart: the part of a 16550 that a program needs to write and read a terminal. Pure.

Writing takes no time, so the transmitter is always empty. Input waits up to a bound.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

RBR_THR, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCR = range(8)
REGISTERS = 8
DLAB = 0x80  # of LCR: the first two registers are the divisor
WANTS_INPUT, WANTS_ROOM = 1, 2  # of IER
IIR_NONE, IIR_ROOM, IIR_INPUT = 1, 2, 4
LSR_INPUT, LSR_EMPTY = 0x01, 0x60
MSR_CONNECTED = 0xB0
INPUT_ROOM = 64 << 10

_STATE = struct.Struct("<6B?")


class Uart:
    """The registers. `sink` shows bytes; it must not raise."""

    def __init__(self, sink: Callable[[bytes], None]) -> None:
        self._sink = sink
        self._ier = self._lcr = self._mcr = self._scratch = 0
        self._divisor = [1, 0]
        self._room_untold = False  # that there is room again
        self._input = bytearray()

    def feed(self, data: bytes) -> int:
        """Somebody types: how many bytes were taken; the others find no room."""
        taken = data[: INPUT_ROOM - len(self._input)]
        self._input += taken
        return len(taken)

    def high(self) -> bool:
        """Whether it interrupts."""
        return self._why() != IIR_NONE

    def load(self, offset: int) -> int:
        divisor = self._lcr & DLAB
        match offset:
            case 0 if not divisor:
                return self._input.pop(0) if self._input else 0
            case 0 | 1 if divisor:
                return self._divisor[offset]
            case 1:
                return self._ier
            case 2:
                why = self._why()
                self._room_untold &= why != IIR_ROOM
                return why
            case 5:
                return LSR_EMPTY | (LSR_INPUT if self._input else 0)
            case 6:
                return MSR_CONNECTED
        return {3: self._lcr, 4: self._mcr, 7: self._scratch}.get(offset, 0)

    def store(self, offset: int, value: int) -> None:
        value &= 0xFF
        match offset:
            case 0 | 1 if self._lcr & DLAB:
                self._divisor[offset] = value
            case 0:
                self._room_untold = True
                self._sink(bytes((value,)))
            case 1:
                self._room_untold |= bool(value & WANTS_ROOM & ~self._ier)
                self._ier = value & 0x0F
            case 3:
                self._lcr = value
            case 4:
                self._mcr = value & 0x1F
            case 7:
                self._scratch = value

    def save(self) -> bytes:
        registers = self._ier, self._lcr, self._mcr, self._scratch, *self._divisor
        return _STATE.pack(*registers, self._room_untold) + self._input

    def restore(self, state: bytes) -> None:
        """Raises struct.error for anything but what `save` gave."""
        *registers, self._room_untold = _STATE.unpack(state[: _STATE.size])
        self._ier, self._lcr, self._mcr, self._scratch = registers[:4]
        self._divisor = registers[4:]
        self._input = bytearray(state[_STATE.size :])

    def _why(self) -> int:
        if self._ier & WANTS_INPUT and self._input:
            return IIR_INPUT
        if self._ier & WANTS_ROOM and self._room_untold:
            return IIR_ROOM
        return IIR_NONE
