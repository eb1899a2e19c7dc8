"""An image is the machine that it was made of, in any pieces, or it is refused."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.vmm.image import BLOCK, HEAD, MAGIC, PAGE, SUM, Arriving, BadImage, Image, overhead

PAGES = 2 * BLOCK // PAGE + 3
SIZE = PAGES * PAGE


def memory_of(pages: dict[int, bytes]) -> bytearray:
    memory = bytearray(SIZE)
    for page, data in pages.items():
        memory[page * PAGE : page * PAGE + len(data)] = data
    return memory


def whole(made: Image, most: int = 1000) -> bytes:
    """All of it, by pieces of that size."""
    data, piece = b"", memoryview(bytearray(most))
    while length := made.fill(len(data), piece):
        data += piece[:length]
    assert len(data) == made.size
    return data


def arrived(data: bytes, most: int = 1000) -> Arriving:
    arriving = Arriving(memoryview(bytearray(len(data))))
    for at in range(0, len(data), most):
        arriving.take(at, memoryview(data)[at : at + most])
    return arriving


CONTENT = st.dictionaries(st.integers(0, PAGES - 1), st.binary(max_size=PAGE))


@given(CONTENT, CONTENT, st.binary(max_size=300), st.integers(1, 3 * BLOCK))
def test_it_comes_out_as_it_was_put_in(
    pages: dict[int, bytes], before: dict[int, bytes], state: bytes, most: int
) -> None:
    memory, other = memory_of(pages), memory_of(before)
    most = max(most, SIZE // 50)
    data = whole(Image(state, memoryview(memory)), most)
    used = sum(any(each) for each in pages.values())
    assert len(data) == overhead(SIZE) + len(state) + used * PAGE
    arriving = arrived(data, max(SIZE // 50, most // 3))
    assert arriving.state(SIZE) == state
    arriving.unfold(memoryview(other))
    assert other == memory


MEMORY = memory_of({2: b"two", 3: b"three", 17: b"%" * PAGE, PAGES - 1: b"last"})


@pytest.fixture(scope="module")
def sample() -> bytes:
    return whole(Image(b"state", memoryview(MEMORY)))


def test_any_part_of_it_can_be_had_at_any_time(sample: bytes) -> None:
    chance, image = random.Random(3), Image(b"state", memoryview(MEMORY))  # not summed up yet
    for at in [len(sample) - 1, 0, *(chance.randrange(len(sample) + 10) for _ in range(50))]:
        into = bytearray(b"-" * 3000)
        length = image.fill(at, memoryview(into))
        assert bytes(into) == sample[at : at + 3000].ljust(3000, b"-")
        assert length == len(sample[at : at + 3000])


def test_a_piece_that_comes_twice_changes_nothing(sample: bytes) -> None:
    arriving = Arriving(memoryview(bytearray(len(sample))))
    for at in range(0, len(sample), 1000):
        for begin in (at, max(0, at - 1500), at):
            arriving.take(begin, memoryview(sample)[begin : at + 1000])
    arriving.take(10, memoryview(b"something else"))
    assert arriving.state(SIZE) == b"state"


def test_whatever_is_cut_off_or_changed_is_refused(sample: bytes) -> None:
    for length in (*range(HEAD.size + SUM.size + 20), len(sample) - 1):
        with pytest.raises(BadImage):
            arrived(sample[:length]).state(SIZE)
    for at in [*range(HEAD.size), *range(HEAD.size, len(sample), 97), len(sample) - 1]:
        changed = bytearray(sample)
        changed[at] ^= 0x10
        with pytest.raises(BadImage):
            arrived(bytes(changed)).state(SIZE)
    with pytest.raises(BadImage, match="or more"):
        arrived(sample + b"x").state(SIZE)
    with pytest.raises(BadImage, match="bytes of memory, and this one"):
        arrived(sample).state(SIZE + PAGE)
    arriving = arrived(sample)
    for offset, why in ((len(sample) + 1, "a piece of 1 bytes at"), (len(sample), "it has more")):
        with pytest.raises(BadImage, match=why):
            arriving.take(offset, memoryview(b"x"))


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail(data: bytes) -> None:
    for each in (data, MAGIC + data, MAGIC + SIZE.to_bytes(8, "little") + data):
        with pytest.raises(BadImage):
            arrived(each).state(SIZE)
