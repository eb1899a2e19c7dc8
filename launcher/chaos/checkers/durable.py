"""durable: what was acknowledged is there, what failed is not, and no read says otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from launcher.chaos.checkers.common import Params, judged
from launcher.chaos.checkers.register import (
    CHANGES,
    NOTHING,
    READS,
    Register,
    is_changed,
    is_shared,
    of_keys,
    replay,
    seen_by,
    show,
)
from launcher.chaos.evidence import FAIL, OK, Evidence, Injection, Operation, Verdict
from launcher.words import count
from ukernel.abi.faults import WRONG_DATA

Look = Callable[[Register, str], str]
EMPTY = (NOTHING, "0")  # what a verification says of a place that is there and holds nothing


def acked_writes_durable(evidence: Evidence, params: Params) -> Verdict:
    """Per key: what is found at the end is what its last acknowledged change left, or a change in
    doubt (INFO) that was begun after it; and every read saw what could be there at its time."""
    operations = of_keys(evidence.history, CHANGES | READS)
    unknown = [
        f"{key}: several clients use it and one of them changes it"
        for key, ops in operations.items()
        if is_shared(ops)
    ]
    replayed = {key: replay(ops) for key, ops in operations.items() if not is_shared(ops)}
    registers = {key: register for key, (register, _) in replayed.items()}
    broken = [why for _, wrong in replayed.values() for why in wrong]
    broken += _compared(evidence, evidence.found, registers, Register.see, "at the end")
    if (after := evidence.found_after_reboot) is not None:
        look = Register.see_after_power_cut
        broken += _compared(evidence, after, registers, look, "after the reboot")
    figures = _figures(operations)
    if not figures["acked"]:
        unknown.append("no change was acknowledged")
    text = (
        f"{count(figures['keys'], 'key')}, {count(figures['acked'], 'acknowledged change')}, "
        f"{figures['in_doubt']} in doubt, {count(figures['reads'], 'read')}"
    )
    return judged("acked_writes_durable", text, broken, unknown, figures)


def _compared(
    evidence: Evidence,
    found: Mapping[str, str],
    registers: Mapping[str, Register],
    look: Look,
    when: str,
) -> Iterator[str]:
    """What is wrong with what was found. Who never changes a key need not look for it."""
    for key, register in registers.items():
        looked_for = register.changed or key in found
        if looked_for and (why := look(register, found.get(key, NOTHING))):
            yield f"{key}: {when} there is {why}"
    named = {op.key for op in evidence.history}
    for key, value in found.items():
        if key not in named and value not in EMPTY:
            yield f"{key}: {when} there is {show(value)}, and nobody had named the key"


def _figures(operations: Mapping[str, Sequence[Operation]]) -> dict[str, int]:
    every = [op for ops in operations.values() for op in ops]
    outcomes = [op.outcome for op in every if op.op in CHANGES]
    acked, failed = outcomes.count(OK), outcomes.count(FAIL)
    return {
        "keys": len(operations),
        "acked": acked,
        "failed": failed,
        "in_doubt": len(outcomes) - acked - failed,
        "reads": sum(len(seen_by(op)) for op in every),
    }


def wrong_data_seen(evidence: Evidence, params: Params) -> Verdict:
    """No read returned other data than was written, although the device gave some: whoever
    noticed it failed instead, which is right."""
    landed = [i.landed_ns for i in evidence.injections if _is_wrong_data(i) and i.landed_ns]
    told = [op for op in evidence.history if op.op in CHANGES or op.outcome == OK]
    operations = of_keys(told, CHANGES | READS)
    broken = [why for ops in operations.values() if not is_shared(ops) for why in replay(ops)[1]]
    since = [op for op in _comparable(evidence) if landed and op.ended_ns >= min(landed)]
    answered = sum(op.outcome == OK for op in since)
    unknown = [] if landed else [f"no {WRONG_DATA} landed"]
    unknown += [] if since or not landed else ["nobody has read since, and knew what was written"]
    figures = {"landed": len(landed), "answered": answered, "refused": len(since) - answered}
    text = f"{len(landed)} {WRONG_DATA} landed; since then {count(answered, 'read')} answered, "
    text += f"{figures['refused']} refused"
    return judged("wrong_data_seen", text, broken, unknown, figures)


def _is_wrong_data(injection: Injection) -> bool:
    return WRONG_DATA in (injection.fault, *injection.detail.split())


def _comparable(evidence: Evidence) -> Iterator[Operation]:
    """Reads whose right answer is known: of a key that nobody changes, not the first."""
    for ops in of_keys(evidence.history, CHANGES | READS).values():
        if not is_shared(ops):
            reads = [op for op in ops if op.op in READS]
            yield from reads if is_changed(ops) else reads[1:]
