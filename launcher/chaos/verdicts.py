"""verdicts: what the checkers of an experiment say of its evidence. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from launcher.chaos.checkers import CHECKERS
from launcher.chaos.checks import AckedWritesDurable, Checker, MinLanded, NoDuplicateEffect
from launcher.chaos.evidence import Evidence, Result, Verdict

READ_BACK = (AckedWritesDurable, NoDuplicateEffect)  # they compare with what is there in the end


def verdicts(checkers: Sequence[Checker], evidence: Evidence, unseen: str) -> Iterator[Verdict]:
    """Of each checker that is asked. `unseen`: why nobody could look at what is there in the end;
    what is not looked at is not lost."""
    for checker in asked(checkers, evidence):
        if unseen and isinstance(checker, READ_BACK):
            yield Verdict(checker.checker, Result.UNKNOWN, f"nobody could look: {unseen}")
        else:
            yield CHECKERS[checker.checker](evidence, checker.parameters())


def asked(checkers: Sequence[Checker], evidence: Evidence) -> Iterator[Checker]:
    """Those of the experiment; a fault that never landed makes every run invalid."""
    yield from checkers
    landed = all(injection.landed_ns for injection in evidence.injections)
    if not landed and not any(isinstance(checker, MinLanded) for checker in checkers):
        yield MinLanded(checker="min_landed")
