"""common: what the checkers share: how findings become a verdict, and samples become figures. Pure.

Parameters are those of `launcher.chaos.checks`, checked there; None, or none: not limited.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from launcher.bench.stats import percentile
from launcher.chaos.evidence import Evidence, Result, Verdict

Params = Mapping[str, Any]
Checker = Callable[[Evidence, Params], Verdict]

LISTED = 20  # findings in the figures; the sentence has the first
PARTS = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


def judged(
    checker: str,
    text: str,
    broken: Sequence[str],
    unknown: Sequence[str] = (),
    figures: Mapping[str, Any] | None = None,
) -> Verdict:
    """BROKEN when anything is wrong, else UNKNOWN when something cannot be told, else HELD.

    `text` says what was looked at; the first finding follows it.
    """
    result = Result.BROKEN if broken else Result.UNKNOWN if unknown else Result.HELD
    first, *others = [*(broken or unknown)] or [""]
    more = f" (and {len(others)} more)" if others else ""
    wrong = {"wrong": list(broken[:LISTED])} if broken else {}
    why = "; ".join(filter(None, (text, first))) + more
    return Verdict(checker, result, why, {**(figures or {}), **wrong})


def summary(samples: Sequence[float]) -> dict[str, float]:
    """n, p50, p90, p99 and max of samples; only n when there are none."""
    ordered = sorted(samples)
    parts = {name: round(percentile(ordered, part), 3) for name, part in PARTS.items() if ordered}
    return {"n": len(ordered), **parts}
