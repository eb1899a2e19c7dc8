"""guests: what ran in virtual machines ran on, on time, and saw nothing wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from launcher.chaos import console, pulse
from launcher.chaos.checkers.common import Params, judged
from launcher.chaos.evidence import OK, Evidence, Health, Line, Operation, Verdict
from launcher.chaos.pulse import TICK_MS, Pulse
from launcher.words import count
from ukernel.abi.vm import RUNNING

DIGITS = 2  # of milliseconds
DATAGRAM = "datagram"


def guest_gap(evidence: Evidence, params: Params) -> Verdict:
    """The longest gaps of a bystander's heartbeat under faults are at most `times` (1.5) those of
    as long a time before them, in the same run: from tick to tick, and from line to line. No line
    and no tick is missing or comes twice, and the guest did not stand still."""
    times = params.get("times", 1.5)
    broken, unknown, told, figures = [], [], list[str](), {}
    for client, lines in console.by_client(evidence.lines).items():
        beats = console.beats(lines)
        if client not in evidence.bystanders or not beats:
            continue
        calm = pulse.measured(pulse.calm(evidence, beats))
        under = pulse.measured(pulse.disturbed(evidence, beats))
        machine = lines[0].machine
        if calm is None or under is None:
            unknown.append(f"{machine}: too few beats to compare")
            continue
        longest_ms = times * calm.tick_gap_ms
        wrong = [*_longer(calm, under, times), *_lacking(under, longest_ms)]
        wrong += [f"{each}, before the first fault" for each in _lacking(calm, longest_ms)]
        broken += [f"{machine} {each}" for each in wrong]
        told.append(f"{machine}: {_compared(calm, under)}")
        figures[machine] = {"calm": _rounded(calm), "disturbed": _rounded(under)}
    if not told:
        unknown.append("no bystander with a heartbeat was seen long enough")
    if not any(each.landed_ns for each in evidence.injections):
        unknown.append("no fault landed")
    return judged("guest_gap", "; ".join(told), broken, unknown, figures)


def _compared(calm: Pulse, under: Pulse) -> str:
    return (
        f"longest gap between ticks {under.tick_gap_ms:.1f} ms, before {calm.tick_gap_ms:.1f}; "
        f"between lines {under.line_gap_ms:.1f}, before {calm.line_gap_ms:.1f}; "
        f"{count(under.lines, 'line')} in {under.host_ms / 1e3:.1f} s, before {calm.lines}"
    )


def _longer(calm: Pulse, under: Pulse, times: float) -> Iterator[str]:
    """Gaps that are longer than they may be."""
    for what, now_ms, before_ms in (
        ("ticks", under.tick_gap_ms, calm.tick_gap_ms),
        ("lines", under.line_gap_ms, calm.line_gap_ms),
    ):
        if now_ms > times * before_ms:
            yield (
                f"had {now_ms:.1f} ms between two {what}, more than {times:g} times {before_ms:.1f}"
            )


def _lacking(found: Pulse, longest_ms: float) -> Iterator[str]:
    """What a heartbeat has missed. The guest may stand still for as long as a gap between ticks may
    be, and be behind with the ticks of one. After a gap two lines may come at once, and the stretch
    begin or end between them: one more or less than there are ticks for is none."""
    if found.back or found.repeated > 1:
        yield f"said {count(max(found.back, found.repeated), 'line')} again: it went back"
    if found.missing_lines > 1:
        yield f"did not say {count(found.missing_lines, 'line')}"
    if found.missing_ticks > 1 + longest_ms / TICK_MS:
        yield f"did not count {count(found.missing_ticks, 'tick')}"
    if found.behind_ms > longest_ms:
        yield f"stood still for {found.behind_ms:.1f} ms, which its own clock does not show"


def _rounded(found: Pulse) -> dict[str, float]:
    return {name: round(value, DIGITS) for name, value in found._asdict().items()}


class _Guest(NamedTuple):
    """What there is to say of one guest that somebody has looked at."""

    machine: str
    deaths: int  # of its monitor
    broken: list[str]
    unknown: list[str]
    figures: dict[str, int]


def guests_right(evidence: Evidence, params: Params) -> Verdict:
    """The guests ran all the time, did nothing wrong and were never reset; they have shown nothing
    but what they show when all is right: no wrong byte, no error. What a guest says whose own
    monitor has died is not judged: its disk did not go back with its memory. A datagram that was
    answered came back as it was sent."""
    machines = {line.client: line.machine for line in evidence.lines}
    machines |= {health.client: health.machine for health in evidence.health}
    every = [_guest(evidence, client, machine) for client, machine in machines.items()]
    whole = [guest for guest in every if not guest.deaths]
    unknown = [why for guest in every for why in guest.unknown]
    if not whole:
        unknown.append("no guest was seen whose monitor lived")
    lines = count(sum(guest.figures["lines"] for guest in whole), "line")
    checks = count(sum(guest.figures["passes"] for guest in whole), "check")
    text = f"{count(len(whole), 'guest')}, {lines}, {checks} of a whole disk"
    datagrams = [op for op in evidence.history if op.op == DATAGRAM and op.outcome == OK]
    if datagrams:
        text += f", {count(len(datagrams), 'datagram')} answered"
    if killed := [guest.machine for guest in every if guest.deaths]:
        text += f"; {', '.join(killed)} by its faults only, for its monitor died"
    return judged(
        "guests_right",
        text,
        [*(why for guest in every for why in guest.broken), *_changed(datagrams)],
        unknown,
        {guest.machine: guest.figures for guest in every},
    )


def _guest(evidence: Evidence, client: str, machine: str) -> _Guest:
    shown = [each for each in evidence.lines if each.client == client]
    health = [each for each in evidence.health if each.client == client]
    deaths = sum(repair.server == machine for repair in evidence.recoveries)
    passes = console.passes(shown)
    broken, unknown = [*_unwell(health)], [] if health else ["was not asked how it is"]
    if not deaths:
        broken += [f"says {text!r}" for text in _complaints(shown)]
        unknown += _unseen(evidence, shown)
    figures = {
        "deaths": deaths,
        "lines": len(shown),
        "passes": len(passes),
        "wrong_bytes": max((each.wrong for each in passes), default=0),
        "errors": max((each.errors for each in passes), default=0),
    }
    wrong, unseen = ([f"{machine} {why}" for why in some] for some in (broken, unknown))
    return _Guest(machine, deaths, wrong, unseen, figures)


def _changed(datagrams: Sequence[Operation]) -> Iterator[str]:
    """Those that came back as other bytes."""
    for op in datagrams:
        if op.key != f"{op.client}.{op.value}":
            yield f"{op.op} {op.number} of {op.client} came back as other bytes"


def _unwell(health: Sequence[Health]) -> Iterator[str]:
    """What its monitor says of a guest that is not well."""
    for each in health:
        if each.state != RUNNING:
            yield f"was {each.state}"
        if each.faults:
            yield f"did {count(each.faults, 'thing')} that no guest may"
        if each.resets:
            yield f"was reset, {count(each.resets, 'time')}"


def _complaints(shown: Sequence[Line]) -> Iterator[str]:
    """Lines that do not belong to a guest that finds all right."""
    if guest := console.kind(shown):
        right = console.RIGHT[guest]
        yield from (line.text for line in shown if not right.fullmatch(line.text))


def _unseen(evidence: Evidence, shown: Sequence[Line]) -> Iterator[str]:
    """Why nobody can say that a guest found all right."""
    guest = console.kind(shown)
    if guest is None:
        yield f"begins with {shown[0].text!r}, which nobody knows" if shown else "has shown nothing"
    done = [each for each in console.passes(shown) if each.at_ns >= evidence.begun_ns]
    if guest == "diskcheck" and len(done) < 2:  # the first of them began before
        yield "has not checked its whole disk since the first fault"
