"""checkers: each accepts what is right, catches what is broken, and does not guess."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.chaos.checkers import CHECKERS
from launcher.chaos.checks import CHECKERS as ASKED
from launcher.chaos.evidence import (
    FAIL,
    INFO,
    OK,
    OPEN,
    Blast,
    Connection,
    Evidence,
    Injection,
    Leg,
    Operation,
    Recovery,
    Result,
    Snapshot,
    Transfer,
    Usage,
    Verdict,
)

HELD, BROKEN, UNKNOWN = Result.HELD, Result.BROKEN, Result.UNKNOWN
MS = 1_000_000
MIB = 1 << 20
any_time = settings(deadline=None)
OUTCOMES = {"": OK, "?": INFO, "!": FAIL, "~": OPEN}
NO_KEY = "NoSuchKey: nothing is kept under this name"


def ops(text: str, client: str = "c") -> list[Operation]:
    """A client's history: `put k a; get k a; put k b ?; get k !`, with `?` for info, `!` for fail,
    `~` for open; `missing` is a get that was answered NoSuchKey."""
    made = []
    for number, line in enumerate(filter(None, (part.strip() for part in text.split(";")))):
        words = line.split()
        mark = words.pop() if words[-1] in OUTCOMES else ""
        op, key, value = (*words, "", "")[:3]
        outcome, error, begun = OUTCOMES[mark], "", 10 * number * MS
        if op == "missing":
            op, outcome, error = "get", FAIL, NO_KEY
        ended = 0 if outcome == OPEN else begun + MS
        made.append(
            Operation(
                client, number, op, key, begun, ended, outcome, value, error, int(outcome != OPEN)
            )
        )
    return made


def check(name: str, evidence: Evidence, **params: Any) -> Verdict:
    verdict = CHECKERS[name](evidence, params)
    assert verdict.checker == name
    assert verdict.why
    assert (verdict.result is BROKEN) == ("wrong" in verdict.figures)
    json.dumps(verdict.figures)
    return verdict


def result(name: str, evidence: Evidence, **params: Any) -> Result:
    return check(name, evidence, **params).result


def test_an_experiment_can_ask_for_each_of_them() -> None:
    assert CHECKERS.keys() == ASKED.keys()


@pytest.mark.parametrize("name", sorted(CHECKERS.keys() - {"kernel_alive", "failed"}))
def test_no_evidence_is_unknown(name: str) -> None:
    assert result(name, Evidence()) is UNKNOWN


# --- one_outcome_per_call -----------------------------------------------------------------------

GOOD = ops("put k a; put k b ?; get k !")
ONE_OUTCOME = [
    (HELD, Evidence(history=GOOD)),
    (HELD, Evidence(history=[*GOOD, *ops("echo x", "d")])),
    (BROKEN, Evidence(history=[*GOOD, GOOD[0]._replace(number=3, outcomes=2)])),
    (BROKEN, Evidence(history=[*GOOD, GOOD[1]._replace(number=3, outcomes=2)])),
    (BROKEN, Evidence(history=ops("put k a ~"))),
    (BROKEN, Evidence(history=[GOOD[0]._replace(outcomes=0)])),
    (BROKEN, Evidence(history=[GOOD[0]._replace(outcome="")])),
    (BROKEN, Evidence(history=[GOOD[0]._replace(ended_ns=-1)])),
    (BROKEN, Evidence(history=[*GOOD, GOOD[2]])),
    (BROKEN, Evidence(history=GOOD, calls_open=1)),
    (BROKEN, Evidence(calls_open=1)),
    (UNKNOWN, Evidence(history=[GOOD[0], GOOD[2]])),
    (UNKNOWN, Evidence(history=GOOD[1:])),
]


@pytest.mark.parametrize(("expected", "evidence"), ONE_OUTCOME)
def test_one_outcome_per_call(expected: Result, evidence: Evidence) -> None:
    assert result("one_outcome_per_call", evidence) is expected


def test_a_verdict_says_what_was_counted_and_the_first_thing_that_was_wrong() -> None:
    verdict = check("one_outcome_per_call", Evidence(history=ops("put k a; get k ~; put k b ~")))
    assert verdict.why == (
        "3 operations: 1 ok, 0 fail, 0 info; get 1 of c has no outcome (and 1 more)"
    )


# --- acked_writes_durable -----------------------------------------------------------------------

# What is right: a history, and what is found.
DURABLE: list[tuple[str, dict[str, str]]] = [
    ("put k a", {"k": "a"}),
    ("put k a; put k b", {"k": "b"}),
    ("put k a; get k a; put k b; get k b", {"k": "b"}),
    ("put k a; put k b !", {"k": "a"}),
    ("put k a; put k b !; get k a", {"k": "a"}),
    ("put k a; put k b ?", {"k": "a"}),
    ("put k a; put k b ?", {"k": "b"}),
    ("put k a; put k b ~", {"k": "b"}),
    ("put k a; put k b ?; get k a", {"k": "b"}),  # done only after the read
    ("put k a; put k b ?; get k a; get k b", {"k": "b"}),
    ("put k a; put k b ?; put k c ?", {"k": "a"}),
    ("put k a; put k b ?; put k c ?", {"k": "b"}),
    ("put k a; put k b ?; put k c ?; get k c", {"k": "b"}),  # still under way
    ("put k a; put k b ?; put k b ?; get k b; get k b", {"k": "b"}),
    ("put k a; put k b ?; put k c; get k c", {"k": "c"}),
    ("put k a; put k b; put k a", {"k": "a"}),
    ("put k a; put k b ?; put k a ?; get k b; get k a", {"k": "a"}),
    ("put k a; remove k", {}),
    ("put k a; remove k b", {}),  # whatever it is said to have begun with
    ("put k a; remove k; missing k; get k", {}),
    ("put k a; remove k ?", {"k": "a"}),
    ("put k a; remove k ?; get k a; missing k", {}),
    ("put k a; remove k !", {"k": "a"}),
    ("put k a; remove k; put k a", {"k": "a"}),
    ("missing k; put k a; get k a", {"k": "a"}),
    ("put k a; get k ?; get k !", {"k": "a"}),
    ("put k a; put j b; put k c; get j b", {"k": "c", "j": "b"}),
    ("put k a; write c line; read c 12; read c 34", {"k": "a"}),  # console and random bytes
    ("put k a; read /big x; read /big x", {"k": "a"}),
    ("put k a; add s 3; number s 3", {"k": "a", "s": "3"}),
    ("put k a", {"k": "a", "c.sum": "0"}),
]

# What is broken: a history, what is found, and a word of what is told.
NOT_DURABLE: list[tuple[str, dict[str, str], str]] = [
    ("put k a", {}, "lost"),
    ("put k a; put j b", {"j": "b"}, "k: at the end there is nothing, not a"),
    ("put k a; put k b", {"k": "a"}, "overwritten"),
    ("put k a; put k b; put k c", {"k": "b"}, "overwritten"),
    ("put k a; put k b; get k a", {"k": "b"}, "get 2 of c saw a, which had been overwritten"),
    ("put k a; get k b; put k b", {"k": "b"}, "nobody had written"),
    ("put k a; remove k", {"k": "a"}, "removed"),
    ("put k a; remove k; get k a", {}, "removed"),
    ("put k a; remove k; put k b; get k a", {"k": "b"}, "overwritten"),
    ("put k a; put k b !", {"k": "b"}, "failed"),
    ("put k a; put k b !; get k b", {"k": "a"}, "failed"),
    ("put k a !", {"k": "a"}, "failed"),
    ("put k a; remove k !", {}, "lost"),
    ("put k a", {"k": "z"}, "nobody had written"),
    ("put k a; missing k", {"k": "a"}, "lost"),
    ("put k a; get k", {"k": "a"}, "lost"),
    ("put k a; put k b ?", {}, "not a or b: it is lost"),
    ("put k a; put k b ?", {"k": "z"}, "nobody had written"),
    ("put k a; put k b ?; put k c", {"k": "b"}, "overwritten"),  # done after what came later
    ("put k a; put k b ?; put k c", {"k": "a"}, "overwritten"),
    ("put k a; put k b ?; put k c; get k b", {"k": "c"}, "overwritten"),
    ("put k a; put k b ~; put k c", {"k": "b"}, "overwritten"),
    ("put k a; put k b ?; get k b; get k a", {"k": "b"}, "overwritten"),
    ("put k a; put k b ?; get k b", {"k": "a"}, "overwritten"),
    ("put k a; put k b ?; put k c ?; get k b; get k c", {"k": "b"}, "overwritten"),
    ("put k a; remove k ?; put k b", {}, "lost"),
    ("put k a; remove k ?; missing k", {"k": "a"}, "removed"),
    ("put k a; put k a ?; get k", {"k": "a"}, "lost"),
    ("put k a; put j a; remove j", {"k": "a", "j": "a"}, "removed"),
    ("put k a", {"k": "a", "other": "x"}, "nobody had named the key"),
    ("put k a; read /big x; read /big y", {"k": "a"}, "nobody had written"),
    ("put k a; read /big x", {"k": "a", "/big": "y"}, "nobody had written"),
]


@pytest.mark.parametrize(("text", "found"), DURABLE)
def test_what_lasts_is_accepted(text: str, found: dict[str, str]) -> None:
    for after in (None, found):
        evidence = Evidence(history=ops(text), found=found, found_after_reboot=after)
        assert check("acked_writes_durable", evidence).result is HELD


@pytest.mark.parametrize(("text", "found", "told"), NOT_DURABLE)
def test_what_does_not_last_is_caught(text: str, found: dict[str, str], told: str) -> None:
    verdict = check("acked_writes_durable", Evidence(history=ops(text), found=found))
    assert verdict.result is BROKEN
    assert told in verdict.why


@pytest.mark.parametrize(
    ("text", "found", "after", "expected"),
    [
        ("put k a", {"k": "a"}, {}, BROKEN),
        ("put k a; put k b", {"k": "b"}, {"k": "a"}, BROKEN),
        ("put k a; remove k", {}, {"k": "a"}, BROKEN),
        ("put k a; put k b !", {"k": "a"}, {"k": "b"}, BROKEN),
        ("put k a; put k b ?; put k c", {"k": "c"}, {"k": "b"}, BROKEN),
        ("put k a", {"k": "a"}, {"k": "a", "x": "y"}, BROKEN),
        # seen, but never acknowledged: a power cut may take it back
        ("put k a; put k b ?; get k b", {"k": "b"}, {"k": "a"}, HELD),
        ("put k a; put k b ?", {"k": "a"}, {"k": "b"}, HELD),
        ("put k a; put k b ?", {"k": "b"}, {}, BROKEN),
    ],
)
def test_what_a_reboot_may_do(
    text: str, found: dict[str, str], after: dict[str, str], expected: Result
) -> None:
    evidence = Evidence(history=ops(text), found=found, found_after_reboot=after)
    assert result("acked_writes_durable", evidence) is expected


@pytest.mark.parametrize(
    ("history", "found"),
    [
        (ops("missing k; get k !"), {}),
        (ops("put k a ?"), {"k": "a"}),
        (ops("put k a !"), {}),
        (ops("write c line; echo x a"), {}),
        ([*ops("put k a"), *ops("put k b", "d")], {"k": "b"}),
        ([*ops("put k a"), *ops("get k", "d")], {"k": "a"}),
        ([*ops("put k a"), *ops("put k b", "d"), *ops("put j x", "e")], {"k": "?", "j": "x"}),
    ],
)
def test_what_cannot_be_told_of_durability(history: list[Operation], found: dict[str, str]) -> None:
    assert result("acked_writes_durable", Evidence(history=history, found=found)) is UNKNOWN


def test_histories_need_not_come_in_order() -> None:
    history = [*ops("put k a; put k b"), *ops("put j a; add n 1=1; add n 2=3", "d")]
    found = {"k": "b", "j": "a", "n": "3"}
    for seed in range(10):
        random.Random(seed).shuffle(history)
        for name in ("one_outcome_per_call", "acked_writes_durable", "no_duplicate_effect"):
            assert result(name, Evidence(history=history, found=found)) is HELD


State = tuple[str, tuple[str, ...]]  # what is there, and what may still be done


def explained(history: Sequence[Operation], found: str) -> bool:
    """The definition, by trying everything: can the operations on one key, each at once and in
    their order, and those in doubt at any later time before the next acknowledged change or
    never, show what was seen?"""
    states: set[State] = {("", ())}
    for op in [*history, Operation("c", 99, "get", "k", 0, 0, OK, found)]:
        states = {each for state in states for each in settled(state)}
        value = "" if op.op == "remove" else op.value
        if op.op == "get":
            seen = "" if op.outcome == FAIL else value
            states = {state for state in states if op.outcome == INFO or state[0] == seen}
        elif op.outcome == OK:
            states = {(value, ()) for _ in states}
        elif op.outcome == INFO:
            states = {(there, (*under_way, value)) for there, under_way in states}
    return bool(states)


@cache
def settled(state: State) -> frozenset[State]:
    """Every state that doing some of what is under way leads to."""
    found, under_way = frozenset((state,)), state[1]
    for at, value in enumerate(under_way):
        found |= settled((value, (*under_way[:at], *under_way[at + 1 :])))
    return found


steps = st.one_of(
    st.tuples(st.just("put k"), st.sampled_from("ab"), st.sampled_from(["", "?", "?", "!"])),
    st.tuples(st.just("remove k"), st.just(""), st.sampled_from(["", "?", "!"])),
    st.tuples(st.just("get k"), st.sampled_from(["a", "b", ""]), st.sampled_from(["", "", "?"])),
    st.tuples(st.just("missing k"), st.just(""), st.just("")),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(steps, max_size=7), st.sampled_from(["a", "b", ""]))
def test_it_agrees_with_the_definition(lines: list[tuple[str, ...]], found: str) -> None:
    history = ops("; ".join(["put k a", *(" ".join(line) for line in lines)]))
    evidence = Evidence(history=history, found={"k": found} if found else {})
    expected = HELD if explained(history, found) else BROKEN
    assert result("acked_writes_durable", evidence) is expected


# --- no_duplicate_effect ------------------------------------------------------------------------

ADDED: list[tuple[str, dict[str, str]]] = [
    ("add n 3", {"n": "3"}),
    ("add n 3=3; add n 4=7", {"n": "7"}),
    ("add n 3=3; add n 4 !; add n 1=4", {"n": "4"}),
    ("add n 3=3; add n 4 ?", {"n": "3"}),
    ("add n 3=3; add n 4 ?", {"n": "7"}),
    ("add n 3=3; add n 4 ~; add n 1=4", {"n": "8"}),
    ("add n 3=3; add n 4 ?; add n 1=8", {"n": "8"}),
    ("add n 3=3; add n 4 ?; add n 2 ?; add n 1=6", {"n": "10"}),
    ("add n 3=3; number n 3; add n 4 ?; number n 3; number n 7", {"n": "7"}),
    ("add n 0=0; add n 0=0; add n 1=1", {"n": "1"}),
    ("add n 3=3; add m 4=4; add n 1=4", {"n": "4", "m": "4"}),
    ("add n 3=3; put k 9; get k 9", {"n": "3", "k": "9"}),
]

NOT_ADDED: list[tuple[str, dict[str, str], str]] = [
    ("add n 3", {"n": "6"}, "twice"),
    ("add n 3", {}, "lost"),
    ("add n 3", {"n": "two"}, "no number"),
    ("add n 3", {"n": "-3"}, "no number"),
    ("add n 3=3; add n 4=7", {"n": "4"}, "lost"),
    ("add n 3=3; add n 4=7", {"n": "11"}, "twice"),
    ("add n 3=3; add n 4=3", {"n": "7"}, "lost"),  # the same answer again
    ("add n 3=3; add n 3=3", {"n": "3"}, "lost"),  # one of two was dropped as a repetition
    ("add n 3=6", {"n": "3"}, "twice"),
    ("add n 3=3; add n 4=4", {"n": "4"}, "lost"),  # began anew
    ("add n 3=3; add n 4=10; add n 1=11", {"n": "8"}, "twice"),
    ("add n 3=3; add n 4 !", {"n": "7"}, "twice"),
    ("add n 3=3; add n 4 ?", {"n": "11"}, "twice"),
    ("add n 3=3; add n 4 ?", {"n": "5"}, "twice"),  # not a sum of what is in doubt
    ("add n 3=3; add n 5 ?; add n 3=9", {"n": "9"}, "twice"),  # below the bound, and impossible
    ("add n 3=3; add n 4 ?; add n 1=8", {"n": "4"}, "gone again"),
    ("add n 3=3; add n 4 ?; number n 7; number n 3", {"n": "7"}, "gone again"),
    ("add n 3=3; number n 7; add n 4=7", {"n": "7"}, "twice"),  # before it was begun
    ("add n 3=3; add m 4=4", {"n": "3", "m": "8"}, "m: at the end"),
]


@pytest.mark.parametrize(("text", "found"), ADDED)
def test_what_was_done_once_is_accepted(text: str, found: dict[str, str]) -> None:
    for after in (None, found):
        evidence = Evidence(history=ops(text), found=found, found_after_reboot=after)
        assert check("no_duplicate_effect", evidence).result is HELD


@pytest.mark.parametrize(("text", "found", "told"), NOT_ADDED)
def test_what_was_done_twice_or_never_is_caught(
    text: str, found: dict[str, str], told: str
) -> None:
    verdict = check("no_duplicate_effect", Evidence(history=ops(text), found=found))
    assert verdict.result is BROKEN
    assert told in verdict.why


@pytest.mark.parametrize(
    ("text", "found", "after", "expected"),
    [
        ("add n 3=3", "3", "6", BROKEN),
        ("add n 3=3", "3", "0", BROKEN),
        ("add n 3=3; add n 4 ?; number n 7", "7", "3", HELD),
        ("add n 3=3; add n 4 ?; add n 1=8", "8", "4", BROKEN),
        ("add n 3=3; add n 4 ?", "3", "7", HELD),
    ],
)
def test_what_a_reboot_may_do_to_numbers(
    text: str, found: str, after: str, expected: Result
) -> None:
    evidence = Evidence(history=ops(text), found={"n": found}, found_after_reboot={"n": after})
    assert result("no_duplicate_effect", evidence) is expected


@pytest.mark.parametrize(
    "history",
    [
        ops("put k a; echo x a; write c line"),
        ops("add n 3 ?"),
        ops("add n 3 !; number n 0"),
        ops("number n 0"),
        ops("add n; add n 4"),
        [*ops("add n 3"), *ops("add n 3", "d")],
    ],
)
def test_what_cannot_be_told_of_numbers(history: list[Operation]) -> None:
    assert result("no_duplicate_effect", Evidence(history=history)) is UNKNOWN


def test_with_very_many_amounts_in_doubt_the_bounds_still_hold() -> None:
    text = "add n 1=1;" + ";".join(f"add n {1 << bit} ?" for bit in range(20))
    found = {"n": str(1 << 20)}
    assert result("no_duplicate_effect", Evidence(history=ops(text), found=found)) is HELD
    found = {"n": str((1 << 20) + 1)}
    assert result("no_duplicate_effect", Evidence(history=ops(text), found=found)) is BROKEN


# --- both, against a server that is right -------------------------------------------------------

FIRST = [("put", "c.0", "ok"), ("add", "c.0", "ok")]  # so that something is acknowledged
FATES = ["ok", "ok", "ok", "refused", "before", "after", "late"]  # before: died, nothing was done
actions = st.tuples(
    st.sampled_from(["put", "put", "remove", "get", "add", "number"]),
    st.sampled_from(["c.0", "c.1"]),
    st.sampled_from(FATES),
)


class Table:
    """A server that keeps its word, and a client that does one thing at a time. Every value is
    written once. What comes `late` is done after the next look at the key, or at the end."""

    def __init__(self) -> None:
        self.history: list[Operation] = []
        self.values: dict[str, str] = {}
        self.numbers: dict[str, int] = {}
        self.late: list[tuple[str, str, str]] = []

    def act(self, op: str, key: str, fate: str) -> None:
        number = len(self.history)
        key = key if op in ("put", "remove", "get") else f"{key}.sum"
        value = {"put": f"v{number}", "add": str(number % 5 + 1)}.get(op, "")
        outcome = {"ok": OK, "refused": FAIL}.get(fate, INFO)
        if op in ("get", "number"):
            if outcome == OK:
                value = self.look(op, key)
        elif fate in ("ok", "after"):
            if outcome == OK:  # it is not overtaken by what an earlier life was asked for
                self.late = [each for each in self.late if each[1] != key or each[0] == "add"]
            self.do(op, key, value)
            value += f"={self.numbers[key]}" if op == "add" and outcome == OK else ""
        elif fate == "late":
            self.late.append((op, key, value))
        begun = number * 10
        self.history.append(Operation("c", number, op, key, begun, begun + 5, outcome, value))

    def look(self, op: str, key: str) -> str:
        seen = self.values.get(key, "") if op == "get" else str(self.numbers.get(key, 0))
        self.settle([each for each in self.late if each[1] == key])
        return seen

    def settle(self, chosen: Sequence[tuple[str, str, str]]) -> None:
        for each in chosen:
            self.late.remove(each)
            self.do(*each)

    def do(self, op: str, key: str, value: str) -> None:
        if op == "put":
            self.values[key] = value
        elif op == "remove":
            self.values.pop(key, None)
        else:
            self.numbers[key] = self.numbers.get(key, 0) + int(value)

    def evidence(self) -> Evidence:
        self.settle(list(self.late))
        found = {**self.values, **{key: str(number) for key, number in self.numbers.items()}}
        return Evidence(history=self.history, found=found, found_after_reboot=found)


@st.composite
def right(draw: st.DrawFn) -> Evidence:
    table = Table()
    for op, key, fate in [*FIRST, *draw(st.lists(actions, max_size=40))]:
        table.act(op, key, fate)
    return table.evidence()


@any_time
@given(right())
def test_a_right_execution_is_accepted(evidence: Evidence) -> None:
    for name in ("one_outcome_per_call", "acked_writes_durable", "no_duplicate_effect"):
        assert result(name, evidence) is HELD


def possible(history: Sequence[Operation], key: str) -> set[str]:
    """What may be under a key after its history, as every value is written once."""
    there = {""}
    for op in history:
        if op.key == key and op.op in ("put", "remove") and op.outcome != FAIL:
            new = "" if op.op == "remove" else op.value
            there = {new} if op.outcome == OK else there | {new}
    return there


def another_value(history: Sequence[Operation], key: str, at: int, dice: random.Random) -> str:
    """One that cannot be under the key before operation `at`: of another time, or of nobody."""
    values = {op.value for op in history if op.op == "put" and op.key == key}
    return dice.choice(sorted({"nobody's", "", *values} - possible(history[:at], key)))


def corrupt_values(evidence: Evidence, dice: random.Random) -> Evidence:
    """One wrong value: in a read, at the end, or after the reboot."""
    history = list(evidence.history)
    changed = sorted({op.key for op in history if op.op == "put" and op.outcome == OK})
    reads = [op for op in history if op.op == "get" and op.outcome == OK and op.key in changed]
    where = dice.choice(["found", "after", *(["read"] * len(reads))])
    if where == "read":
        op = dice.choice(reads)
        value = another_value(history, op.key, op.number, dice)
        history[op.number] = op._replace(value=value)
        return replace(evidence, history=history)
    key = dice.choice(changed)
    found = {**evidence.found, key: another_value(history, key, len(history), dice)}
    found = {name: value for name, value in found.items() if value}
    if where == "found":
        return replace(evidence, found=found)
    return replace(evidence, found_after_reboot=found)


def corrupt_numbers(evidence: Evidence, dice: random.Random) -> Evidence:
    """One addition too many or too few: in an answer, at the end, or after the reboot."""
    history = list(evidence.history)
    acked = [op for op in history if op.op == "add" and op.outcome == OK]
    op = dice.choice(acked)
    where = dice.choice(["found", "after", "answer"])
    until = op.number + 1 if where == "answer" else len(history)
    adds = [each for each in history[:until] if each.op == "add" and each.key == op.key]
    least = sum(int(each.value.partition("=")[0]) for each in adds if each.outcome == OK)
    most = least + sum(int(each.value) for each in adds if each.outcome == INFO)
    wrong = str(dice.choice([least - 1, least - int(op.value.partition("=")[0]), most + 1]))
    if where == "answer":
        history[op.number] = op._replace(value=f"{op.value.partition('=')[0]}={wrong}")
        return replace(evidence, history=history)
    found = {**evidence.found, op.key: wrong}
    if where == "found":
        return replace(evidence, found=found)
    return replace(evidence, found_after_reboot=found)


def corrupt_outcomes(evidence: Evidence, dice: random.Random) -> Evidence:
    """A reply that came twice, or never."""
    history = list(evidence.history)
    op = dice.choice(history)
    wrong = dice.choice([op._replace(outcomes=2), op._replace(outcome=OPEN, outcomes=0)])
    history[op.number] = wrong
    return replace(evidence, history=history)


CORRUPTIONS = [
    (corrupt_values, "acked_writes_durable"),
    (corrupt_numbers, "no_duplicate_effect"),
    (corrupt_outcomes, "one_outcome_per_call"),
]


@pytest.mark.parametrize(("corrupt", "name"), CORRUPTIONS)
@any_time
@given(evidence=right(), seed=st.integers(0, 1 << 16))
def test_one_corruption_is_caught(corrupt: Any, name: str, evidence: Evidence, seed: int) -> None:
    assert result(name, corrupt(evidence, random.Random(seed))) is BROKEN


# --- recovery_ms --------------------------------------------------------------------------------


def recovery(life: int, outage_ms: float, **changes: Any) -> Recovery:
    """The repair of disk#life, killed at `life` seconds; -1: nobody replied."""
    killed = life * 1000 * MS
    came = int(killed + outage_ms * MS) if outage_ms >= 0 else 0
    found = Recovery(
        "disk", life, "killed by SIGKILL", True, killed, killed + MS, killed + 2 * MS,
        killed + 3 * MS, killed + 4 * MS, killed + 5 * MS, came,
    )  # fmt: skip
    return found._replace(**changes)


def kill(life: int, **changes: Any) -> Injection:
    return Injection(life, "kill", "disk", life, life, life=life)._replace(**changes)


TEN = [recovery(life, 10 if life < 9 else 80) for life in range(1, 11)]
RECOVERIES: list[tuple[Result, Evidence, dict[str, Any]]] = [
    (HELD, Evidence(recoveries=TEN), {}),
    (HELD, Evidence(recoveries=TEN), {"p50": 10, "p99": 80, "max": 80}),
    (HELD, Evidence(recoveries=TEN), {"p50": None, "p99": None}),
    (BROKEN, Evidence(recoveries=TEN), {"p50": 9}),
    (BROKEN, Evidence(recoveries=TEN), {"p99": 79}),
    (BROKEN, Evidence(recoveries=TEN), {"max": 79}),
    (BROKEN, Evidence(recoveries=[recovery(1, 10, client_ns=1090 * MS)]), {"p50": 50}),
    (BROKEN, Evidence(recoveries=[*TEN, recovery(11, -1)]), {}),
    (BROKEN, Evidence(recoveries=[*TEN, recovery(11, -1)], failed=("fs",)), {}),
    (BROKEN, Evidence(recoveries=[recovery(1, -1)]), {"p50": 10}),
    (HELD, Evidence(recoveries=[*TEN, recovery(11, -1)], failed=("disk",)), {}),
    (UNKNOWN, Evidence(recoveries=[recovery(1, -1)], failed=("disk",)), {}),
    (UNKNOWN, Evidence(recoveries=[recovery(1, 10, injected=False)]), {}),
    # killed again before it replied: the outage lasts until a later life did
    (HELD, Evidence(recoveries=[recovery(1, -1), recovery(2, 10)]), {"max": 1010}),
    (BROKEN, Evidence(recoveries=[recovery(1, -1), recovery(2, 10)]), {"max": 1000}),
    (BROKEN, Evidence(recoveries=[recovery(1, -1), recovery(2, 10, server="fs")]), {}),
    (BROKEN, Evidence(recoveries=[recovery(1, 10), recovery(2, -1)]), {}),
    # what others did is not measured
    (HELD, Evidence(recoveries=[*TEN, recovery(11, 500, injected=False)]), {"max": 80}),
    (HELD, Evidence(recoveries=TEN, injections=[kill(1), kill(2)]), {}),
    (UNKNOWN, Evidence(recoveries=TEN, injections=[kill(1), kill(11)]), {}),
    (HELD, Evidence(recoveries=TEN, injections=[kill(11, landed_ns=0)]), {}),
    (HELD, Evidence(recoveries=TEN, injections=[kill(11, target="fs")], failed=("fs",)), {}),
]


@pytest.mark.parametrize(("expected", "evidence", "params"), RECOVERIES)
def test_recovery_ms(expected: Result, evidence: Evidence, params: dict[str, Any]) -> None:
    assert result("recovery_ms", evidence, **params) is expected


def test_a_recovery_is_shown_by_its_stages() -> None:
    figures = check("recovery_ms", Evidence(recoveries=TEN)).figures
    assert figures["outage_ms"] == {"n": 10, "p50": 10, "p90": 80, "p99": 80, "max": 80}
    p50 = {stage: found.get("p50") for stage, found in figures["stages_ms"].items()}
    assert p50 == {
        "detect": 1, "dead": 2, "spawned": 3, "hello": 4, "ready": 5, "serving": 10, "client": None
    }  # fmt: skip


# --- bystanders ---------------------------------------------------------------------------------

CALM = ops("now c 1; now c 2; now c 3; now c 4")
BYSTANDERS: list[tuple[Result, list[Operation], tuple[str, ...], dict[str, Any]]] = [
    (HELD, CALM, ("c",), {}),
    (HELD, CALM, ("c",), {"availability": 1.0, "p99_ms": 1.0}),
    (HELD, CALM, ("c",), {"p99_ms": None}),
    (BROKEN, [*CALM, CALM[0]._replace(outcome=INFO)], ("c",), {}),
    (BROKEN, [*CALM, CALM[0]._replace(outcome=FAIL)], ("c",), {}),
    (BROKEN, [*CALM, CALM[0]._replace(outcome=OPEN, ended_ns=0)], ("c",), {}),
    (BROKEN, [*CALM, CALM[0]._replace(ended_ns=9 * MS)], ("c",), {"p99_ms": 8.9}),
    (HELD, [*CALM, CALM[0]._replace(outcome=FAIL)], ("c",), {"availability": 0.8}),
    (BROKEN, [*CALM, CALM[0]._replace(outcome=FAIL)], ("c",), {"availability": 0.81}),
    # a busy client does not hide one that is not served
    (BROKEN, [*CALM, *ops("now d ?", "d")], ("c", "d"), {"availability": 0.5}),
    (HELD, [*CALM, *ops("now d ?", "d")], ("c",), {}),
    (UNKNOWN, CALM, (), {}),
    (UNKNOWN, CALM, ("c", "d"), {}),
    (BROKEN, ops("now c ?"), ("c", "d"), {}),
]


@pytest.mark.parametrize(("expected", "history", "clients", "params"), BYSTANDERS)
def test_bystanders(
    expected: Result, history: list[Operation], clients: tuple[str, ...], params: dict[str, Any]
) -> None:
    evidence = Evidence(history=history, bystanders=clients)
    assert result("bystanders", evidence, **params) is expected


def test_a_bystander_is_shown_with_its_longest_gap() -> None:
    history = [*CALM, *ops("now c 5")]
    history[-1] = history[-1]._replace(number=4, begun_ns=100 * MS, ended_ns=102 * MS)
    figures = check("bystanders", Evidence(history=history, bystanders=("c",))).figures["c"]
    assert figures["longest_gap_ms"] == 102 - 31
    assert figures["latency_ms"] == {"n": 5, "p50": 1, "p90": 2, "p99": 2, "max": 2}
    assert (figures["operations"], figures["availability"]) == (5, 1.0)


# --- blast_radius_as_predicted ------------------------------------------------------------------

SEEN = Blast(("disk",), ("fs",), ("console", "timer"))
RADII: list[tuple[Result, Blast | None, Blast | None, str]] = [
    (HELD, SEEN, SEEN, "1 down, 1 degraded, 2 untouched"),
    (HELD, Blast(("disk",), ("fs",), ("timer", "console")), SEEN, ""),
    (HELD, Blast(("disk",), ("fs",), ("timer",)), SEEN, ""),  # the rest is untouched anyway
    (BROKEN, Blast(("disk",), (), ("console", "timer")), SEEN, "fs: predicted not named"),
    (BROKEN, Blast(("disk",), (), ("fs", "timer")), SEEN, "predicted untouched, observed degraded"),
    (BROKEN, Blast(("disk",), ("fs", "timer"), ()), SEEN, "timer: predicted degraded"),
    (BROKEN, Blast(("disk", "fs"), (), ("timer",)), SEEN, "fs: predicted down, observed degraded"),
    (BROKEN, Blast((), ("fs",), ("timer",)), SEEN, "disk: predicted not named, observed down"),
    (BROKEN, Blast(("disk",), ("fs",), ("time",)), SEEN, "time: predicted untouched, observed not"),
    (
        BROKEN,
        SEEN,
        Blast(("disk",), ("fs",), ()),
        "console: predicted untouched, observed not seen",
    ),
    (BROKEN, SEEN, Blast((), (), ("disk", "fs", "console", "timer")), "disk: predicted down"),
    (UNKNOWN, None, SEEN, "no blast radius was predicted"),
    (UNKNOWN, SEEN, None, "no blast radius was observed"),
    (UNKNOWN, Blast((), (), ()), Blast((), (), ()), "nobody"),
]


@pytest.mark.parametrize(("expected", "predicted", "observed", "told"), RADII)
def test_blast_radius(
    expected: Result, predicted: Blast | None, observed: Blast | None, told: str
) -> None:
    evidence = Evidence(predicted=predicted, observed=observed)
    verdict = check("blast_radius_as_predicted", evidence)
    assert verdict.result is expected
    assert told in verdict.why


# --- no_leak ------------------------------------------------------------------------------------

COUNTS = {"caps": 40, "lives": 5, "objects": 9, "calls_open": 1, "calls_done": 100}


def rest(fds: int = 10, rss_mib: float = 20, processes: int = 6, **counts: int) -> Snapshot:
    fs = Usage("fs", 12, 30 * MIB)
    disk = Usage("disk", fds, int(rss_mib * MIB))
    return Snapshot((disk, fs), processes, COUNTS | counts)


NOTHING_SEEN = Snapshot((), 6, COUNTS)
UNCOUNTED = rest()._replace(counters={"caps": 40})
LEAKS: list[tuple[Result, Snapshot | None, Snapshot | None, dict[str, Any]]] = [
    (HELD, rest(), rest(), {}),
    (HELD, rest(), rest(fds=9, rss_mib=28, processes=5, caps=30, calls_done=900), {}),
    (HELD, rest(), rest(fds=12), {"fds": 2}),
    (HELD, rest(), rest(rss_mib=36), {"rss_mib": 16}),
    (BROKEN, rest(), rest(fds=11), {}),
    (BROKEN, rest(), rest(fds=13), {"fds": 2}),
    (BROKEN, rest(), rest(rss_mib=28.1), {}),
    (BROKEN, rest(), rest(rss_mib=22), {"rss_mib": 1}),
    (BROKEN, rest(), rest(processes=7), {}),
    (HELD, rest(), rest(caps=48), {}),
    (BROKEN, rest(), rest(caps=49), {}),
    (BROKEN, rest(), rest(caps=41), {"caps": 0}),
    (BROKEN, rest(), rest(lives=6), {}),
    (BROKEN, rest(), rest(objects=10), {}),
    (BROKEN, rest(), rest(calls_open=2), {}),
    (BROKEN, rest(), Snapshot((*rest().usage, Usage("fs", 1, 0)), 6, COUNTS), {}),
    (UNKNOWN, None, rest(), {}),
    (UNKNOWN, rest(), None, {}),
    (UNKNOWN, NOTHING_SEEN, rest(), {}),
    (UNKNOWN, rest(), NOTHING_SEEN, {}),
    (UNKNOWN, rest(), UNCOUNTED, {}),
    (BROKEN, UNCOUNTED, rest(caps=49), {}),
]


@pytest.mark.parametrize(("expected", "before", "after", "params"), LEAKS)
def test_no_leak(
    expected: Result, before: Snapshot | None, after: Snapshot | None, params: dict[str, Any]
) -> None:
    assert result("no_leak", Evidence(before=before, after=after), **params) is expected


# --- kernel_alive, failed, min_landed -----------------------------------------------------------


def test_kernel_alive() -> None:
    assert result("kernel_alive", Evidence()) is HELD
    assert result("kernel_alive", Evidence(kernel_alive=False)) is BROKEN


FAILED = [
    (HELD, (), ()),
    (HELD, ("fs", "disk"), ["disk", "fs"]),
    (BROKEN, ("fs",), ()),
    (BROKEN, (), ("fs",)),
    (BROKEN, ("fs",), ("disk",)),
    (BROKEN, ("fs", "disk"), ("fs",)),
]


@pytest.mark.parametrize(("expected", "found", "exactly"), FAILED)
def test_failed(expected: Result, found: tuple[str, ...], exactly: Sequence[str]) -> None:
    assert result("failed", Evidence(failed=found), exactly=exactly) is expected
    if not exactly:
        assert result("failed", Evidence(failed=found)) is expected


LANDED: list[tuple[Result, list[Injection], dict[str, int]]] = [
    (HELD, [kill(1)], {}),
    (HELD, [kill(1), kill(2)], {"faults": 2}),
    (UNKNOWN, [kill(1), kill(2)], {"faults": 3}),
    (UNKNOWN, [kill(1), kill(2, landed_ns=0, detail="disk was dead")], {"faults": 1}),
    (UNKNOWN, [], {"faults": 1}),
    (UNKNOWN, [], {}),
]


@pytest.mark.parametrize(("expected", "injections", "params"), LANDED)
def test_min_landed(expected: Result, injections: list[Injection], params: dict[str, int]) -> None:
    assert result("min_landed", Evidence(injections=injections), **params) is expected


def test_a_fault_that_never_landed_is_named() -> None:
    missed = kill(7, landed_ns=0, detail="disk was dead")
    why = check("min_landed", Evidence(injections=[kill(1), missed])).why
    assert why == "1 of 2 faults landed; kill 7 on disk never landed: disk was dead"


# --- throughput_loss ----------------------------------------------------------------------------


def legs(*speeds: float, every_s: float = 0.0, kills: int = -1) -> list[Leg]:
    """Legs of a second at these MB/s."""
    if kills < 0:
        kills = 3 if every_s else 0
    return [Leg(every_s, at, int(speed * 1e6), 1.0, kills, True) for at, speed in enumerate(speeds)]


WHOLE = legs(100, 90, 110)
AT_1, AT_4 = legs(60, 70, 10, every_s=1.0), legs(95, 96, 97, every_s=4.0)
WRONG = legs(60, every_s=1.0)[0]._replace(right=False)
SWEEPS: list[tuple[Result, list[Leg], dict[str, Any]]] = [
    (HELD, [*WHOLE, *AT_1], {"every_s": 1.0, "max_percent": 40}),
    (BROKEN, [*WHOLE, *AT_1], {"every_s": 1.0, "max_percent": 39}),
    (HELD, [*WHOLE, *AT_1, *AT_4], {"every_s": 4.0, "max_percent": 5}),
    (BROKEN, [*WHOLE, *AT_1, *AT_4], {"max_percent": 5}),
    (HELD, [*WHOLE, *AT_1], {"every_s": 1}),
    (HELD, [*WHOLE, *legs(120, every_s=1.0)], {"every_s": 1.0, "max_percent": 0}),
    (BROKEN, [*WHOLE, *AT_4, WRONG], {"every_s": 4.0, "max_percent": 50}),
    (BROKEN, [*WHOLE[1:], *AT_1, WHOLE[0]._replace(right=False)], {"every_s": 1.0}),
    (BROKEN, [*WHOLE, *legs(0, every_s=1.0)], {"every_s": 1.0, "max_percent": 99}),
    (UNKNOWN, AT_1, {"every_s": 1.0, "max_percent": 40}),
    (UNKNOWN, WHOLE, {"every_s": 1.0, "max_percent": 40}),
    (UNKNOWN, [*WHOLE, *AT_4], {"every_s": 1.0, "max_percent": 40}),
    (UNKNOWN, [*WHOLE, *legs(99, every_s=1.0, kills=0)], {"every_s": 1.0, "max_percent": 40}),
    (UNKNOWN, [*legs(50, kills=2), *AT_1], {"every_s": 1.0, "max_percent": 40}),
    (UNKNOWN, [*legs(0), *AT_1], {"every_s": 1.0, "max_percent": 40}),
    (UNKNOWN, [WHOLE[0]._replace(took_s=0.0), *AT_1], {"every_s": 1.0}),
]


@pytest.mark.parametrize(("expected", "sweep", "params"), SWEEPS)
def test_throughput_loss(expected: Result, sweep: list[Leg], params: dict[str, Any]) -> None:
    assert result("throughput_loss", Evidence(sweep=sweep), **params) is expected


def test_a_sweep_is_shown_as_a_table() -> None:
    figures = check("throughput_loss", Evidence(sweep=[*WHOLE, *AT_1])).figures
    assert figures["table"] == {
        "0": {"mb_per_s": 100.0, "loss_percent": 0.0, "legs": 3, "kills": 0},
        "1": {"mb_per_s": 60.0, "loss_percent": 40.0, "legs": 3, "kills": 9},
    }


# --- wrong_data_seen ----------------------------------------------------------------------------

LIE = Injection(0, "wrong_data", "disk0", 5 * MS, 5 * MS)  # during operation 1, if there is one
WRONG_DATA: list[tuple[Result, str, list[Injection]]] = [
    (HELD, "put k a; get k a; get k a", [LIE]),
    (HELD, "put k a; get k !; get k a", [LIE]),
    (HELD, "put k a; get k !", [LIE]),  # it said so
    (HELD, "put k a; missing k; get k a", [LIE]),
    (HELD, "put k a; put k b ?; get k b", [LIE]),
    (HELD, "read /big x; read /big x", [LIE]),
    (HELD, "put k a; get k a", [LIE._replace(fault="device", detail="wrong_data 1 time")]),
    (BROKEN, "put k a; get k z", [LIE]),
    (BROKEN, "put k a; get k", [LIE]),
    (BROKEN, "put k a; put k b; get k a", [LIE]),
    (BROKEN, "put k a; put j b; get k b; get j b", [LIE]),
    (BROKEN, "read /big x; read /big y", [LIE]),
    (BROKEN, "put k a; get k z", []),
    (UNKNOWN, "put k a; get k a", []),
    (UNKNOWN, "put k a; get k a", [LIE._replace(landed_ns=0)]),
    (UNKNOWN, "put k a; get k a", [LIE._replace(fault="torn_write")]),
    (UNKNOWN, "put k a; get k a", [LIE._replace(landed_ns=50 * MS)]),
    (UNKNOWN, "put k a; put k b", [LIE]),
    (UNKNOWN, "read /big x", [LIE._replace(landed_ns=1)]),  # nobody knows what was right
]


@pytest.mark.parametrize(("expected", "text", "injections"), WRONG_DATA)
def test_wrong_data_seen(expected: Result, text: str, injections: list[Injection]) -> None:
    evidence = Evidence(history=ops(text), injections=injections)
    assert result("wrong_data_seen", evidence) is expected


# --- downloads ----------------------------------------------------------------------------------


def fetched(text: str) -> list[Operation]:
    """`aa; bb !; aa`: downloads, and the digest of what each brought."""
    return ops("; ".join(f"download u {each}" for each in text.split("; ")))


def test_a_download_that_fails_never_says_so_with_its_value() -> None:
    assert [(op.op, op.value, op.outcome) for op in fetched("aa; bb !")] == [
        ("download", "aa", OK),
        ("download", "bb", FAIL),
    ]


COMPLETE: list[tuple[Result, str, dict[str, str], dict[str, Any]]] = [
    (HELD, "aa; aa", {"c": "aa"}, {}),
    (HELD, "aa; aa", {"c": "aa"}, {"downloads": 2}),
    (BROKEN, "aa; bb", {"c": "aa"}, {}),
    (BROKEN, "bb; bb", {"c": "aa"}, {}),  # all the same, and wrong
    (BROKEN, "aa; aa !", {"c": "aa"}, {}),
    (BROKEN, "aa; aa ~", {"c": "aa"}, {}),
    (HELD, "aa; aa ?", {"c": "aa"}, {}),  # the power went
    (UNKNOWN, "aa ?", {"c": "aa"}, {}),
    (BROKEN, "aa !", {"c": "aa"}, {}),
    (UNKNOWN, "aa", {"c": "aa"}, {"downloads": 2}),
    (UNKNOWN, "aa; aa", {}, {}),
    (UNKNOWN, "aa; aa", {"other": "aa"}, {}),
]


@pytest.mark.parametrize(("expected", "text", "prepared", "params"), COMPLETE)
def test_downloads_complete(
    expected: Result, text: str, prepared: dict[str, str], params: dict[str, Any]
) -> None:
    evidence = Evidence(history=fetched(text), prepared=prepared)
    assert result("downloads_complete", evidence, **params) is expected


TWO = fetched("aa; aa")  # from 0 to 1 ms, and from 10 to 11
CAME = [Transfer("c", 0, "nic0", 4000, 64), Transfer("c", 1, "nic0", 4002, 64)]
ONE = Connection("nic0", 4000, MS // 10, MS - 5, 80)
OTHER = Connection("nic0", 4002, 10 * MS + 5, 11 * MS - 5, 80)
BOTH = [ONE, OTHER]
KILLED = Injection(0, "kill", "net", MS // 2, MS // 2)
SAME: list[tuple[Result, list[Transfer], list[Connection], dict[str, Any]]] = [
    (HELD, CAME, BOTH, {}),
    (HELD, CAME, BOTH, {"injections": [KILLED]}),
    # One that was opened while no download lasted is somebody else's.
    (HELD, CAME, [*BOTH, ONE._replace(port=5000, opened_ns=5 * MS)], {}),
    (HELD, CAME, [*BOTH, ONE._replace(port=5000, device="nic1")], {}),
    (BROKEN, CAME, [ONE], {}),
    (BROKEN, CAME, [], {}),
    (BROKEN, CAME, [*BOTH, ONE._replace(opened_ns=MS // 2)], {}),  # the port again
    (BROKEN, CAME, [*BOTH, ONE._replace(port=5000)], {}),  # another port
    (BROKEN, CAME, [ONE._replace(port=5000), OTHER], {}),
    (BROKEN, CAME, [ONE._replace(device="nic1"), OTHER], {}),
    (BROKEN, CAME, [ONE._replace(acked_bytes=63), OTHER], {}),  # the rest came otherwise
    (BROKEN, CAME, [ONE._replace(opened_ns=-MS), OTHER], {}),  # it was there before
    (BROKEN, CAME, [ONE], {"injections": [KILLED]}),
    (UNKNOWN, CAME[:1], BOTH, {}),
    (UNKNOWN, CAME, BOTH, {"injections": [KILLED._replace(landed_ns=0)]}),
    (UNKNOWN, CAME, BOTH, {"injections": [KILLED._replace(landed_ns=5 * MS)]}),
    (UNKNOWN, CAME, BOTH, {"unheard": "the capture lacks 3 frames"}),
    (UNKNOWN, CAME, [], {"unheard": "nobody has noted the frames"}),
    (UNKNOWN, CAME, BOTH, {"history": fetched("aa !; aa ~")}),
]


@pytest.mark.parametrize(("expected", "transfers", "connections", "more"), SAME)
def test_same_connection(
    expected: Result, transfers: list[Transfer], connections: list[Connection], more: dict[str, Any]
) -> None:
    evidence = Evidence(history=TWO, transfers=transfers, connections=connections, unheard="")
    assert result("same_connection", replace(evidence, **more)) is expected


def test_it_is_told_how_much_a_connection_outlived() -> None:
    moments = (MS // 2, MS // 3, 10 * MS + 9, 5 * MS)  # the last is between them
    again = [KILLED._replace(number=n, landed_ns=at) for n, at in enumerate(moments)]
    evidence = Evidence(history=TWO, transfers=CAME, connections=BOTH, unheard="", injections=again)
    verdict = check("same_connection", evidence)
    assert verdict.why == (
        "2 downloads, 2 connections; 3 faults while one was open, at most 2 in one"
    )
