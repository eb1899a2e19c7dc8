"""Frames on a stream: however they are cut they are the same; what is none ends it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.vmm.qemu.frames import MOST_BYTES, BadLength, Frames, framed


@given(st.lists(st.binary(max_size=90)), st.lists(st.integers(0, 400)))
def test_however_they_are_cut_they_are_the_same(sent: list[bytes], cuts: list[int]) -> None:
    data = b"".join(framed(len(frame)) + frame for frame in sent)
    frames, got = Frames(), []
    edges = [0, *sorted({cut for cut in cuts if cut < len(data)}), len(data)]
    for begin, end in pairwise(edges):
        frames.feed(data[begin:end])
        while (frame := frames.take()) is not None:
            got.append(frame)
    assert got == sent


@given(st.lists(st.binary(max_size=200), max_size=50))
def test_garbage_ends_it_or_waits_for_more(pieces: list[bytes]) -> None:
    frames, fed, taken = Frames(), 0, 0
    try:
        for piece in pieces:
            frames.feed(piece)
            fed += len(piece)
            while (frame := frames.take()) is not None:
                taken += 4 + len(frame)
    except BadLength as bad:
        assert "at most" in str(bad)  # noqa: PT017
    assert fed - taken == len(frames._came) <= MOST_BYTES + 4 + 200


def test_a_length_is_four_bytes_the_high_one_first() -> None:
    """As net/stream.c has it; one byte more than QEMU takes is too long."""
    frames = Frames()
    frames.feed(b"\0\0\0\3abc\0\1\x10\1")
    assert frames.take() == b"abc"
    with pytest.raises(BadLength, match="a frame of 69633 bytes"):
        frames.take()
