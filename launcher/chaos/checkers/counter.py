"""counter: nothing was added twice, and nothing that was acknowledged is missing.

What a number holds beyond its acknowledged additions is its surplus. It can only be made of
additions in doubt (INFO, or OPEN), each once, and it never shrinks. The value of an `add` is its
amount, `3`, or amount and answer, `3=17`; of a `number` it is what was read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from launcher.chaos.checkers.common import Params, judged
from launcher.chaos.checkers.register import of_keys
from launcher.chaos.evidence import FAIL, OK, Evidence, Operation, Verdict
from launcher.words import count

ADD, NUMBER = "add", "number"
ANSWERED = "="  # between amount and answer
MAX_SUMS = 1 << 16  # beyond it only the bounds of a surplus are looked at


class Counter:
    """One number, as far as its history explains it."""

    def __init__(self) -> None:
        self.acked = 0  # the sum of the acknowledged amounts
        self.doubtful = 0  # the sum of those in doubt
        self.sums: set[int] | None = {0}  # what can be made of those in doubt
        self.surplus = 0  # the largest that was seen
        self.lasting = 0  # the largest that an acknowledged addition was answered

    def add(self, amount: int, outcome: str) -> None:
        """Somebody added; of its answer, when there was one, see `see`."""
        if outcome == OK:
            self.acked += amount
        elif outcome != FAIL:
            self.doubtful += amount
            if self.sums is not None:
                self.sums = self.sums | {each + amount for each in self.sums}
                self.sums = self.sums if len(self.sums) <= MAX_SUMS else None

    def see(self, seen: str, least: int) -> str:
        """What is wrong with seeing this now, when the surplus had been `least` before."""
        if not is_number(seen):
            return f"{seen!r}, which is no number"
        surplus = int(seen) - self.acked
        bounds = f"acknowledged are {self.acked}, in doubt {self.doubtful}"
        if surplus < 0:
            return f"{seen}: something is lost; {bounds}"
        if surplus > self.doubtful or (self.sums is not None and surplus not in self.sums):
            return f"{seen}: something was added twice; {bounds}"
        if surplus < least:
            return f"{seen}, and what made it {self.acked + least} is gone again; {bounds}"
        self.surplus = max(self.surplus, surplus)
        return ""

    def see_now(self, seen: str) -> str:
        return self.see(seen, self.surplus)

    def see_after_power_cut(self, seen: str) -> str:
        """What was seen, but in no answer to an addition, may be gone again."""
        return self.see(seen, self.lasting)


def no_duplicate_effect(evidence: Evidence, params: Params) -> Verdict:
    """Every number, and every answer to an `add`, is the sum of the acknowledged amounts so far
    and of some of those in doubt; both at the end and after a reboot."""
    operations = of_keys(evidence.history, frozenset((ADD, NUMBER)))
    added = {key: ops for key, ops in operations.items() if any(op.op == ADD for op in ops)}
    unclear = {key: why for key, ops in added.items() if (why := _unclear(ops))}
    replayed = {key: _replay(ops) for key, ops in added.items() if key not in unclear}
    counters = {key: counter for key, (counter, _) in replayed.items()}
    unknown = [f"{key}: {why}" for key, why in unclear.items()]
    broken = [why for _, wrong in replayed.values() for why in wrong]
    broken += _compared(evidence.found, counters, Counter.see_now, "at the end")
    if (after := evidence.found_after_reboot) is not None:
        broken += _compared(after, counters, Counter.see_after_power_cut, "after the reboot")
    figures = _figures(added, counters)
    if not figures["acked"]:
        unknown.append("no addition was acknowledged")
    text = (
        f"{count(figures['numbers'], 'number')}, {count(figures['acked'], 'acknowledged addition')}"
        f", {figures['in_doubt']} in doubt"
    )
    return judged("no_duplicate_effect", text, broken, unknown, figures)


def is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _amount_and_answer(op: Operation) -> tuple[str, str]:
    amount, _, answer = op.value.partition(ANSWERED)
    return (amount, answer) if op.op == ADD else ("0", op.value)


def _unclear(operations: Sequence[Operation]) -> str:
    """Why nothing can be said of a number."""
    if len({op.client for op in operations}) > 1:
        return "several clients use it, so their order is not known"
    odd = [op for op in operations if not is_number(_amount_and_answer(op)[0])]
    return f"{odd[0].op} {odd[0].number} of {odd[0].client} has no amount" if odd else ""


def _replay(operations: Sequence[Operation]) -> tuple[Counter, list[str]]:
    """The number after its whole history, and every answer that could not be."""
    counter, wrong = Counter(), []
    for op in operations:
        amount, answer = _amount_and_answer(op)
        if op.op == ADD:
            counter.add(int(amount), op.outcome)
        if op.outcome != OK or not answer:
            continue
        if why := counter.see_now(answer):
            wrong.append(f"{op.key}: {op.op} {op.number} of {op.client} was answered {why}")
        elif op.op == ADD:
            counter.lasting = counter.surplus
    return counter, wrong


def _compared(
    found: Mapping[str, str],
    counters: Mapping[str, Counter],
    look: Callable[[Counter, str], str],
    when: str,
) -> Iterator[str]:
    for key, counter in counters.items():
        if why := look(counter, found.get(key, "0")):
            yield f"{key}: {when} there is {why}"


def _figures(
    added: Mapping[str, Sequence[Operation]], counters: Mapping[str, Counter]
) -> dict[str, int]:
    adds = [op for ops in added.values() for op in ops if op.op == ADD]
    outcomes = [op.outcome for op in adds]
    acked, failed = outcomes.count(OK), outcomes.count(FAIL)
    return {
        "numbers": len(added),
        "acked": acked,
        "failed": failed,
        "in_doubt": len(adds) - acked - failed,
        "answers": sum(op.outcome == OK and ANSWERED in op.value for op in adds),
        "acked_sum": sum(counter.acked for counter in counters.values()),
        "doubtful_sum": sum(counter.doubtful for counter in counters.values()),
    }
