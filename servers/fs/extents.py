"""extents: no sector is read before something was written to it, so zeros are never believed.

    line 0                       extent 0        extent 1        ...
    header, its copy, unused     EXTENT sectors  EXTENT sectors, or more of them on a large disk

A bit of the header says that every sector of an extent has been sealed. It is set once, before the
first write to the extent: seal all of it with zeros, flush, set the bit, flush. An extent without
the bit reads as zeros, and the disk is not asked. So a disk is formatted at once and its image
stays sparse, and yet a sector that once held something cannot be taken for one that never did.

The header is written twice by each write. A power cut may leave two versions: a bit in either
counts, for it was set after its extent was sealed. One damaged copy does no harm.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from servers.fs.integrity import LINE, PAYLOAD, Bytes, SealedDisk, damaged
from ukernel.abi.services import SECTOR

EXTENT = 512  # sectors; 256 KiB are sealed by one device write
TOGETHER = 4 * EXTENT  # sectors of a large file that are sealed at once
COPIES = 2
MAGIC = b"ukernel volume 2"
FORMER_MAGIC = b"littlefs"  # it began the disk when there were no checksums

_MAP_BYTES = PAYLOAD - len(MAGIC) - 8
_HEADER = struct.Struct(f"<{len(MAGIC)}sQ{_MAP_BYTES}s")  # MAGIC, sectors of the disk, bit map


class NotOurVolume(Exception):
    """The disk holds something else, or nothing yet; the text says what to do about it."""


class Extents:
    """A disk's sectors of PAYLOAD bytes behind the header. On a blank disk none is in use yet.

    Making one raises NotOurVolume if the disk is not blank and has no header for its size.
    """

    def __init__(self, disk: SealedDisk) -> None:
        self._disk = disk
        self.capacity = disk.capacity - LINE
        self._size = EXTENT * -(-self.capacity // (EXTENT * _MAP_BYTES * 8))
        self._used = 0
        found = list(self._headers())
        if not found:
            self._check_blank()
            return
        for used in found:
            self._used |= used
        if found != [self._used] * COPIES:
            self.save()

    def read(self, first: int, count: int, needed: int) -> tuple[bytes, int]:
        """As SealedDisk.read does, inside one line."""
        if not self._used >> first // self._size & 1:
            return bytes(count * PAYLOAD), 0
        return self._disk.read(LINE + first, count, needed)

    def ahead(self, first: int, count: int) -> None:
        """Say that these sectors will probably be read soon. Where nothing is, nothing is done."""
        numbers = range(first // self._size, (first + count - 1) // self._size + 1)
        if all(self._used >> number & 1 for number in numbers):
            self._disk.ahead(LINE + first, count)

    def write(self, first: int, payloads: Bytes) -> None:
        """Write whole payloads from sector `first`."""
        last = first + len(payloads) // PAYLOAD - 1
        for number in range(first // self._size, last // self._size + 1):
            if not self._used >> number & 1:
                self._begin(number)
        self._disk.write(LINE + first, payloads)

    def flush(self) -> None:
        """Make every write before this one survive a power cut."""
        self._disk.flush()

    def save(self) -> None:
        """Write the header: from now on the disk is not blank."""
        self._save(self._used)

    def _begin(self, number: int) -> None:
        """Seal an extent. Done again after a failure, when nothing can be in it yet.

        One that follows a used one is seldom the last: the next ones are sealed with it.
        """
        after = number + 1
        if number and self._used >> number - 1 & 1:
            while (after - number) * self._size < TOGETHER and not self._used >> after & 1:
                after += 1
        end = min(after * self._size, self.capacity)
        for first in range(number * self._size, end, EXTENT):
            self._disk.write(LINE + first, bytes(min(EXTENT, end - first) * PAYLOAD))
        self._disk.flush()
        self._save(self._used | (1 << -(-end // self._size)) - (1 << number))

    def _save(self, used: int) -> None:
        bits = used.to_bytes(_MAP_BYTES, "little")
        self._disk.write(0, _HEADER.pack(MAGIC, self._disk.capacity, bits) * COPIES)
        self._disk.flush()
        self._used = used

    def _headers(self) -> Iterator[int]:
        """The bit map of each copy that is as it was written."""
        payloads, wrong = self._disk.read(0, COPIES, 0)
        for n, (magic, sectors, bits) in enumerate(_HEADER.iter_unpack(payloads)):
            if wrong >> n & 1:
                continue
            if magic != MAGIC:
                raise not_ours(f"it begins with {magic!r}")
            if sectors != self._disk.capacity:
                raise not_ours(
                    f"it was made with {sectors * SECTOR} bytes, not {self._disk.capacity * SECTOR}"
                )
            yield int.from_bytes(bits, "little")

    def _check_blank(self) -> None:
        """There is no header; is there anything else? Line 1 is never empty when one was lost."""
        found = bytes(self._disk.raw(0, 2 * LINE))
        if not found.strip(b"\0"):
            return
        if MAGIC in found[: COPIES * SECTOR]:
            raise damaged(0)
        if FORMER_MAGIC in found[: LINE * SECTOR]:
            raise NotOurVolume(
                "the disk holds a volume of a former version, without checksums: get its files "
                "out with that version, then delete the image to start with an empty one"
            )
        raise not_ours("it does not begin as one")


def not_ours(why: str) -> NotOurVolume:
    return NotOurVolume(
        f"the disk is not blank and holds no volume of this size and kind ({why}): "
        "give the disk the image and size it had, or delete the image to start with an empty one"
    )
