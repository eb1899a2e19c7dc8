"""TIME-WAIT: what is answered, what begins anew, who makes room, and what another life gets."""

from __future__ import annotations

import pytest

from servers.net.tcp.block import Residue
from servers.net.tcp.quad import Quad
from servers.net.tcp.segment import ACK, FIN, RST, SYN, Options, Segment
from servers.net.tcp.timewait import (
    RECORD_BYTES,
    TICKED_US,
    Past,
    TimeWait,
    Verdict,
    judge,
    reusable,
    unpack,
)

WAIT = 60_000_000
QUAD = Quad(0x0A000001, 80, 0x0A000002, 40_000)
SEEN = 0xFFFF_FFFE  # the next sequence number of the peer, about to go round
STAMP = 1000


def past(number: int = 0, timestamps: bool = True) -> Past:
    quad = QUAD._replace(remote_port=40_000 + number)
    return Past(quad, Residue(77, SEEN, 512, timestamps, STAMP, 5))


def segment(flags: int, seq: int, stamp: int | None = None, payload: bytes = b"") -> Segment:
    options = Options(timestamp=None if stamp is None else (stamp, 0))
    return Segment(40_000, 80, seq, 77, flags, 100, options, memoryview(payload))


@pytest.mark.parametrize(
    ("arrived", "verdict"),
    [
        (segment(ACK | FIN, SEEN - 1, STAMP), Verdict.AGAIN),
        (segment(ACK, SEEN - 9, STAMP, b"old data"), Verdict.AGAIN),
        (segment(ACK, SEEN + 9, STAMP), Verdict.AGAIN),
        (segment(ACK, SEEN, STAMP), Verdict.OLD),
        (segment(RST, SEEN, STAMP), Verdict.OLD),
        (segment(RST | ACK, SEEN), Verdict.OLD),
        (segment(RST | SYN, SEEN + 1), Verdict.OLD),
    ],
)
def test_what_a_segment_means(arrived: Segment, verdict: Verdict) -> None:
    assert judge(past(), arrived) is verdict


@pytest.mark.parametrize(
    ("timestamps", "seq", "stamp", "new"),
    [
        (True, 5, STAMP + 1, True),
        (True, SEEN - 5, STAMP + 1, True),  # the later timestamp is enough
        (True, 5, STAMP - 1, False),  # an earlier one too
        (True, 5, STAMP, True),  # the same one: the numbers decide
        (True, SEEN - 5, STAMP, False),
        (True, 5, None, True),
        (True, SEEN - 5, None, False),
        (False, SEEN - 5, STAMP, True),  # there were none, and now there are
        (False, 5, None, True),
        (False, SEEN, None, False),
    ],
)
def test_which_syn_begins_a_new_connection(
    timestamps: bool, seq: int, stamp: int | None, new: bool
) -> None:
    verdict = judge(past(timestamps=timestamps), segment(SYN, seq, stamp))
    assert verdict is (Verdict.NEW if new else Verdict.AGAIN)


def test_it_lasts_as_long_as_it_must() -> None:
    waiting = TimeWait(WAIT)
    waiting.add(past(), 1000)
    assert waiting.deadline == 1000 + WAIT
    waiting.tick(999 + WAIT)
    assert waiting.get(QUAD) is not None
    waiting.tick(1000 + WAIT)
    assert waiting.get(QUAD) is None
    assert waiting.deadline == 0


def test_who_must_wait_once_more_comes_last() -> None:
    waiting = TimeWait(WAIT)
    waiting.add(past(0), 1000)
    waiting.add(past(1), 2000)
    waiting.add(past(0), 3000)
    assert waiting.deadline == 2000 + WAIT
    assert [each.quad.remote_port for each in waiting] == [40_001, 40_000]


def test_the_oldest_makes_room() -> None:
    waiting = TimeWait(WAIT, most=3)
    for number in range(10):
        waiting.add(past(number), number)
    assert [each.quad.remote_port for each in waiting] == [40_007, 40_008, 40_009]
    assert waiting.forgotten == 7
    assert set(waiting.changed) == {0, 1, 2}


def test_a_record_is_whole_or_nothing() -> None:
    record = past()._replace(until=WAIT).pack()
    assert len(record) == RECORD_BYTES
    assert unpack(memoryview(record)) == past()._replace(until=WAIT)
    for at in range(len(record)):
        torn = bytearray(record)
        torn[at] ^= 0x40
        assert unpack(torn) is None
    assert unpack(record[:-1]) is None


def test_another_life_gets_those_that_are_not_over() -> None:
    waiting = TimeWait(WAIT)
    for number in range(5):
        waiting.add(past(number), number * 1000)
    records = {number: unpack(data) for number, data in waiting.changed.items()}
    found = [(number, each) for number, each in records.items() if each]
    later = TimeWait(WAIT)
    later.restore(iter(found), 2000 + WAIT)
    assert [each.quad.remote_port for each in later] == [40_003, 40_004]
    assert later.deadline == 3000 + WAIT
    later.add(past(9), WAIT)
    assert set(later.changed).isdisjoint({3, 4}), "their records are still good"


def test_a_restored_number_comes_once_and_is_one() -> None:
    waiting = TimeWait(WAIT, most=2)
    stored = [(0, past(0)), (0, past(1)), (9, past(2)), (1, past(0))]
    waiting.restore(iter((number, each._replace(until=9)) for number, each in stored), 1)
    assert len(waiting) == 1
    waiting.add(past(7), 2)
    assert len(waiting) == 2


def test_we_may_begin_again_when_the_peer_will_see_it_by_the_clock() -> None:
    waiting = TimeWait(WAIT)
    kept = waiting.add(past(), 1000)
    assert not reusable(kept, WAIT, 1000 + TICKED_US)
    assert reusable(kept, WAIT, 1001 + TICKED_US)
    assert not reusable(waiting.add(past(timestamps=False), 1000), WAIT, 1 << 40)
