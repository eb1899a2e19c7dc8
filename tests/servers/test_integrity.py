"""Checksums of sectors: what is wrong is seen in its place, and nothing else is."""

from __future__ import annotations

import random
from itertools import combinations
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.fs import integrity
from servers.fs.integrity import LINE, PAYLOAD, SealedDisk, seal, unseal, wrong_sectors
from tests.servers.disk import BadSector, Disk, garbled
from ukernel.abi.services import SECTOR, DeviceFailed

BITS = 8 * SECTOR
ZERO_IS_RIGHT = 0xF1F9A1D0  # the one sector whose checksum of zeros is zero
firsts = st.one_of(
    st.integers(0, 2**22).map(lambda line: line * LINE),
    st.integers(0, 2**32),
    st.sampled_from([2**32 - LINE, 2**32, 2**40 + 3]),
)
counts = st.sampled_from([1, 2, LINE - 1, LINE, LINE + 1, 3 * LINE])


def payloads(seed: int, count: int) -> bytes:
    return random.Random(seed).randbytes(count * PAYLOAD)


@given(first=firsts, count=counts, seed=st.integers(0, 99))
def test_what_was_sealed_is_right_and_comes_back(first: int, count: int, seed: int) -> None:
    for data in (payloads(seed, count), bytes(count * PAYLOAD), b"\xff" * count * PAYLOAD):
        sealed = seal(data, first)
        assert len(sealed) == count * SECTOR
        assert wrong_sectors(sealed, first) == 0
        assert unseal(sealed) == data


@given(line=st.integers(0, 2**26), seed=st.integers(0, 99))
def test_one_pass_tells_that_a_whole_line_is_right(line: int, seed: int) -> None:
    first = line * LINE
    assert crc32(seal(payloads(seed, LINE), first)) == integrity._line_crc(first)


@given(
    first=firsts,
    count=counts,
    seed=st.integers(0, 99),
    at=st.integers(0, BITS - 1),
    burst=st.integers(1, 2**32 - 1),
    choice=st.randoms(use_true_random=False),
)
def test_any_burst_in_one_sector_is_seen_there(
    first: int, count: int, seed: int, at: int, burst: int, choice: random.Random
) -> None:
    sealed, sector = bytearray(seal(payloads(seed, count), first)), choice.randrange(count)
    window = slice(sector * SECTOR, (sector + 1) * SECTOR)
    damage = burst << at & (1 << BITS) - 1 or 1 << at
    damaged = int.from_bytes(sealed[window], "little") ^ damage
    sealed[window] = damaged.to_bytes(SECTOR, "little")
    assert wrong_sectors(sealed, first) == 1 << sector


def test_every_single_bit_of_a_sector_is_seen() -> None:
    sealed = bytearray(seal(payloads(1, LINE), 5 * LINE))
    for bit in range(9 * BITS, 10 * BITS):
        sealed[bit // 8] ^= 1 << bit % 8
        assert wrong_sectors(sealed, 5 * LINE) == 1 << 9
        sealed[bit // 8] ^= 1 << bit % 8


@given(first=firsts, count=counts, seed=st.integers(0, 99), wrong=st.sets(st.integers(0, LINE)))
def test_each_of_several_wrong_sectors_is_seen(
    first: int, count: int, seed: int, wrong: set[int]
) -> None:
    chosen, dice = {n for n in wrong if n < count}, random.Random(seed)
    sealed = bytearray(seal(payloads(seed, count), first))
    for n in chosen:
        sealed[n * SECTOR : (n + 1) * SECTOR] = dice.choice([bytes(SECTOR), dice.randbytes(SECTOR)])
    assert wrong_sectors(sealed, first) == sum(1 << n for n in chosen)


def test_two_sectors_that_changed_places_are_seen() -> None:
    """Whatever is in them: a CRC tells the numbers apart, and the payloads play no part."""
    sealed = seal(payloads(2, LINE), LINE)
    parts = [sealed[at : at + SECTOR] for at in range(0, len(sealed), SECTOR)]
    for a, b in combinations(range(LINE), 2):
        parts[a], parts[b] = parts[b], parts[a]
        assert wrong_sectors(b"".join(parts), LINE) == 1 << a | 1 << b
        parts[a], parts[b] = parts[b], parts[a]


@given(lines=st.sets(st.integers(0, 2**25 - 1), min_size=2, max_size=2))
def test_a_line_from_elsewhere_is_wrong_from_end_to_end(lines: set[int]) -> None:
    here, there = lines
    assert wrong_sectors(seal(payloads(3, LINE), there * LINE), here * LINE) == (1 << LINE) - 1


@given(first=st.integers(0, ZERO_IS_RIGHT - LINE), count=counts)
def test_zeros_are_never_right(first: int, count: int) -> None:
    count = min(count, LINE)
    assert wrong_sectors(bytes(count * SECTOR), first) == (1 << count) - 1


def test_the_sector_where_zeros_are_right_is_far_away() -> None:
    """There is one, and one only, since a CRC maps what it begins with one to one."""
    assert crc32(bytes(PAYLOAD), ZERO_IS_RIGHT) == 0
    assert ZERO_IS_RIGHT * SECTOR > 2_000_000_000_000


def sealed_disk(sectors: int) -> tuple[Disk, SealedDisk, bytes]:
    disk, data = Disk(sectors), payloads(4, sectors)
    disk.durable[:] = seal(data, 0)
    return disk, SealedDisk(disk), data


@pytest.mark.parametrize("seed", range(20))
def test_a_wrong_read_is_healed_by_a_second(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    disk, sealed, data = sealed_disk(LINE)
    disk.lie(garbled(seed))
    assert sealed.read(0, LINE, (1 << LINE) - 1) == (data, 0)
    assert disk.operations == 2
    assert sealed.healed >= 1
    assert f"{sealed.healed} such sectors so far" in capsys.readouterr().err


def test_two_reads_that_are_wrong_in_different_places_make_a_right_one() -> None:
    disk, sealed, data = sealed_disk(LINE)
    right = bytes(disk.durable)
    wrong = iter([right[:SECTOR].ljust(len(right)), b"?" + right[1:]])
    disk.lie(lambda first, true: next(wrong), 2)
    assert sealed.read(0, LINE, 1) == (data, 0)
    assert sealed.healed == LINE - 1


def test_what_stays_wrong_fails_only_who_needs_it(capsys: pytest.CaptureFixture[str]) -> None:
    disk, sealed, data = sealed_disk(2 * LINE)
    disk.flip(LINE + 9, 5)
    found, wrong = sealed.read(LINE, LINE, ~(1 << 9))
    assert wrong == 1 << 9
    assert found[: 9 * PAYLOAD] == data[LINE * PAYLOAD :][: 9 * PAYLOAD]
    assert found[10 * PAYLOAD :] == data[(LINE + 10) * PAYLOAD :]
    with pytest.raises(DeviceFailed, match=f"sector {LINE + 9} holds other bytes.*: checksum"):
        sealed.read(LINE, LINE, 1 << 9)
    assert sealed.healed == 0
    assert capsys.readouterr().err == ""


def test_a_device_that_fails_the_second_read_says_so_itself() -> None:
    disk, sealed, _ = sealed_disk(LINE)
    disk.flip(0, 0)
    disk.fail_at(2, BadSector)
    with pytest.raises(BadSector):
        sealed.read(0, LINE, 1)


def test_a_short_read_is_a_failed_device(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, sealed, _ = sealed_disk(LINE)
    monkeypatch.setattr(disk, "read", lambda first, count: b"short")
    with pytest.raises(DeviceFailed, match="5 bytes read"):
        sealed.read(0, LINE, 0)
