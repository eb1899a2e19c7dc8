"""What an interposer does to messages is decided without a process and without a clock."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from servers.interposer.handles import Handles
from servers.interposer.link import Expire, Instruction, Link, Pass
from ukernel.abi import wire
from ukernel.abi.faults import CORRUPT, DELAY, DROP, DUPLICATE, MESSAGE_FAULTS, Landed, NoSuchFault

MS = 1_000_000
EVENTUALLY = 1 << 62


def request(number: int = 1, *, deadline_ns: int = 0, body: bytes = b"body") -> wire.Message:
    """A call as the kernel delivers it; the kernel's number tells it from the others."""
    return wire.Message(wire.DELIVER, 0, 1, 0, number, deadline_ns, wire.NO_TOKEN, (), body)


def oneway(number: int = 1) -> wire.Message:
    return request(number)._replace(flags=wire.ONEWAY)


def times(link: Link) -> dict[str, int]:
    return {row.fault: row.times for row in link.disturbed("here")}


def test_without_faults_everything_passes_at_once_as_it_is() -> None:
    link = Link()
    assert link.arrive(request(), 0) == [Pass(request(), True)]
    assert (link.due_ns, link.disturbed("here")) == (0, [])


def test_a_fault_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(NoSuchFault, match="'melt': a message knows drop, delay"):
        Link().disturb("melt", 1.0)


def test_probability_is_kept() -> None:
    link = Link()
    link.disturb(DUPLICATE, 0.3, seed=5)
    passed = [len(link.arrive(request(n), 0)) for n in range(10_000)]
    assert passed.count(2) == times(link)[DUPLICATE]
    assert 2_800 < passed.count(2) < 3_200


def test_a_dropped_call_is_lost_on_the_way_there_or_back_and_expires_at_its_deadline() -> None:
    link = Link()
    link.disturb(DROP, 1.0, seed=1)
    calls = [request(n, deadline_ns=n * MS) for n in range(1, 201)]
    passed = [what for call in calls for what in link.arrive(call, 0)]
    assert all(isinstance(what, Pass) and not what.heard for what in passed)
    assert 70 < len(passed) < 130  # the others are lost before they reach the callee
    assert link.due_ns == MS
    assert link.elapse(50 * MS) == [Expire(call) for call in calls[:50]]
    assert link.elapse(EVENTUALLY) == [Expire(call) for call in calls[50:]]
    assert (link.due_ns, times(link)) == (0, {DROP: 200})


def test_a_call_that_would_wait_for_ever_is_not_dropped() -> None:
    link = Link()
    link.disturb(DROP, 1.0)
    assert link.arrive(request(), 0) == [Pass(request(), True)]
    assert times(link) == {DROP: 0}


def test_of_a_dropped_send_nothing_is_left() -> None:
    link = Link()
    link.disturb(DROP, 1.0)
    assert [link.arrive(oneway(n), 0) for n in range(20)] == [[]] * 20
    assert (link.due_ns, times(link)) == (0, {DROP: 20})


def test_a_delayed_request_passes_when_its_time_has_come() -> None:
    link = Link()
    link.disturb(DELAY, 1.0, ms=20, jitter_ms=5, seed=3)
    due = []
    for n in range(100):
        assert link.arrive(request(n), 0) == []
        due.append(link.due_ns)
        assert link.elapse(link.due_ns - 1) == []
        assert link.elapse(link.due_ns) == [Pass(request(n), True)]
    assert 15 * MS <= min(due) < 16 * MS
    assert 24 * MS < max(due) <= 25 * MS


def test_jitter_never_lets_a_request_pass_before_it_came() -> None:
    link = Link()
    link.disturb(DELAY, 1.0, ms=1, jitter_ms=1000)
    for n in range(100):
        link.arrive(request(n), 7)
    assert link.due_ns >= 7


def test_what_is_delayed_beyond_its_deadline_is_never_passed_on() -> None:
    link = Link()
    link.disturb(DELAY, 1.0, ms=50)
    call = request(deadline_ns=10 * MS)
    assert link.arrive(call, 0) == []
    assert link.due_ns == 10 * MS
    assert link.elapse(10 * MS) == [Expire(call)]
    assert link.elapse(EVENTUALLY) == []


def test_of_a_duplicate_one_outcome_is_heard() -> None:
    link = Link()
    link.disturb(DUPLICATE, 1.0)
    assert link.arrive(request(), 0) == [Pass(request(), True), Pass(request(), False)]


@pytest.mark.parametrize("body", [b"\0", b"\0" * 7, b"\xff" * 1000])
def test_corruption_is_one_bit_of_the_body(body: bytes) -> None:
    link = Link()
    link.disturb(CORRUPT, 1.0, seed=2)
    for n in range(50):
        (what,) = link.arrive(request(n, body=body), 0)
        got, sent = what.request.body, int.from_bytes(body, "big")
        assert len(got) == len(body)
        assert (int.from_bytes(got, "big") ^ sent).bit_count() == 1
        assert what.request._replace(body=body) == request(n, body=body)


def test_where_there_is_no_bit_none_is_flipped() -> None:
    link = Link()
    link.disturb(CORRUPT, 1.0)
    assert link.arrive(request(body=b""), 0) == [Pass(request(body=b""), True)]
    assert times(link) == {CORRUPT: 0}


def test_the_same_seeds_do_the_same_and_others_do_not() -> None:
    def run(seed: int) -> list[list[Instruction]]:
        link = Link()
        for fault in MESSAGE_FAULTS:
            link.disturb(fault, 0.5, 10, 5, seed)
        return [
            [*link.arrive(request(n, deadline_ns=EVENTUALLY), n), *link.elapse(n)]
            for n in range(200)
        ]

    assert run(11) == run(11)
    assert run(11) != run(12)


def test_what_a_fault_does_depends_on_no_other_fault() -> None:
    def bodies(*others: str) -> list[bytes]:
        link = Link()
        for fault in (*others, CORRUPT):
            link.disturb(fault, 0.5, 10, 10, seed=9)
        passed = ([*link.arrive(request(n), 0), *link.elapse(EVENTUALLY)] for n in range(100))
        return [first.request.body for first, *_ in passed]

    assert bodies() == bodies(DUPLICATE) == bodies(DELAY, DUPLICATE)
    assert len(set(bodies())) > 10


def test_pass_all_ends_every_fault_and_passes_on_what_was_delayed() -> None:
    link = Link()
    link.disturb(DROP, 1.0)
    dropped = request(1, deadline_ns=5 * MS)
    link.arrive(dropped, 0)
    link.pass_all(0)
    link.disturb(DELAY, 1.0, ms=60_000)
    late, soon = request(2), request(3, deadline_ns=90 * MS)
    link.arrive(late, 0)
    link.arrive(soon, 0)
    assert link.pass_all(MS) == [Pass(soon, True), Pass(late, True)]
    assert link.arrive(request(4), MS) == [Pass(request(4), True)]
    assert link.elapse(EVENTUALLY) == [Expire(dropped)]
    assert times(link) == {DROP: 1, DELAY: 2}  # it is still known what has happened


def test_a_fault_that_is_planned_again_is_counted_anew() -> None:
    link = Link()
    link.disturb(DUPLICATE, 1.0)
    link.arrive(request(), 0)
    assert link.disturbed("a->b") == [Landed("a->b", DUPLICATE, 1)]
    link.disturb(DUPLICATE, 1.0)
    assert link.disturbed("a->b") == [Landed("a->b", DUPLICATE, 0)]


class Passing(RuleBasedStateMachine):
    """Whatever is in force, each call is answered once, and nothing passes after its deadline."""

    def __init__(self) -> None:
        super().__init__()
        self.link = Link()
        self.now = 1
        self.sent: list[wire.Message] = []
        self.passed: Counter[int] = Counter()
        self.answers: Counter[int] = Counter()

    def take(self, todo: list[Instruction]) -> None:
        for what in todo:
            number, deadline_ns = what.request.seq, what.request.deadline_ns
            if isinstance(what, Pass):
                assert not 0 < deadline_ns <= self.now
                self.passed[number] += 1
                self.answers[number] += what.heard
            else:
                assert deadline_ns <= self.now
                self.answers[number] += 1

    def arrive(self, message: wire.Message) -> None:
        self.sent.append(message)
        self.take(self.link.arrive(message, self.now))

    @rule(
        fault=st.sampled_from(MESSAGE_FAULTS),
        probability=st.sampled_from([0.0, 0.5, 1.0]),
        ms=st.integers(0, 30),
        seed=st.integers(0, 9),
    )
    def disturb(self, fault: str, probability: float, ms: int, seed: int) -> None:
        self.link.disturb(fault, probability, ms, ms, seed)

    @rule(patience=st.integers(0, 40 * MS))
    def call(self, patience: int) -> None:
        deadline_ns = self.now + patience if patience else 0
        self.arrive(request(len(self.sent), deadline_ns=deadline_ns))

    @rule()
    def send(self) -> None:
        self.arrive(oneway(len(self.sent)))

    @rule(ns=st.integers(1, 20 * MS))
    def wait(self, ns: int) -> None:
        self.now += ns
        self.take(self.link.elapse(self.now))
        assert not 0 < self.link.due_ns <= self.now

    @rule()
    def pass_all(self) -> None:
        self.take(self.link.pass_all(self.now))

    def teardown(self) -> None:
        self.wait(EVENTUALLY)
        assert self.link.due_ns == 0
        assert max(self.passed.values(), default=0) <= 2
        calls = {message.seq for message in self.sent if not message.flags & wire.ONEWAY}
        assert {number: self.answers[number] for number in calls} == dict.fromkeys(calls, 1)


TestPassing = Passing.TestCase
TestPassing.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def test_a_capability_is_kept_until_nothing_needs_it() -> None:
    handles = Handles(life=1)
    handles.keep(b"file")
    first, second = handles.fresh(), handles.fresh()
    handles.add(first, b"file")
    handles.keep(b"file")
    handles.add(second, b"file")
    assert first != second
    assert handles.token(first) == handles.token(second) == b"file"
    assert handles.forget(first) == b"file"
    assert not handles.let_go(b"file")
    assert handles.forget(second) == b"file"
    assert handles.let_go(b"file")
    assert (handles.token(first), handles.forget(first)) == (None, None)


def test_a_badge_of_an_earlier_life_stands_for_nothing_in_the_next() -> None:
    old, new = Handles(life=1), Handles(life=2)
    badges = [old.fresh() for _ in range(100)]
    assert not set(badges) & {new.fresh() for _ in range(100)}
