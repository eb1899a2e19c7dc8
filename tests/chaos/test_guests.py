"""What is said of guests beside the victims: right ones pass, and each that is not is caught."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from launcher.chaos import sides
from launcher.chaos.evidence import (
    INFO,
    OK,
    Blast,
    Evidence,
    Health,
    Injection,
    Line,
    Operation,
    Recovery,
)
from launcher.chaos.pulse import measured
from tests.chaos.test_checkers import BROKEN, HELD, MS, UNKNOWN, check, result

FIRST_FAULT_MS = 4000
LINES = 75  # of 100 ms
BOOT_MS = 250.0  # of the guest, by the clock of the host
SEEN_MS = 2.0  # after it was said

Said = dict[str, float]
Change = Callable[[int, Said], Said | None]


def as_it_was(number: int, said: Said) -> Said:
    return said


def heartbeat(change: Change = as_it_was, client: str = "pulse") -> list[Line]:
    """Of a guest that is always on time, but for what `change` makes of a line; None: not said."""
    lines = []
    for number in range(LINES):
        guest_ms = 100.0 * (number + 1) + 0.4
        said = {"at": BOOT_MS + guest_ms + SEEN_MS, "count": 10 * (number + 1), "guest": guest_ms}
        if (told := change(number, {**said, "late": 4.0})) is not None:
            at, count, guest, late = (told[key] for key in ("at", "count", "guest", "late"))
            text = f"heartbeat {count:.0f} {guest * 10_000:.0f} {late * 1000:.0f}"
            lines.append(Line(client, "vm-a", int(at * MS), text))
    return lines


def died(server: str, at_ms: int = FIRST_FAULT_MS + 1) -> Recovery:
    return Recovery(server, 1, "killed by SIGKILL", True, *[at_ms * MS] * 7)


def evidence(lines: Sequence[Line] = (), **more: Any) -> Evidence:
    """Of a run of 8 s, the first fault in the middle."""
    made = Evidence(
        placement="micro",
        calm_ns=300 * MS,
        begun_ns=FIRST_FAULT_MS * MS,
        ended_ns=8000 * MS,
        injections=[Injection(0, "kill", "nic", 1, (FIRST_FAULT_MS + 1) * MS)],
        recoveries=[died("nic")],
        lines=lines or heartbeat(),
        health=[Health("pulse", "vm-a", 5000 * MS, "running", 0, 0)],
        bystanders=("pulse",),
    )
    return replace(made, **more)


def at(number: int, since: bool = False, **more: float) -> Change:
    """Add to what is said in one line, or `since` it."""

    def change(n: int, said: Said) -> Said:
        hit = n == number or (since and n > number)
        return {key: value + (more.get(key, 0) if hit else 0) for key, value in said.items()}

    return change


def both(one: Change, other: Change) -> Change:
    def change(n: int, said: Said) -> Said | None:
        told = one(n, said)
        return None if told is None else other(n, told)

    return change


EARLY, LATE = 20, 60  # lines before the first fault, and after it

# --- guest_gap ------------------------------------------------------------------------------------


def test_a_guest_that_is_on_time() -> None:
    verdict = check("guest_gap", evidence())
    assert verdict.result is HELD
    assert verdict.why == (
        "vm-a: longest gap between ticks 14.0 ms, before 14.0; between lines 100.0, before 100.0;"
        " 39 lines in 3.8 s, before 37"
    )
    assert verdict.figures["vm-a"]["disturbed"]["behind_ms"] == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (at(LATE, late=8), "22.0 ms between two ticks, more than 1.5 times 14.0"),
        (at(LATE, guest=51, at=51), "151.0 ms between two lines, more than 1.5 times 100.0"),
        (lambda n, said: None if n == LATE else said, "200.0 ms between two lines"),
        (at(LATE, since=True, at=22), "stood still for 22.0 ms"),
        (at(EARLY, since=True, at=22), "stood still for 22.0 ms, which its own clock does not sh"),
        (at(LATE, since=True, count=-6), "did not count 5 ticks"),
        (at(LATE, count=-20), "said 1 line again: it went back"),
        (at(LATE, since=True, count=-50), "said 5 lines again: it went back"),
    ],
    ids=["tick", "line", "no line", "froze", "froze before", "lost ticks", "back once", "back"],
)
def test_a_guest_that_is_not(change: Change, why: str) -> None:
    verdict = check("guest_gap", evidence(heartbeat(change)))
    assert verdict.result is BROKEN
    assert why in " ".join(verdict.figures["wrong"])


def test_late_is_what_is_later_than_before() -> None:
    slow = evidence(heartbeat(both(at(EARLY, late=8), at(LATE, late=8))))
    assert result("guest_gap", slow) is HELD
    before = evidence(heartbeat(at(EARLY, late=30, guest=40, at=40)))
    assert result("guest_gap", before) is HELD
    assert result("guest_gap", evidence(heartbeat(at(LATE, late=8))), times=2.0) is HELD


def test_two_lines_at_once_after_a_gap_are_not_the_same_line_twice() -> None:
    both_at_once = evidence(heartbeat(at(LATE, count=10, guest=95, at=95)))
    assert result("guest_gap", both_at_once, times=2.0) is HELD


def test_only_as_long_a_time_before_counts() -> None:
    """A longer one has the longer gaps."""
    late = evidence(heartbeat(both(at(EARLY, late=30), at(LATE, late=8))))
    assert result("guest_gap", late) is HELD
    short = [line for line in late.lines if line.at_ns < (FIRST_FAULT_MS + 800) * MS]
    short += [Line("pulse", "vm-a", short[-1].at_ns + MS, heartbeat(at(LATE, late=8))[LATE].text)]
    assert result("guest_gap", replace(late, lines=short)) is BROKEN


@pytest.mark.parametrize(
    "changes",
    [
        {"calm_ns": 0},
        {"injections": []},
        {"injections": [Injection(0, "kill", "nic", 1, 0)]},
        {"bystanders": ()},
        {"lines": heartbeat()[:1]},
        {"lines": heartbeat()[:EARLY]},
        {"lines": [Line("pulse", "vm-a", 5000 * MS, "diskcheck of 8 sectors")]},
    ],
    ids=["not calm", "no fault", "missed", "no bystander", "a line", "none after", "no heartbeat"],
)
def test_what_nobody_can_say_of_a_gap(changes: dict[str, Any]) -> None:
    assert result("guest_gap", replace(evidence(), **changes)) is UNKNOWN


# --- guests_right ---------------------------------------------------------------------------------

CHECKED = "diskcheck 7 sectors 8 wrong 0 errors 0"


def disk(*said: str, client: str = "other") -> Evidence:
    """Of a second guest, after the first fault."""
    texts = ["diskcheck of 8 sectors", *said]
    lines = [
        Line(client, "vm-b", (FIRST_FAULT_MS + 100 * n) * MS, text) for n, text in enumerate(texts)
    ]
    health = [Health(client, "vm-b", 5000 * MS, "running", 0, 0)]
    whole = evidence()
    return replace(whole, lines=[*whole.lines, *lines], health=[*whole.health, *health])


def test_guests_that_find_all_right() -> None:
    verdict = check("guests_right", disk(CHECKED, CHECKED))
    assert verdict.result is HELD
    assert verdict.why == "2 guests, 78 lines, 2 checks of a whole disk"
    sent = Operation("d", 0, "datagram", "d.ab", 1, 2, OK, "ab")
    lost = sent._replace(number=1, outcome=INFO)
    talk = replace(disk(CHECKED, CHECKED), history=[sent, lost])
    assert check("guests_right", talk).why.endswith("a whole disk, 1 datagram answered")
    other = replace(talk, history=[sent, sent._replace(number=1, value="ac"), lost])
    assert check("guests_right", other).figures["wrong"] == [
        "datagram 1 of d came back as other bytes"
    ]
    ping = [
        Line("n", "vm-n", 1, "netping at 10.0.0.9"),
        Line("n", "vm-n", 2, "netping: 8 answered"),
    ]
    health = [Health("n", "vm-n", 2, "running", 0, 0)]
    assert result("guests_right", Evidence(begun_ns=1, lines=ping, health=health)) is HELD


@pytest.mark.parametrize(
    "said",
    [
        "diskcheck 8 sectors 8 wrong 1 errors 0",
        "diskcheck 8 sectors 8 wrong 0 errors 1",
        "diskcheck: the read of sector 7 ended with status 1",
        "exception 5 at 80000000, value 0",
        "diskcheck 8 sec",
        "heartbeat 10 1000000 5",
        "",
    ],
)
def test_a_guest_that_complains_is_heard(said: str) -> None:
    whole = disk(CHECKED, CHECKED, said)
    verdict = check("guests_right", whole)
    assert verdict.result is BROKEN
    assert verdict.figures["wrong"] == [f"vm-b says {said!r}"]
    own = replace(whole, recoveries=[*whole.recoveries, died("vm-b")])
    assert check("guests_right", own).why == (
        "1 guest, 75 lines, 0 checks of a whole disk; vm-b by its faults only, for its monitor died"
    )


@pytest.mark.parametrize(
    ("state", "faults", "resets", "why"),
    [
        ("paused", 0, 0, "was paused"),
        ("halted", 0, 0, "was halted"),
        ("running", 2, 0, "did 2 things that no guest may"),
        ("running", 0, 1, "was reset, 1 time"),
    ],
)
@pytest.mark.parametrize("deaths", [[], [died("vm-a")]], ids=["", "died"])
def test_a_guest_that_is_not_well_is_seen(
    state: str, faults: int, resets: int, why: str, deaths: list[Recovery]
) -> None:
    health = [*evidence().health, Health("pulse", "vm-a", 6000 * MS, state, faults, resets)]
    verdict = check("guests_right", evidence(health=health, recoveries=deaths))
    assert verdict.result is BROKEN
    assert verdict.figures["wrong"] == [f"vm-a {why}"]


@pytest.mark.parametrize(
    "unclear",
    [
        disk(CHECKED),  # it may have been before the first fault
        disk(),
        replace(disk(CHECKED, CHECKED), lines=[]),
        evidence([Line("pulse", "vm-a", 5000 * MS, "Linux version 6.12")]),
        evidence(recoveries=[died("vm-a")]),
        evidence(health=[]),
    ],
    ids=["one check", "no check", "silent", "a stranger", "nobody lived", "no status"],
)
def test_what_nobody_can_say_of_a_guest(unclear: Evidence) -> None:
    assert result("guests_right", unclear) is UNKNOWN


# --- beside_dies ----------------------------------------------------------------------------------

EVERY = ("nic", "disk", "vm-a")


def beside(**changes: Any) -> Evidence:
    found = replace(
        evidence(heartbeat(at(LATE, since=True, count=-50, at=120, guest=-500))),
        placement="mono",
        calm_ns=0,
        recoveries=[died(name) for name in EVERY],
        predicted=Blast(EVERY, (), ("app",)),
        observed=Blast(EVERY, (), ("machine", "app")),
    )
    return evidence(beside=replace(found, **changes))


def test_one_kill_that_ends_them_all() -> None:
    verdict = check("beside_dies", beside())
    assert verdict.result is HELD
    assert verdict.why == "1 kill under mono ended 3 servers"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"observed": Blast(("nic", "vm-a"), (), ("disk",))}, "disk outlived it"),
        ({"observed": Blast(("nic", "disk"), (), ("vm-a",))}, "vm-a outlived it"),
        (
            {
                "predicted": Blast(("nic", "disk"), (), ("vm-a",)),
                "observed": Blast(("nic", "disk"), (), ("vm-a",)),
            },
            "vm-a is in another process, and lives",
        ),
        (
            {
                "predicted": Blast(("nic",), (), ()),
                "observed": Blast(("nic",), (), ()),
                "health": [],
            },
            "nobody died but nic",
        ),
    ],
    ids=["a driver", "a guest", "a guest elsewhere", "nobody else"],
)
def test_one_that_does_not(changes: dict[str, Any], why: str) -> None:
    verdict = check("beside_dies", beside(**changes))
    assert verdict.result is BROKEN
    assert why in verdict.figures["wrong"]


@pytest.mark.parametrize(
    "unclear",
    [
        evidence(),
        beside(observed=None),
        beside(injections=[Injection(0, "kill", "nic", 1, 0, detail="nic had been given up")]),
        beside(recoveries=[died("disk", FIRST_FAULT_MS - 1)]),
    ],
    ids=["nothing beside", "not seen", "no kill", "dead before"],
)
def test_what_nobody_can_say_of_it(unclear: Evidence) -> None:
    assert result("beside_dies", unclear) is UNKNOWN


# --- figures --------------------------------------------------------------------------------------


def test_side_by_side() -> None:
    found = sides.sides(beside())
    assert sides.columns(found) == ["", "micro", "mono"]
    assert {name: tuple(each) for name, *each in sides.rows(found)} == {
        "faults that landed": ("1", "1"),
        "processes that died": ("1", "1"),
        "servers that died": ("1", "3"),
        "vm-a: lives lost": ("0", "1"),
        "vm-a: longest gap as seen, ms": ("100.0", "220.0"),
        "vm-a: time lost, ms": ("0.0", "620.0"),
        "vm-a: lines said again": ("0", "5"),
    }
    assert sides.compared(found)["mono"]["vm-a: lines said again"] == "5"
    assert sides.sides(evidence()) == []
    assert sides.compared([]) == {}


def test_a_pulse_needs_two_lines() -> None:
    assert measured([]) is None
