"""Where the time of a call goes: parts that follow one another, and make up the whole."""

from __future__ import annotations

import pytest

from launcher.bench.cores import SAME, Placement
from launcher.bench.hop_runs import hops_of
from launcher.bench.hops import CHANNEL_HOPS, KERNEL_HOPS, Passage, attribute, by_channel, by_kernel
from launcher.bench.host import pick_core
from launcher.bench.paths import KERNEL, PATHS

CLIENT, SERVER = (0, 10, 90, 100), (40, 45, 50, 60)


def test_a_call_is_cut_without_a_gap() -> None:
    through = by_channel(CLIENT, SERVER)
    assert through == (10, 30, 5, 5, 10, 30, 10)
    assert len(through) == len(CHANNEL_HOPS)
    passed = by_kernel(CLIENT, SERVER, Passage(20, 22, 70), busy_ns=3)
    assert passed == (10, 10, 3, 2, 15, 5, 5, 10, 10, 3, 17, 10)
    assert len(passed) == len(KERNEL_HOPS)
    assert sum(through) == sum(passed) == CLIENT[-1] - CLIENT[0]


def test_means_are_of_calls_that_nothing_disturbed() -> None:
    usual, disturbed = (10,) * 7, (10_000,) * 7
    found = attribute(
        "p", SAME, CHANNEL_HOPS, [usual] * 95 + [disturbed] * 5, [80] * 95 + [9999] * 5
    )
    assert found.parts == dict.fromkeys(CHANNEL_HOPS, 10.0)
    assert (found.sum_ns, found.whole_ns) == (70, 80)
    assert not found.agrees
    assert found.difference == pytest.approx(-0.125)
    assert attribute("p", SAME, CHANNEL_HOPS, [usual], [72]).agrees


def test_what_a_note_costs_is_taken_out_where_it_was_made() -> None:
    found = attribute("p", SAME, CHANNEL_HOPS, [(10, 10, 10, 1, 10, 10, 10)], [60], clock_ns=2)
    assert list(found.parts.values()) == [8, 8, 8, 0, 8, 8, 10]


@pytest.mark.parametrize("path", [KERNEL, "channel_block"])
def test_every_hop_of_a_real_call_is_seen(path: str) -> None:
    core = pick_core(0)
    found = hops_of(PATHS[path], Placement(core, core, SAME), 64, blocks=1)
    names = KERNEL_HOPS if path == KERNEL else CHANNEL_HOPS
    assert tuple(found.parts) == names
    short = ("kernel: queue", "server: method")
    assert all(ns > 0 for name, ns in found.parts.items() if name not in short)
    assert found.whole_ns > 0
    told = found.as_json()
    assert sum(told["parts"].values()) == pytest.approx(told["sum"], abs=len(names))
