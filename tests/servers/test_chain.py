"""Chains: a file's blocks are found where littlefs put them, with few looks at the disk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.fs import mount
from servers.fs.chain import ADDRESS, Chain, NotAChain, pointers, position
from servers.fs.mount import BLOCK, LONG_READ
from servers.fs.volume import Volume
from tests.servers.disk import Disk

SMALL = 64  # bytes of a block
VOLUME = 1000  # blocks


class Stored:
    """A file of `count` blocks somewhere, as SPEC.md has it."""

    def __init__(self, count: int) -> None:
        self.addresses = [1 + 7 * n % (VOLUME - 1) for n in range(count)]
        self.looks: list[int] = []

    def read(self, block: int, length: int) -> memoryview:
        number = self.addresses.index(block)
        self.looks.append(number)
        earlier = [self.addresses[number - (1 << power)] for power in range(pointers(number))]
        return memoryview(b"".join(map(ADDRESS.pack, earlier)))[:length]


def size_of(blocks: int) -> int:
    """Bytes of a file that fills them all."""
    return sum(SMALL - ADDRESS.size * pointers(number) for number in range(blocks))


def test_every_byte_has_its_place() -> None:
    places = [(n, at) for n in range(40) for at in range(ADDRESS.size * pointers(n), SMALL)]
    assert [position(offset, SMALL) for offset in range(len(places))] == places


@given(data=st.data(), blocks=st.integers(1, 300))
def test_pieces_are_the_file(data: st.DataObject, blocks: int) -> None:
    stored, size = Stored(blocks), size_of(blocks)
    chain = Chain(stored.addresses[-1], size, SMALL, VOLUME, stored.read)
    for _ in range(3):
        offset = data.draw(st.integers(0, size - 1))
        length = data.draw(st.integers(1, size - offset))
        pieces = list(chain.pieces(offset, length))
        first, start = position(offset, SMALL)
        assert [p.block for p in pieces] == stored.addresses[first : first + len(pieces)]
        assert (pieces[0].start, sum(p.end - p.start for p in pieces)) == (start, length)
        assert all(p.end == SMALL for p in pieces[:-1])


def test_half_of_the_blocks_tell_where_all_are() -> None:
    stored = Stored(500)
    size = size_of(500)
    chain = Chain(stored.addresses[-1], size, SMALL, VOLUME, stored.read)
    for _ in range(2):
        assert len(list(chain.pieces(0, size))) == 500
    assert len(set(stored.looks)) == len(stored.looks) <= 251


@pytest.mark.parametrize("address", [0, VOLUME, 2**32 - 1])
def test_an_address_outside_is_not_followed(address: int) -> None:
    chain = Chain(3, size_of(2), SMALL, VOLUME, lambda *_: memoryview(ADDRESS.pack(address)))
    with pytest.raises(NotAChain, match=f"block 0 of the file at {address} of {VOLUME}"):
        list(chain.pieces(0, 1))
    with pytest.raises(NotAChain):
        Chain(address, 1, SMALL, VOLUME, lambda *_: memoryview(b""))


@pytest.mark.parametrize("how", ["rename", "remove"])
def test_a_new_file_of_the_same_name_is_another_file(how: str) -> None:
    volume = Volume.mount(Disk(8192), True)
    for name, content in (("/a", b"a"), ("/b", b"b")):
        volume.create(name, True)
        volume.write(name, 0, content * 4 * LONG_READ)
        assert volume.read(name, 0, LONG_READ) == content * LONG_READ
    if how == "remove":
        volume.remove("/a")
        volume.rename("/b", "/c")
        volume.rename("/c", "/a")
    else:
        volume.rename("/b", "/a")
    assert volume.read("/a", 0, LONG_READ) == b"b" * LONG_READ
    assert volume.read("/a", 0, 5 * LONG_READ) == b"b" * 4 * LONG_READ


def test_littlefs_and_the_chain_read_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole files, at every size around whole blocks; between the reads a file changes."""
    volume = Volume.mount(Disk(8192), True)
    for blocks in (3, 4, 5, 8, 9, 17, 32):
        for size in range(blocks * BLOCK - 40, blocks * BLOCK + 5, 9):
            volume.create("/f", True)
            content = bytes(range(251)) * (size // 251 + 1)
            volume.write("/f", 0, content[:size])
            assert volume.read("/f", 0, size) == content[:size]
            volume.write("/f", BLOCK, b"changed")
            changed = content[:BLOCK] + b"changed" + content[BLOCK + 7 : size]
            assert volume.read("/f", 1, size) == changed[1:]
            with monkeypatch.context() as patch:
                patch.setattr(mount, "LONG_READ", 2**31)
                assert volume.read("/f", 1, size) == changed[1:]
            assert size >= LONG_READ - 40
