"""An image is the machine that it was made of, in any pieces, or it is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.vmm import image
from servers.vmm.image import HEAD, PAGE, SIZES, BadImage, Image, overhead

PAGES = 19
SIZE = PAGES * PAGE


def memory_of(pages: dict[int, bytes]) -> bytearray:
    memory = bytearray(SIZE)
    for page, data in pages.items():
        memory[page * PAGE : page * PAGE + len(data)] = data
    return memory


def whole(made: Image, most: int = 1000) -> bytes:
    data = b""
    while piece := made.read(len(data), most):
        data += piece
    assert len(data) == made.size
    return data


CONTENT = st.dictionaries(st.integers(0, PAGES - 1), st.binary(max_size=PAGE))


@given(CONTENT, CONTENT, st.binary(max_size=300), st.integers(1, 3 * PAGE))
def test_it_comes_out_as_it_was_put_in(
    pages: dict[int, bytes], before: dict[int, bytes], state: bytes, most: int
) -> None:
    memory, other = memory_of(pages), memory_of(before)
    data = whole(Image(state, memoryview(memory)), max(most, SIZE // 50))
    used = sum(any(each) for each in pages.values())
    assert len(data) == overhead(SIZE) + len(state) + used * PAGE
    assert image.state_of(memoryview(data), SIZE) == state
    image.unfold(memoryview(data), memoryview(other))
    assert other == memory


@pytest.fixture(scope="module")
def sample() -> bytes:
    return whole(Image(b"state", memoryview(memory_of({2: b"two", 3: b"three", 18: b"last"}))))


def test_whatever_is_cut_off_or_changed_is_refused(sample: bytes) -> None:
    for length in (*range(HEAD.size + SIZES.size + 20), len(sample) - 1):
        with pytest.raises(BadImage):
            image.state_of(memoryview(sample[:length]), SIZE)
    for at in [*range(HEAD.size - 4), *range(HEAD.size, len(sample), 97), len(sample) - 1]:
        changed = bytearray(sample)
        changed[at] ^= 0x10
        with pytest.raises(BadImage):
            image.state_of(memoryview(changed), SIZE)
    with pytest.raises(BadImage, match="or more"):
        image.state_of(memoryview(sample + b"x"), SIZE)
    with pytest.raises(BadImage, match="bytes of memory, and this one"):
        image.state_of(memoryview(sample), SIZE + PAGE)


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail(data: bytes) -> None:
    for each in (data, image.MAGIC + data):
        with pytest.raises(BadImage):
            image.state_of(memoryview(each), SIZE)
