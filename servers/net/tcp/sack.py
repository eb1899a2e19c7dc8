"""sack: the scoreboard of what the peer holds beyond what it acknowledges (RFC 2018, RFC 6675).

Every range lies in una .. max; they are disjoint, in order, and at most MOST."""

from __future__ import annotations

from bisect import bisect_left

from servers.net.tcp.block import Block
from servers.net.tcp.segment import diff

MOST = 256  # one more is not noted: what it says will be sent again in vain
DUPLICATES = 3  # RFC 6675 §2: DupThresh


def note(c: Block, blocks: tuple[tuple[int, int], ...]) -> bool:
    """Take the blocks of a SACK option; whether they say anything new."""
    before = c.sacked_bytes
    for left, right in blocks:
        start = c.una + diff(left, c.iss1 + c.una)
        end = c.una + diff(right, c.iss1 + c.una)
        if c.una < start < end <= c.max:
            _add(c, start, end)
    return c.sacked_bytes > before


def _add(c: Block, start: int, end: int) -> None:
    ranges = c.sacked
    first = bisect_left(ranges, (start, 0))
    if first and ranges[first - 1][1] >= start:
        first -= 1
    last = first
    held = 0
    while last < len(ranges) and ranges[last][0] <= end:
        held += ranges[last][1] - ranges[last][0]
        last += 1
    if last > first:
        start = min(start, ranges[first][0])
        end = max(end, ranges[last - 1][1])
    elif len(ranges) >= MOST:
        return
    ranges[first:last] = [(start, end)]
    c.sacked_bytes += end - start - held


def forget(c: Block) -> None:
    """The peer may have thrown away what it has not acknowledged (RFC 2018 §8)."""
    c.sacked.clear()
    c.sacked_bytes = 0


def advance(c: Block) -> None:
    """`una` has moved on."""
    ranges = c.sacked
    while ranges and ranges[0][0] <= c.una:
        start, end = ranges[0]
        if end > c.una:
            ranges[0] = (c.una, end)
            c.sacked_bytes -= c.una - start
            return
        c.sacked_bytes -= end - start
        del ranges[0]


def lost_before(c: Block) -> int:
    """What is not SACKed before this position is lost: enough has arrived that was sent after it
    (RFC 6675 §4, IsLost)."""
    total = 0
    for number, (start, end) in enumerate(reversed(c.sacked), 1):
        total += end - start
        if number >= DUPLICATES or total > (DUPLICATES - 1) * c.mss:
            return start
    return c.una


def holes(c: Block, start: int, end: int) -> int:
    """Bytes of start .. end that are not SACKed."""
    total = end - start
    for left, right in c.sacked:
        if right > start and left < end:
            total -= min(right, end) - max(left, start)
    return total


def hole(c: Block, start: int, end: int) -> tuple[int, int]:
    """The first part of start .. end that is not SACKed; an empty one when all of it is."""
    for left, right in c.sacked:
        if right <= start:
            continue
        if left > start:
            return start, min(left, end)
        start = right
    return min(start, end), end
