"""cache: a disk's volatile write cache. A write is on the medium after the flush that follows it.

Held in the memory of the process, whose death is the power cut: it loses what was not flushed. A
full cache destages early, sector by sector, in an arbitrary but seeded order, so that a cut may
keep a later write and lose an earlier one, or tear a request, as real disks do. A sector is whole.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from hwsim.image import Image
from ukernel.abi.services import SECTOR

PAGE_SECTORS = 8
PAGE = PAGE_SECTORS * SECTOR
FULL = (1 << PAGE_SECTORS) - 1
DESTAGE_SHARE = 8  # a full cache makes room for an eighth of itself at once
MAX_EXTENT_PAGES = 256  # buffers of one system call
TORN = 0.1  # share of destaged pages of which only some sectors go


class Page:
    """4 KiB of the disk; bit i of `valid` says that sector i of it is newer than the medium."""

    __slots__ = ("data", "valid")

    def __init__(self) -> None:
        self.data = memoryview(bytearray(PAGE))
        self.valid = 0


class Piece(NamedTuple):
    """A run of sectors inside one page; `start` and `end` in bytes from the page's start."""

    page: int
    start: int
    end: int

    @property
    def mask(self) -> int:
        return _mask(self.start // SECTOR, self.end // SECTOR)


def _mask(first: int, end: int) -> int:
    return (1 << end) - (1 << first)


def _runs(valid: int) -> tuple[tuple[int, int], ...]:
    """The runs of set bits, as byte ranges of a page."""
    edges = [i for i in range(PAGE_SECTORS + 1) if (valid << 1 ^ valid) >> i & 1]
    return tuple((a * SECTOR, b * SECTOR) for a, b in zip(edges[::2], edges[1::2], strict=True))


RUNS = tuple(_runs(valid) for valid in range(FULL + 1))


def _part(valid: int, order: random.Random) -> int:
    """Now and then not all sectors of a page, so that requests can be torn."""
    part = valid & order.randrange(FULL + 1)
    return part if part and order.random() < TORN else valid


def pieces(offset: int, length: int) -> Iterator[Piece]:
    """The bytes from `offset`, whole sectors, cut at page borders."""
    end = offset + length
    while offset < end:
        page, start = divmod(offset, PAGE)
        stop = min(PAGE, start + end - offset)
        yield Piece(page, start, stop)
        offset += stop - start


class CachedDisk:
    """An image behind a write cache of at most `cache` bytes; 0 writes through.

    Offsets and lengths are bytes, whole sectors, inside the disk. Raises OSError when the medium
    does. `seed` orders what an overflow destages; without one, the oldest pages go first.
    """

    def __init__(self, image: Image, cache: int = 0, seed: int | None = None) -> None:
        self.image = image
        self.size = image.size
        self.read_only = image.read_only
        self._room = cache // PAGE
        self._pages: dict[int, Page] = {}  # by age
        self._order = None if seed is None else random.Random(seed)

    def read(self, offset: int, into: Sequence[memoryview]) -> None:
        """Fill `into`: first from the medium, then with what is newer in the cache."""
        self.image.read(offset, into)
        if self._pages:
            self._overlay(offset, into)

    def write(self, offset: int, data: Sequence[memoryview]) -> None:
        """Take `data` into the cache, or through it when it would fill half of the cache."""
        length = sum(map(len, data))
        touched = (offset + length - 1) // PAGE - offset // PAGE + 1
        if touched * 2 > self._room:
            self.image.write(offset, data)
            self._drop(offset, length)
            return
        whole = data[0] if len(data) == 1 else memoryview(b"".join(data))
        self._make_room(touched)
        taken = 0
        for piece in pieces(offset, length):
            size = piece.end - piece.start
            self._put(piece, whole[taken : taken + size])
            taken += size

    def flush(self) -> None:
        """Bring the whole cache to the medium. What could not be written stays cached."""
        self._destage((number, page.valid) for number, page in sorted(self._pages.items()))

    def discard(self, offset: int, length: int) -> None:
        """Forget these bytes where the host can; else they read as before (§5.2.6.2 allows it)."""
        if self.image.discard(offset, length):
            self._drop(offset, length)

    def _put(self, piece: Piece, data: memoryview) -> None:
        page = self._pages.get(piece.page)
        if page is None:
            page = self._pages[piece.page] = Page()
        page.data[piece.start : piece.end] = data
        page.valid |= piece.mask

    def _overlay(self, offset: int, into: Sequence[memoryview]) -> None:
        at = offset
        for view in into:
            self._overlay_one(at, view)
            at += len(view)

    def _overlay_one(self, offset: int, view: memoryview) -> None:
        """As `into` may be cut anywhere, so may `view`: at any byte of a sector."""
        end = offset + len(view)
        for number in range(offset // PAGE, -(-end // PAGE)):
            page = self._pages.get(number)
            if page is None:
                continue
            base = number * PAGE
            for start, stop in RUNS[page.valid]:
                low, high = max(offset, base + start), min(end, base + stop)
                if low < high:
                    view[low - offset : high - offset] = page.data[low - base : high - base]

    def _drop(self, offset: int, length: int) -> None:
        """The medium is newer here."""
        touched = range(offset // PAGE, -(-(offset + length) // PAGE))
        small = len(touched) < len(self._pages)
        for number in touched if small else [n for n in self._pages if n in touched]:
            if number not in self._pages:
                continue
            start = max(offset - number * PAGE, 0) // SECTOR
            end = min(offset + length - number * PAGE, PAGE) // SECTOR
            self._clean(number, _mask(start, end))

    def _clean(self, number: int, mask: int) -> None:
        page = self._pages[number]
        page.valid &= ~mask
        if not page.valid:
            del self._pages[number]

    def _make_room(self, pages: int) -> None:
        """Destage until `pages` more fit, which takes several rounds where parts of pages go."""
        while (excess := len(self._pages) + pages - self._room) > 0:
            self._destage(self._victims(max(excess, self._room // DESTAGE_SHARE)))

    def _victims(self, count: int) -> list[tuple[int, int]]:
        """Pages to destage, each with the sectors of it that go; by seed, a stretch of the disk."""
        count = min(count, len(self._pages))
        if self._order is None:
            return [(n, self._pages[n].valid) for n in sorted(islice(self._pages, count))]
        numbers = sorted(self._pages)
        at = self._order.randrange(len(numbers) - count + 1)
        chosen = numbers[at : at + count]
        return [(n, _part(self._pages[n].valid, self._order)) for n in chosen]

    def _destage(self, sectors: Iterable[tuple[int, int]]) -> None:
        for offset, extent in self._extents(list(sectors)):
            self.image.write(offset, [data for _, _, data in extent])
            for number, mask, _ in extent:
                self._clean(number, mask)

    def _extents(
        self, sectors: list[tuple[int, int]]
    ) -> Iterator[tuple[int, list[tuple[int, int, memoryview]]]]:
        """Runs of sectors that touch on the disk, each to be written by one system call."""
        extent: list[tuple[int, int, memoryview]] = []
        begin = end = -1
        for number, mask in sectors:
            data = self._pages[number].data
            for start, stop in RUNS[mask]:
                offset = number * PAGE + start
                if extent and (offset != end or len(extent) == MAX_EXTENT_PAGES):
                    yield begin, extent
                    extent = []
                if not extent:
                    begin = offset
                extent.append((number, _mask(start // SECTOR, stop // SECTOR), data[start:stop]))
                end = number * PAGE + stop
        if extent:
            yield begin, extent
