"""heartbeat: who is hung is found, and nobody else: not the slow, the waiting, the starved."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.heartbeat import LATE_S, STARVED_PACE, Pulse, Vital, ailment, ping_due
from ukernel.abi.manifest import Heartbeat, Server

ROUND_S = 0.1
ALLOWED_S = 0.3  # of silence, by default


def server(
    *, memory: int | None = None, period_ms: float = 100, misses: int = 3, max_call_s: float = 0
) -> Server:
    watch = Heartbeat(period_ms=period_ms, misses=misses, max_call_s=max_call_s or None)
    return Server(run="x", memory=memory, heartbeat=watch)


@dataclass
class Watched:
    """A server whose vitals are ours to say, from round to round; it answers pings at once."""

    spec: Server = field(default_factory=server)
    pulse: Pulse = field(default_factory=Pulse)
    now_s: float = 1000.0
    vital: Vital = field(default_factory=lambda: Vital(0.0))
    silent: bool = False
    pings: list[float] = field(default_factory=list)

    def look(self, after_s: float = ROUND_S) -> str:
        """One round."""
        self.now_s += after_s
        if self.pings and not self.silent:
            self.vital = self.vital._replace(heard_s=self.now_s - after_s / 2)
        why = ailment(self.pulse, self.spec, self.vital, self.now_s)
        if not why and ping_due(self.pulse, self.spec, self.now_s):
            self.pings.append(self.now_s)
        return why

    def until_killed(self, rounds: int = 1000, after_s: float = ROUND_S) -> tuple[int, str]:
        """In which round it was killed, and why; (0, "") when it outlived all of them."""
        for number in range(1, rounds + 1):
            if why := self.look(after_s):
                return number, why
        return 0, ""

    def now(self, **vital: Any) -> None:
        self.vital = self.vital._replace(**vital)


# --- pings ---------------------------------------------------------------------------------------


def test_who_answers_lives() -> None:
    watched = Watched()
    assert watched.until_killed() == (0, "")
    assert len(watched.pings) > 400


def test_who_is_silent_is_killed() -> None:
    watched = Watched(silent=True)
    assert watched.look() == ""  # the ping
    assert watched.until_killed() == (3, "hung: silent for 300 ms after a ping")
    assert len(watched.pings) == 1


@pytest.mark.parametrize(("period_ms", "misses"), [(100, 1), (50, 3), (250, 4), (1000, 2)])
def test_silence_is_measured_in_periods(period_ms: float, misses: int) -> None:
    watched = Watched(server(period_ms=period_ms, misses=misses), silent=True)
    watched.look()
    rounds, why = watched.until_killed(after_s=0.101)
    assert rounds == -(-period_ms * misses // 101)
    assert why.startswith("hung: ")


def test_any_word_is_an_answer() -> None:
    watched = Watched(silent=True)
    for _ in range(100):
        assert watched.look() == ""
        assert watched.look() == ""
        watched.now(heard_s=watched.now_s + 0.01)


def test_a_word_from_before_the_ping_is_none() -> None:
    watched = Watched(silent=True)
    watched.look()
    watched.now(heard_s=watched.pings[-1] - 0.001)
    assert watched.until_killed()[0] == 3


def test_pings_keep_their_period() -> None:
    watched = Watched(server(period_ms=1000))
    watched.until_killed(100, after_s=0.101)
    assert len(watched.pings) == 10
    gaps = [b - a for a, b in zip(watched.pings, watched.pings[1:], strict=False)]
    assert min(gaps) >= 1.0


def test_period_zero_watches_for_no_hangs() -> None:
    watched = Watched(server(period_ms=0), silent=True)
    assert watched.until_killed() == (0, "")
    assert watched.pings == []


def test_an_answer_between_two_rounds_is_not_lost() -> None:
    """The round that excuses it saw it silent; it answered right behind its back."""
    watched = Watched(silent=True)
    watched.look()
    watched.look(after_s=10)
    watched.now(heard_s=watched.now_s - 0.001)
    assert watched.until_killed(3) == (0, "")
    assert len(watched.pings) == 2


# --- excuses -------------------------------------------------------------------------------------


def test_who_waits_for_another_is_not_to_blame() -> None:
    caller, callee = Watched(silent=True), Watched(silent=True)
    caller.look()
    callee.look()
    caller.now(waits_for="callee")
    assert callee.until_killed()[0] == 3
    assert caller.until_killed() == (0, "")


def test_only_the_deepest_is_killed() -> None:
    chain = {"app": "fs", "fs": "disk", "disk": ""}
    watched = {name: Watched(silent=True) for name in chain}
    for name, callee in chain.items():
        watched[name].now(waits_for=callee)
    killed = [name for _ in range(50) for name, one in watched.items() if one.look()]
    assert set(killed) == {"disk"}


def test_afterwards_it_has_the_whole_time() -> None:
    watched = Watched(silent=True)
    watched.now(waits_for="disk")
    watched.until_killed(100)
    watched.now(waits_for="")
    assert watched.until_killed()[0] == 3


def test_an_answered_ping_stays_answered_while_it_waits() -> None:
    """It says nothing after its call, and need not: it has answered before it."""
    watched = Watched()
    watched.look()
    watched.look()
    watched.silent = True
    watched.now(heard_s=watched.now_s + 0.01, waits_for="disk")
    watched.look()
    watched.now(waits_for="")
    pings = len(watched.pings)
    assert watched.look() == ""
    watched.silent = False
    assert watched.until_killed(10) == (0, "")
    assert len(watched.pings) > pings


def test_a_paused_machine_kills_nobody() -> None:
    """Nobody ran, so nobody answered; after it everybody needs a moment."""
    watched = Watched(server(max_call_s=5))
    watched.now(oldest_s=1000.0)
    watched.look()
    watched.silent = True
    for pause_s in (LATE_S + 0.01, 10, 3600):
        assert watched.look(pause_s) == ""
        assert watched.look() == ""
        watched.silent = False
        assert watched.until_killed(3) == (0, "")
        watched.silent = True


def test_a_late_round_does_not_wash_off_what_was_before() -> None:
    """Else a supervisor that is late now and then would never find a hang."""
    watched = Watched(silent=True)
    watched.look()
    found = [watched.look(after_s) for after_s in (0.1, 0.9, 0.1, 0.9)]
    assert found == [""] * 4
    assert watched.look().startswith("hung")


def test_the_starved_have_more_time() -> None:
    watched = Watched(silent=True)
    watched.look()
    watched.now(starved=True)
    rounds, _ = watched.until_killed()
    assert rounds == pytest.approx(3 / STARVED_PACE, abs=1)


# --- calls that take too long --------------------------------------------------------------------


def test_a_slow_call_is_no_hang() -> None:
    watched = Watched()
    watched.now(oldest_s=watched.now_s)
    assert watched.until_killed() == (0, "")


def test_a_call_may_have_a_limit() -> None:
    watched = Watched(server(max_call_s=2))
    watched.look()
    watched.now(oldest_s=watched.now_s + 0.05)
    rounds, why = watched.until_killed()
    assert rounds in (20, 21)
    assert re.fullmatch(r"has a call in hand for 2\.[01] s without progress", why)


def test_slow_but_progressing() -> None:
    watched = Watched(server(max_call_s=2))
    watched.now(oldest_s=watched.now_s)
    for _ in range(100):
        assert watched.until_killed(19) == (0, "")
        watched.now(progress_s=watched.now_s)
    assert watched.until_killed()[0] in (19, 20, 21)


def test_progress_says_nothing_of_silence() -> None:
    watched = Watched(silent=True)
    watched.look()
    watched.now(progress_s=watched.now_s + 0.1)
    assert watched.until_killed()[0] == 3


def test_progress_of_an_earlier_call_is_none_of_this_one() -> None:
    watched = Watched(server(max_call_s=2))
    watched.now(oldest_s=watched.now_s, progress_s=watched.now_s - 50)
    assert watched.until_killed()[0] in (20, 21)


def test_one_call_after_the_other_is_not_one_long_call() -> None:
    watched = Watched(server(max_call_s=2))
    for _ in range(20):
        watched.now(oldest_s=watched.now_s + 0.01)
        assert watched.until_killed(15) == (0, "")


def test_no_call_no_limit() -> None:
    watched = Watched(server(max_call_s=1))
    watched.now(progress_s=watched.now_s)
    assert watched.until_killed() == (0, "")


@pytest.mark.parametrize("excuse", [{"waits_for": "disk"}, {"starved": True}])
def test_a_call_is_not_charged_for_others(excuse: dict[str, Any]) -> None:
    watched = Watched(server(max_call_s=2))
    watched.now(oldest_s=watched.now_s, **excuse)
    assert watched.until_killed(100) == (0, "")
    watched.now(waits_for="", starved=False)
    assert watched.until_killed(9) == (0, "")
    assert watched.until_killed(13)[0] > 0


def test_a_limit_shorter_than_a_round() -> None:
    watched = Watched(server(max_call_s=0.05))
    watched.look()
    watched.now(oldest_s=watched.now_s + 0.06)
    assert watched.look() == ""
    assert watched.look().startswith("has a call in hand")


def test_a_limit_without_pings() -> None:
    watched = Watched(server(period_ms=0, max_call_s=1), silent=True)
    watched.now(oldest_s=watched.now_s)
    assert "without progress" in watched.until_killed()[1]


# --- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("excuse", [{}, {"waits_for": "disk"}, {"starved": True}], ids=str)
def test_memory_has_no_excuse(excuse: dict[str, Any]) -> None:
    watched = Watched(server(memory=1000))
    watched.now(used_bytes=1000, **excuse)
    assert watched.look(10) == ""
    watched.now(used_bytes=1001)
    assert watched.look(10) == "has 1001 bytes of memory, and may have 1000"


def test_without_a_limit_memory_is_free() -> None:
    watched = Watched()
    watched.now(used_bytes=1 << 50)
    assert watched.look() == ""


# --- whatever happens ----------------------------------------------------------------------------

SPECS = st.builds(server, period_ms=st.sampled_from([20, 100, 130, 1000]), misses=st.integers(1, 4))
ROUNDS = st.lists(
    st.tuples(st.floats(0.001, 2.0), st.floats(0.0, 1.0), st.booleans(), st.booleans()),
    min_size=1,
    max_size=60,
)


@given(SPECS, ROUNDS)
@settings(max_examples=200, deadline=None)
def test_who_answers_in_time_is_never_killed(
    spec: Server, rounds: list[tuple[float, float, bool, bool]]
) -> None:
    """Each ping is answered before its time is over, be it at the last moment; the rounds come
    when they like."""
    allowed_s = spec.heartbeat.period_ms * spec.heartbeat.misses / 1000
    pulse, now_s, heard_s, answer_s = Pulse(), 1000.0, 0.0, float("inf")
    for after_s, share, starved, waiting in rounds:
        now_s += after_s
        if now_s >= answer_s:
            heard_s = answer_s
        vital = Vital(heard_s, waits_for="x" if waiting else "", starved=starved)
        assert ailment(pulse, spec, vital, now_s) == ""
        if ping_due(pulse, spec, now_s):
            answer_s = now_s + share * 0.999 * allowed_s


@given(SPECS, ROUNDS, st.floats(0.001, LATE_S))
@settings(max_examples=200, deadline=None)
def test_who_is_silent_is_killed_after_enough_good_rounds(
    spec: Server, rounds: list[tuple[float, float, bool, bool]], good_s: float
) -> None:
    """Whatever was before, and however many rounds in between say nothing."""
    period_s, misses = spec.heartbeat.period_ms / 1000, spec.heartbeat.misses
    pulse, now_s, good, why = Pulse(), 1000.0, 0, ""
    enough = period_s * (misses + 1) / good_s + 3
    odd = iter(rounds)
    while not why:
        after_s, _, starved, waiting = next(odd, (good_s, 0.0, False, False))
        good += after_s == good_s and not starved and not waiting
        assert good <= enough
        now_s += after_s
        vital = Vital(999.0, waits_for="x" if waiting else "", starved=starved)
        why = ailment(pulse, spec, vital, now_s)
        ping_due(pulse, spec, now_s)
    assert why.startswith("hung")


@given(ROUNDS, st.floats(0.05, 3.0))
@settings(max_examples=200, deadline=None)
def test_a_call_with_progress_in_time_is_never_killed(
    rounds: list[tuple[float, float, bool, bool]], limit_s: float
) -> None:
    spec, pulse, now_s = server(period_ms=0, max_call_s=limit_s), Pulse(), 1000.0
    progress_s = now_s
    for after_s, share, starved, waiting in rounds:
        now_s += after_s
        while progress_s + limit_s < now_s:
            progress_s += (0.1 + 0.9 * share) * limit_s
        vital = Vital(now_s, progress_s, 1000.0, "x" if waiting else "", starved)
        assert ailment(pulse, spec, vital, now_s) == ""


def test_who_spins_while_it_says_that_it_waits_is_hung() -> None:
    """Its word stands in its page for as long as it spins; and such waits answer pings."""
    watched = Watched(silent=True)
    watched.now(says_it_waits_for="disk")
    assert watched.look() == ""  # the ping
    assert watched.until_killed() == (3, "hung: silent for 300 ms after a ping")


def test_who_says_that_it_waits_is_not_to_blame_for_a_long_call() -> None:
    watched = Watched(server(max_call_s=1))
    watched.now(oldest_s=watched.now_s, says_it_waits_for="disk")
    assert watched.until_killed(100) == (0, "")
    watched.now(says_it_waits_for="")
    assert watched.until_killed()[1].startswith("has a call in hand for ")
