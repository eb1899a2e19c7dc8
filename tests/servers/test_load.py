"""load: its bytes say where they belong, its journal outlives it, its stopwatch is not misled."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from servers.load import content, stopwatch
from servers.load.journal import FILES, SIZE, Journal
from servers.load.stopwatch import Stopwatch


def test_no_sector_of_a_piece_is_in_another_place_too() -> None:
    pieces = [content.piece(number) for number in range(96)]
    sectors = [p[at : at + 512] for p in pieces for at in range(0, len(p), 512)]
    assert len(set(sectors)) == len(sectors)


def test_a_small_file_says_which_generation_it_is() -> None:
    good = content.small(3, 7, 4096)
    assert content.generation_of(3, good) == 7
    assert content.generation_of(4, good) == 0
    assert content.generation_of(3, good[:-1] + b"\0") == 0
    assert content.generation_of(3, good[:2048] + content.small(3, 8, 4096)[2048:]) == 0
    assert content.generation_of(3, b"") == 0


def test_what_was_promised_outlives_the_life_that_heard_it() -> None:
    memory = memoryview(bytearray(SIZE))
    first = Journal(memory)
    generation = first.begin(FILES - 1)
    first.keep(FILES - 1, generation)
    assert first.begin(FILES - 1) == 2
    second = Journal(memory)
    assert (second.begun(FILES - 1), second.kept(FILES - 1), second.writes()) == (2, 1, 2)


def test_a_stopwatch_counts_what_was_wrong() -> None:
    watch = Stopwatch(lambda: None)
    for right in (True, False, True):
        watch.time("read", lambda: None)
        watch.moved("read", 10)
        watch.check("read", right)
        watch.unit()
    whole, read = watch.rows("files")
    assert (whole.operation, whole.times, whole.moved, whole.wrong) == ("files", 3, 30, 1)
    assert (read.operation, read.times, read.wrong) == ("read", 3, 1)
    for row in (whole, read):
        assert 0 < row.p50_ns <= row.p99_ns <= row.total_ns


def test_a_job_is_told_by_its_median_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    """33 units of 10 in 16 stretches of 2, of which one has met 1000 more; one is left over."""
    at = [0, *(10 * number + 1000 * (number > 20) for number in range(1, 34))]
    clock = iter([0, *at])
    monkeypatch.setattr(stopwatch, "time", SimpleNamespace(monotonic_ns=lambda: next(clock)))
    watch = Stopwatch(lambda: None)
    for _ in range(33):
        watch.unit()
    (whole,) = watch.rows("files")
    assert (whole.times, whole.total_ns, whole.p50_ns, whole.p99_ns) == (33, 1330, 10, 510)
