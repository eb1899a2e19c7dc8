"""timer: the register map of the timer device. Not virtio: one page of 32-bit registers, no DMA.

The clock counts nanoseconds in 64 bits. Reading NOW_LO latches the upper half, which NOW_HI then
shows: a pair of reads in that order never mixes two instants. When armed, the device raises its
line once, at the first moment at which the clock shows COMPARE or later, and disarms itself.
"""

from __future__ import annotations

from enum import IntEnum

TIMER_MAGIC = 0x726D6974  # "timr"


class TimerReg(IntEnum):
    """Offsets of the registers."""

    MAGIC = 0x00  # TIMER_MAGIC
    NOW_LO = 0x08  # reading it latches NOW_HI
    NOW_HI = 0x0C
    COMPARE_LO = 0x10
    COMPARE_HI = 0x14
    CONTROL = 0x18  # TIMER_ARM or TIMER_DISARM
    STATUS = 0x1C  # TIMER_FIRED; writing the bit clears it


TIMER_DISARM = 0
TIMER_ARM = 1
TIMER_FIRED = 1
