"""Initial sequence numbers: they grow with the clock, and each quad has its own beginning."""

from __future__ import annotations

import pytest

from servers.net.tcp.isn import Isn
from servers.net.tcp.keyed import Keyed
from servers.net.tcp.quad import Quad
from servers.net.tcp.segment import MASK

SECRET = bytes(range(32))
QUAD = Quad(0x0A000001, 80, 0x0A000002, 40_000)
OTHERS = [
    QUAD._replace(local=0x0A000003),
    QUAD._replace(local_port=81),
    QUAD._replace(remote=0x0A000003),
    QUAD._replace(remote_port=40_001),
]


def test_the_numbers_of_a_quad_grow_by_one_in_four_microseconds() -> None:
    isn = Isn(SECRET)
    first = isn.generate(QUAD, 1_000_000)
    assert isn.generate(QUAD, 1_000_003) == first
    assert isn.generate(QUAD, 1_000_004) == (first + 1) & MASK
    assert isn.generate(QUAD, 3_000_000) == (first + 500_000) & MASK


def test_they_go_round_after_four_hours_and_three_quarters() -> None:
    isn = Isn(SECRET)
    assert isn.generate(QUAD, 4 << 32) == isn.generate(QUAD, 0)


@pytest.mark.parametrize("other", OTHERS)
def test_each_part_of_a_quad_counts(other: Quad) -> None:
    isn = Isn(SECRET)
    assert isn.generate(other, 5) != isn.generate(QUAD, 5)
    assert isn.timestamp_offset(other) != isn.timestamp_offset(QUAD)


def test_another_secret_makes_other_numbers() -> None:
    assert Isn(SECRET).generate(QUAD, 5) != Isn(bytes(32)).generate(QUAD, 5)


def test_another_life_with_the_secret_goes_on() -> None:
    assert Isn(SECRET).generate(QUAD, 5) == Isn(SECRET).generate(QUAD, 5)


def test_every_bit_of_a_beginning_is_as_often_set_as_not() -> None:
    isn = Isn(SECRET)
    values = [isn.offset(QUAD._replace(remote_port=port)) for port in range(4000)]
    for bit in range(32):
        assert 1800 < sum(value >> bit & 1 for value in values) < 2200


def test_purposes_do_not_share_their_numbers() -> None:
    assert Keyed(SECRET, b"one")(b"data") != Keyed(SECRET, b"two")(b"data")


@pytest.mark.parametrize("size", [0, 15, 33])
def test_a_secret_has_its_length(size: int) -> None:
    with pytest.raises(ValueError, match="16 to 32 bytes"):
        Isn(bytes(size))
