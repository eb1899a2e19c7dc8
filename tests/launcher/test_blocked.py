"""blocked: chains of waits, and whose fault they are, from rows of every kind."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from launcher.blocked import Chain, Stall, chains, stalls

NOW_NS = 100_000_000


def row(name: str, waits_for: str = "", since_ms: int = 0, **changes: Any) -> dict[str, Any]:
    """A task as `ps` shows it: READY, idle, or blocked since so many milliseconds ago."""
    blank = {"state": "ready", "queued": 0, "taken": 0, "oldest_ns": 0}
    since_ns = NOW_NS - since_ms * 1_000_000 if waits_for else 0
    waits = {"waits_for": waits_for, "waits_op": 2, "waits_since_ns": since_ns}
    return {"name": name, **blank, **waits, **changes}


def told(found: list[Chain]) -> list[str]:
    """Chains as a person would say them."""
    return [
        " -> ".join([c.waits[0].caller, *(wait.callee for wait in c.waits)]) + f": {c.why}"
        for c in found
    ]


def test_nobody_is_blocked() -> None:
    rows = [row("echo"), row("client")]
    assert chains(rows, [], NOW_NS) == []
    assert stalls(rows, [], NOW_NS) == []


def test_blame_goes_to_the_deepest_callee() -> None:
    busy = row("disk", taken=1, oldest_ns=NOW_NS - 11_000_000)
    rows = [row("shell", "fs", 12), row("fs", "disk", 11, taken=1), busy, row("clock")]
    (chain,) = chains(rows, [], NOW_NS)
    assert told([chain]) == ["shell -> fs -> disk: is at work, on its oldest call for 11 ms"]
    assert chain.culprit == "disk"
    first, second = chain.waits
    assert (first.caller, first.callee, first.opcode) == ("shell", "fs", 2)
    assert (NOW_NS - first.since_ns, NOW_NS - second.since_ns) == (12_000_000, 11_000_000)


def test_what_a_culprit_does_instead() -> None:
    for state in ("dead", "starting", "failed"):
        rows = [row("client", "echo", 5), row("echo", state=state, queued=1)]
        assert told(chains(rows, [], NOW_NS)) == [f"client -> echo: is {state}"]
        assert stalls(rows, [], NOW_NS) == [Stall("echo", 1, 0, "echo", f"is {state}")]
    rows = [row("client", "echo", 5), row("echo", taken=1, oldest_ns=1)]
    assert told(chains(rows, ["echo"], NOW_NS)) == ["client -> echo: is suspended"]
    rows = [row("client", "echo", 5), row("echo", queued=1)]
    assert told(chains(rows, [], NOW_NS)) == ["client -> echo: has not taken it"]
    assert told(chains(rows[:1], [], NOW_NS)) == ["client -> echo: is no task of the system"]


def test_chains_that_end_in_the_same_tail_are_told_each_with_the_longest_first() -> None:
    rows = [row("a", "fs", 3), row("b", "fs", 9), row("fs", "disk", 8), row("disk")]
    assert [c.waits[0].caller for c in chains(rows, [], NOW_NS)] == ["b", "a"]
    assert {c.culprit for c in chains(rows, [], NOW_NS)} == {"disk"}


def test_calls_behind_a_blocked_server_are_the_fault_of_whom_it_waits_for() -> None:
    rows = [row("fs", "disk", 8, queued=3, taken=8), row("disk", state="dead")]
    assert stalls(rows, [], NOW_NS) == [Stall("fs", 3, 8, "disk", "is dead")]


def test_a_suspended_server_holds_what_it_has_taken() -> None:
    rows = [row("echo", taken=2, oldest_ns=1), row("clock", taken=1, oldest_ns=1)]
    assert stalls(rows, ["echo"], NOW_NS) == [Stall("echo", 0, 2, "echo", "is suspended")]


def test_a_badge_is_passed_on_where_there_is_one() -> None:
    (chain,) = chains([row("a", "fs", 1, waits_badge=4), row("fs")], [], NOW_NS)
    assert chain.waits[0].badge == 4


def told_by(name: str, callee: str, since_ms: int, way: str = "by channel") -> dict[str, Any]:
    """A task that says itself what the kernel does not know."""
    whom = {"name": callee, "badge": 0}
    since_ns = NOW_NS - since_ms * 1_000_000
    return row(name, waits={"callee": whom, "opcode": 3, "way": way, "since_ns": since_ns})


def test_waits_past_the_kernel_and_those_it_knows_make_one_chain() -> None:
    rows = [row("app", "fs", 9), told_by("fs", "disk", 8), row("disk", in_hand=2)]
    (chain,) = chains(rows, [], NOW_NS)
    assert told([chain]) == ["app -> fs -> disk: is at work, on 2 by channel"]
    assert [(w.way, w.opcode, w.badge) for w in chain.waits] == [
        ("", 2, None),
        ("by channel", 3, 0),
    ]
    assert told(chains(rows, ["disk"], NOW_NS)) == ["app -> fs -> disk: is suspended"]
    assert stalls(rows, ["disk"], NOW_NS) == [Stall("disk", 0, 2, "disk", "is suspended")]
    assert stalls([row("fs", queued=1), rows[2]], [], NOW_NS)[0].culprit == "fs"
    assert stalls([{**rows[1], "queued": 1}, rows[2]], [], NOW_NS)[0].culprit == "disk"


def test_what_the_kernel_says_is_believed_first_and_of_the_dead_nothing() -> None:
    both = {**told_by("fs", "disk", 8), **row("fs", "timer", 2)}
    assert chains([both], [], NOW_NS)[0].culprit == "timer"
    assert chains([{**told_by("fs", "disk", 8), "state": "dead"}], [], NOW_NS) == []


NAMES = list("abcdef")


@given(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["", *NAMES, "gone"])))
def test_every_wait_is_in_a_chain_even_in_a_circle(waits: dict[str, str]) -> None:
    rows = [row(name, callee, 1) for name, callee in waits.items()]
    found = chains(rows, [], NOW_NS)
    shown = {wait.caller for chain in found for wait in chain.waits}
    assert shown == {name for name, callee in waits.items() if callee}
    for chain in found:
        assert [w.callee for w in chain.waits[:-1]] == [w.caller for w in chain.waits[1:]]
        assert len({w.caller for w in chain.waits}) == len(chain.waits)
        assert chain.culprit == chain.waits[-1].callee
