"""cookies: what a SYN said, kept by the peer instead of by us (RFC 4987 §3.6). Pure.

A cookie is an initial sequence number by RFC 6528 whose clock goes in steps of 67 s; its low 24
bits, which that leaves, hold a code of everything the third segment of the handshake must prove,
with the peer's MSS added. As the high bits are hidden by F as well, one in 2**28 segments that
were made up is taken for a third one.

    cookie = F(quad) + (M & 0xFF000000) + ((code(quad, irs, bits, step) + index of MSS) & 0xFFFFFF)

What else the SYN offered does not fit. It goes into the low bits of the timestamp that the peer
echoes, as in Linux; without timestamps there is no window scaling and no SACK.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from typing import NamedTuple

from servers.net.tcp.isn import TICK_US, Isn
from servers.net.tcp.keyed import Keyed
from servers.net.tcp.quad import Quad
from servers.net.tcp.segment import MASK

STEP_US = TICK_US << 24  # 67 s
STEPS = 2  # a cookie is good in the step it was made in and in the next one
LIFETIME_US = STEPS * STEP_US  # nobody has a good cookie that is older

# A peer gets the largest of these that it can take: the least there may be, RFC 9293's default,
# IPv6's least, PPPoE and tunnels, Ethernet, jumbo frames, the longest packet.
SIZES = (64, 536, 1220, 1360, 1440, 1460, 8960, 65_495)

_LOW = (1 << 24) - 1
_LAYOUT = struct.Struct("<12sIBB")

SCALE_BITS = 0x0F
NO_SCALE = 0x0F
SACK_BIT = 0x10
OPTION_BITS = 0x1F
LARGEST_SCALE = 14  # RFC 7323 §2.3


class Features(NamedTuple):
    """What a SYN offered besides its MSS; a scale of -1 is none."""

    scale: int = -1
    sack: bool = False

    def bits(self) -> int:
        """Five bits."""
        scale = NO_SCALE if self.scale < 0 else min(self.scale, LARGEST_SCALE)
        return scale | (SACK_BIT if self.sack else 0)


PLAIN = Features().bits()


def features(bits: int) -> Features:
    """What `Features.bits` put together, in the low bits of `bits`."""
    scale = bits & SCALE_BITS
    return Features(-1 if scale == NO_SCALE else scale, bool(bits & SACK_BIT))


def stamped(clock: int, bits: int) -> int:
    """The latest timestamp not after `clock` whose low bits are `bits`."""
    value = (clock & ~OPTION_BITS) | bits
    return (value if value <= clock else value - OPTION_BITS - 1) & MASK


class Cookies:
    """The cookies of a host."""

    def __init__(self, secret: bytes, isn: Isn) -> None:
        self._isn = isn
        self._code = Keyed(secret, b"cookie")

    def issue(self, quad: Quad, irs: int, mss: int, bits: int, now: int) -> int:
        """The sequence number to answer a SYN with, which had `irs`, `mss` and these features."""
        step = now // STEP_US
        index = max(0, bisect_right(SIZES, mss) - 1)
        low = (self._hash(quad, irs, bits, step) + index) & _LOW
        return (self._isn.offset(quad) + (step << 24) + low) & MASK

    def check(self, quad: Quad, irs: int, cookie: int, bits: int, now: int) -> int:
        """The MSS of the SYN that got this cookie; 0 when none did, or too long ago."""
        if not self.recent(quad, cookie, now):
            return 0
        shown = (cookie - self._isn.offset(quad)) & MASK
        step = now // STEP_US - self._age(shown, now)
        index = (shown - self._hash(quad, irs, bits, step)) & _LOW
        return SIZES[index] if index < len(SIZES) else 0

    def recent(self, quad: Quad, cookie: int, now: int) -> bool:
        """It may be a cookie of late, for all that its high bits tell. A segment that is no third
        one and yet has such a number probably overtook it."""
        return self._age((cookie - self._isn.offset(quad)) & MASK, now) < STEPS

    @staticmethod
    def _age(shown: int, now: int) -> int:
        return (now // STEP_US - (shown >> 24)) & 0xFF

    def _hash(self, quad: Quad, irs: int, bits: int, step: int) -> int:
        return self._code(_LAYOUT.pack(quad.pack(), irs, bits, step & 0xFF))
