"""integrity: what a read returns was written to that sector, or the read fails and names it.

A sector holds PAYLOAD bytes and their checksum, so that one never reaches the disk without the
other, whenever the power goes:

    0                                        508     512
    payload                                  CRC-32 of it, begun with the sector's number

Seen: any damage inside a sector as well as CRC-32 sees it (every burst of up to 32 bits, all else
but once in 2**32); with certainty, a sector that belongs elsewhere, since its number is another;
zeros, even for a payload of zeros (but for sector 0xF1F9A1D0, at 2 TB). Not seen: an earlier
version of the same sector, as when a disk confirms a write and forgets it; and intent.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from typing import Protocol
from zlib import crc32

from ukernel.abi.services import SECTOR, DeviceFailed

CHECKSUM = struct.Struct("<I")
PAYLOAD = SECTOR - CHECKSUM.size  # bytes
LINE = 128  # sectors; one device read brings 64 KiB, since a round trip costs more than the bytes
LONGEST_RUN = 512  # sectors in one device read or write: 256 KiB

RIGHT = crc32(bytes(CHECKSUM.size))  # CRC of what ends in its own CRC, however it was begun

Bytes = bytes | bytearray | memoryview

_SECTOR = struct.Struct(f"{SECTOR}s")
_UNSEALED = struct.Struct(f"{PAYLOAD}s{CHECKSUM.size}x")
_UNSEALED_LINE = struct.Struct(_UNSEALED.format * LINE)


@lru_cache(64)
def _payloads(count: int) -> struct.Struct:
    return struct.Struct(f"{PAYLOAD}s" * count)


@lru_cache(64)
def _sealed(count: int) -> struct.Struct:
    return struct.Struct("<" + f"{PAYLOAD}sI" * count)


class Sectors(Protocol):
    """A disk in sectors of SECTOR bytes, at most LONGEST_RUN of them at a time."""

    @property
    def capacity(self) -> int:
        """Sectors on the disk."""

    def read(self, first_sector: int, count: int) -> Bytes:
        """`count` sectors from `first_sector`; of a sector, what was written last."""

    def ahead(self, first_sector: int, count: int) -> None:
        """Say that they will probably be read soon."""

    def write(self, first_sector: int, data: Bytes) -> None:
        """Write whole sectors from `first_sector`. `data` is not looked at any more when this
        returns; a failure may come out of a later call.
        """

    def flush(self) -> None:
        """Make every write before this one survive a power cut; raises if one of them failed."""


def seal(payloads: Bytes, first: int) -> bytes:
    """Whole payloads as the sectors from `first` on."""
    sealed = bytearray(len(payloads) // PAYLOAD * SECTOR)
    seal_into(sealed, payloads, first)
    return bytes(sealed)


def seal_into(sectors: bytearray, payloads: Bytes, first: int) -> int:
    """The same, put at the start of memory that is there already; how many bytes that takes."""
    count = len(payloads) // PAYLOAD
    parts = _payloads(count).unpack(payloads)
    sums = map(crc32, parts, range(first, first + count))
    _sealed(count).pack_into(sectors, 0, *chain.from_iterable(zip(parts, sums, strict=True)))
    return count * SECTOR


def unseal(sectors: Bytes) -> bytes:
    """The payloads, unchecked."""
    if len(sectors) == _UNSEALED_LINE.size:  # twice as fast as the general way
        return b"".join(_UNSEALED_LINE.unpack(sectors))
    return b"".join(chain.from_iterable(_UNSEALED.iter_unpack(sectors)))


def wrong_sectors(sectors: Bytes, first: int) -> int:
    """Bit n: sector `first` + n is not as `seal` made it."""
    if len(sectors) == LINE * SECTOR and not first % LINE and crc32(sectors) == _line_crc(first):
        return 0
    found = enumerate(_SECTOR.iter_unpack(sectors))
    return sum(1 << n for n, (sector,) in found if crc32(sector, first + n) != RIGHT)


def _line_crc(first: int) -> int:
    """CRC of the line from `first`, whatever its payloads are, as long as each sector is right.

    A CRC is linear: from one right sector to the next it depends on their numbers only, and each
    bit of them has its share. So one pass over the line, which costs half of LINE short ones,
    tells whether to look for a wrong sector. One alone is always told, two that changed places and
    a whole line from elsewhere too (the polynomial is primitive); others cancel out once in 2**32.
    """
    crc = _LINE_0
    for bit, share in enumerate(_SHARES):
        if first >> bit & LINE:
            crc ^= share
    return crc


def _empty_line_crc(first: int) -> int:
    return crc32(seal(bytes(LINE * PAYLOAD), first))


_LINE_0 = _empty_line_crc(0)
_SHARES = [_empty_line_crc(LINE << bit) ^ _LINE_0 for bit in range(33 - LINE.bit_length())]


class SealedDisk:
    """A disk in sectors of PAYLOAD bytes. What is wrong is read once more: it may have been the
    way from the medium. `healed` counts sectors that were right the second time.
    """

    def __init__(self, device: Sectors) -> None:
        self._device = device
        self.capacity = device.capacity
        self.healed = 0
        self._sealed = bytearray(LONGEST_RUN * SECTOR)

    def read(self, first: int, count: int, needed: int) -> tuple[bytes, int]:
        """The payloads of `count` sectors from `first`, and a mask of those that are wrong.

        Bit n of a mask speaks of sector `first` + n. Raises DeviceFailed if one of `needed` is
        wrong; others may be damaged without harm.
        """
        sectors = self.raw(first, count)
        wrong = wrong_sectors(sectors, first)
        if wrong:
            sectors, wrong = self._read_again(first, count, sectors, wrong)
        if wrong & needed:
            raise damaged(first + next(_bits(wrong & needed)))
        return unseal(sectors), wrong

    def raw(self, first: int, count: int) -> Bytes:
        """What the disk says, unchecked but for its length."""
        sectors = self._device.read(first, count)
        if len(sectors) != count * SECTOR:
            raise DeviceFailed(f"sector {first}: {len(sectors)} bytes read, not {count * SECTOR}")
        return sectors

    def ahead(self, first: int, count: int) -> None:
        """Say that these sectors will probably be read soon."""
        self._device.ahead(first, count)

    def write(self, first: int, payloads: Bytes) -> None:
        """Write whole payloads from sector `first`."""
        rest = memoryview(payloads)
        while rest:
            size = seal_into(self._sealed, rest[: LONGEST_RUN * PAYLOAD], first)
            self._device.write(first, memoryview(self._sealed)[:size])
            rest, first = rest[LONGEST_RUN * PAYLOAD :], first + LONGEST_RUN

    def flush(self) -> None:
        """Make every write before this one survive a power cut."""
        self._device.flush()

    def _read_again(self, first: int, count: int, sectors: Bytes, wrong: int) -> tuple[bytes, int]:
        """The sectors with those from a second read that are right there only, and what is left."""
        second = self.raw(first, count)
        left = wrong & wrong_sectors(second, first)
        healed = set(_bits(wrong & ~left))
        if healed:
            self.healed += len(healed)
            print(
                f"sector {first + min(healed)} was read wrongly, and rightly the second time: "
                f"{self.healed} such sectors so far",
                file=sys.stderr,
            )
        sources = [second if n in healed else sectors for n in range(count)]
        parts = [source[n * SECTOR : (n + 1) * SECTOR] for n, source in enumerate(sources)]
        return b"".join(parts), left


def damaged(sector: int) -> DeviceFailed:
    return DeviceFailed(
        f"sector {sector} holds other bytes than were written: checksum; "
        "try again, or give the disk an intact copy of its image"
    )


def _bits(mask: int) -> Iterator[int]:
    return (n for n in range(mask.bit_length()) if mask >> n & 1)
