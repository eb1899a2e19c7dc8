"""probes: what does not hold of a steady state is said, and what nobody knows is not steady."""

from __future__ import annotations

from typing import Any, cast

import pytest
from pydantic import TypeAdapter

from launcher.chaos.checks import AnyProbe
from launcher.chaos.evidence import FAIL, INFO, OK, OPEN, Operation
from launcher.chaos.probes import wrong

MS = 1_000_000
NOBODY = cast(Any, None)  # these probes do not look at the system


def took(*times_ms: int, outcome: str = OK, client: str = "writer") -> list[Operation]:
    return [Operation(client, 0, "write", "/a", 0, ms * MS, outcome) for ms in times_ms]


def said(history: list[Operation], **keys: object) -> list[str]:
    probe = TypeAdapter(AnyProbe).validate_python({"client": "writer", **keys})
    return [*wrong(NOBODY, history, [probe])]


P99: dict[str, Any] = {"probe": "p99_ms", "max": 50}
ALL: dict[str, Any] = {"probe": "availability", "min": 1.0}


def test_a_client_that_is_fast_enough_and_always_answered_is_steady() -> None:
    history = took(*[1] * 98, 49, 49) + took(900, outcome=FAIL, client="other")
    assert said(history, **P99) == said(history, **ALL) == []


def test_a_slow_client_is_not() -> None:
    assert said(took(*[1] * 97, 51, 51, 51), **P99) == ["p99_ms: writer needs 51.0 ms, at most 50"]


@pytest.mark.parametrize("outcome", [FAIL, INFO])
def test_nor_is_one_that_is_not_answered(outcome: str) -> None:
    history = took(1, 1, 1) + took(1, outcome=outcome)
    assert said(history, **ALL) == ["availability: writer is answered 0.7500, at least 1"]
    assert said(history, **{**ALL, "min": 0.75}) == []


@pytest.mark.parametrize("probe", [P99, ALL])
def test_nor_is_one_that_has_done_nothing_or_is_still_at_it(probe: dict[str, Any]) -> None:
    for history in ([], took(0, outcome=OPEN), took(1, client="other")):
        assert said(history, **probe) == [f"{probe['probe']}: writer has done nothing yet"]
