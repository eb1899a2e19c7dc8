"""Whatever comes raises nothing, and fills nothing without a bound."""

from __future__ import annotations

import pytest

from tests.servers.net import fuzz


@pytest.mark.parametrize("seed", range(4))
def test_5000_frames_of_all_kinds(seed: int) -> None:
    fuzzer = fuzz.run(5000, seed)
    counts = fuzzer.host.counts
    assert fuzzer.answers > 500
    assert fuzzer.given > 50
    assert min(counts.malformed, counts.not_ours, counts.martian, counts.unwanted) > 10
    assert fuzzer.host.reassembly.dropped
