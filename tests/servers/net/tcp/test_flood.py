"""A flood of SYNs, and anything else: connections go on, and memory stays bounded."""

from __future__ import annotations

from servers.net.tcp.limits import Limits
from tests.servers.net.tcp.flood import ROUND, flood
from tests.servers.net.tcp.fuzz_table import Fuzz

COUNT = 200_000


def test_a_flood_costs_nobody_his_connection_and_us_no_memory() -> None:
    outcome = flood(COUNT)
    rounds = COUNT // ROUND
    assert outcome.answered >= COUNT
    assert outcome.carried == rounds * 16
    assert outcome.by_cookie == rounds
    assert outcome.most_half_open == Limits().half_open
    assert outcome.blocks < 20_000


def test_nothing_that_comes_is_too_much_for_a_table() -> None:
    for seed in range(4):
        Fuzz(seed).run(5000)
