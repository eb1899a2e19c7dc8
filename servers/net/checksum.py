"""checksum: the internet checksum (RFC 1071): sums of 16-bit words with end-around carry. Pure.

The carry goes back in at the end because 2**16 = 1 modulo 0xFFFF, so the sum of all words is the
whole text as one number modulo 0xFFFF; and Python reads a number of any length at once. Only
where that is 0 do the two differ: the sum of anything but zeros is 0xFFFF, never 0.

Sums of pieces may simply be added and folded at the end, as long as only the last piece has an
odd length.
"""

from __future__ import annotations

from servers.net.ring import Bytes

_PIECE = 4096  # a division takes time for each digit: of long texts, pieces are added first


def ones(data: Bytes) -> int:
    """The sum of all 16-bit big-endian words, folded to 16 bits; an odd byte at the end counts as
    followed by 0 (RFC 1071 §2)."""
    length = len(data)
    if length > _PIECE:
        return _ones_long(data, length)
    total = int.from_bytes(data, "big")
    if length & 1:
        total <<= 8
    return total and (total % 0xFFFF or 0xFFFF)


def _ones_long(data: Bytes, length: int) -> int:
    view = memoryview(data)
    whole = length - length % _PIECE
    total = ones(view[whole:])
    for at in range(0, whole, _PIECE):
        total += int.from_bytes(view[at : at + _PIECE], "big")
    return total and (total % 0xFFFF or 0xFFFF)


def fold(total: int) -> int:
    """A sum of sums, to 16 bits."""
    return total and (total % 0xFFFF or 0xFFFF)


def finish(total: int) -> int:
    """What stands in the checksum field for a sum: its complement."""
    return 0xFFFF - (total and (total % 0xFFFF or 0xFFFF))


def pseudo(source: int, destination: int, protocol: int, length: int) -> int:
    """The folded sum of the header that TCP and UDP pretend to have before theirs (RFC 9293 §3.1,
    RFC 768); `length` is that of their header and payload. A card that completes checksums
    expects this in the field."""
    return fold(source + destination + protocol + length)


def verify(data: Bytes, total: int = 0) -> bool:
    """Whether `data`, whose checksum is in it, adds up with `total`, the sum of a pseudo header."""
    return fold(ones(data) + total) == 0xFFFF


def replace(checksum: int, old: int, new: int) -> int:
    """The checksum after a 16-bit word under it has become `new` (RFC 1624 §3)."""
    return finish(0xFFFF - checksum + 0xFFFF - old + new)
