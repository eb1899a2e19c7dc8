"""SYN cookies: what they keep, how long they are good, and who cannot make one."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.net.tcp.cookies import (
    LARGEST_SCALE,
    LIFETIME_US,
    OPTION_BITS,
    PLAIN,
    SIZES,
    STEP_US,
    Cookies,
    Features,
    features,
    stamped,
)
from servers.net.tcp.isn import Isn
from servers.net.tcp.quad import Quad
from servers.net.tcp.segment import MASK

SECRET = bytes(range(32))
QUAD = Quad(0x0A000001, 80, 0x0A000002, 40_000)
NOW = 12_345 * STEP_US + 99
IRS = 0xFFFF_FFF0

words = st.integers(0, MASK)
scales = st.integers(-1, LARGEST_SCALE)


def cookies(secret: bytes = SECRET) -> Cookies:
    return Cookies(secret, Isn(secret))


@given(words, st.integers(0, 65_535), scales, st.booleans(), st.integers(1, 1 << 50))
def test_a_cookie_brings_back_what_it_was_made_of(
    irs: int, mss: int, scale: int, sack: bool, now: int
) -> None:
    bits = Features(scale, sack).bits()
    jar = cookies()
    found = jar.check(QUAD, irs, jar.issue(QUAD, irs, mss, bits, now), bits, now)
    assert found == max([SIZES[0], *(size for size in SIZES if size <= mss)])


@given(scales, st.booleans(), words)
def test_features_fit_into_the_low_bits_of_a_timestamp(scale: int, sack: bool, clock: int) -> None:
    value = stamped(clock, Features(scale, sack).bits())
    assert features(value) == Features(scale, sack)
    assert 0 <= (clock - value) & MASK <= OPTION_BITS


def test_a_scale_beyond_the_largest_is_the_largest() -> None:
    assert features(Features(200).bits()) == Features(LARGEST_SCALE)


def test_it_is_good_in_its_step_and_in_the_next() -> None:
    jar = cookies()
    cookie = jar.issue(QUAD, IRS, 1460, PLAIN, NOW)
    begin = NOW // STEP_US * STEP_US
    assert jar.check(QUAD, IRS, cookie, PLAIN, begin + LIFETIME_US - 1) == 1460
    assert jar.check(QUAD, IRS, cookie, PLAIN, begin + LIFETIME_US) == 0
    assert jar.check(QUAD, IRS, cookie, PLAIN, begin - 1) == 0, "from the time to come"
    assert not jar.recent(QUAD, cookie, begin + LIFETIME_US)


def test_the_secret_decides() -> None:
    cookie = cookies(bytes(32)).issue(QUAD, IRS, 1460, PLAIN, NOW)
    assert cookies().check(QUAD, IRS, cookie, PLAIN, NOW) == 0


def test_another_life_with_the_secret_takes_it() -> None:
    cookie = cookies().issue(QUAD, IRS, 1460, PLAIN, NOW)
    assert cookies().check(QUAD, IRS, cookie, PLAIN, NOW) == 1460


@pytest.mark.parametrize(
    ("quad", "irs", "bits"),
    [
        (QUAD._replace(remote=1), IRS, PLAIN),
        (QUAD._replace(remote_port=1), IRS, PLAIN),
        (QUAD._replace(local_port=1), IRS, PLAIN),
        (QUAD, IRS + 1, PLAIN),
        (QUAD, IRS, Features(7, True).bits()),
    ],
)
def test_it_is_good_for_nothing_else(quad: Quad, irs: int, bits: int) -> None:
    jar = cookies()
    assert jar.check(quad, irs, jar.issue(QUAD, IRS, 1460, PLAIN, NOW), bits, NOW) == 0


def test_the_largest_size_cannot_be_had_by_adding_to_a_cookie() -> None:
    """A peer may lie about its MSS, but only as it might have in its SYN."""
    jar = cookies()
    cookie = jar.issue(QUAD, IRS, 0, PLAIN, NOW)
    found = [jar.check(QUAD, IRS, cookie + step & MASK, PLAIN, NOW) for step in range(-9, 20)]
    assert [size for size in found if size] == list(SIZES)


def test_a_guess_does_not_pass() -> None:
    numbers = random.Random(1)
    jar = cookies()
    assert not any(jar.check(QUAD, IRS, numbers.getrandbits(32), PLAIN, NOW) for _ in range(20_000))


def test_cookies_of_a_quad_grow_from_step_to_step() -> None:
    jar = cookies()
    made = [jar.issue(QUAD, IRS, 1460, PLAIN, NOW + step * 2 * STEP_US) for step in range(50)]
    assert all(0 < (later - earlier) & MASK < 1 << 31 for earlier, later in pairwise(made))


def test_what_overtook_the_third_segment_is_known_by_its_number() -> None:
    jar = cookies()
    cookie = jar.issue(QUAD, IRS, 1460, PLAIN, NOW)
    assert jar.check(QUAD, (IRS + 1000) & MASK, cookie, PLAIN, NOW) == 0
    assert jar.recent(QUAD, cookie, NOW)
