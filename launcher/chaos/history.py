"""history: what a workload's client wrote down, as operations. Nothing here starts anything.

A client appends one JSON object a line (see `servers.workload`): `{"n", "do": "begin", ...}`
before each call, `{"n", "do": "ok"|"fail"|"info", ...}` when its outcome is known, and single lines
of its own. Killed, it leaves its last line torn and its last operation OPEN; a client that is still
at work can be read as well. Any other damage raises ValueError, which names the line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from launcher.chaos.checkers.counter import ADD, ANSWERED
from launcher.chaos.evidence import FAIL, INFO, OK, OPEN, Operation

BEGIN = "begin"
OUTCOMES = (OK, FAIL, INFO)
BEGUN = {"n", "op", "key", "value", "at"}  # what a line that begins an operation has
ENDED = {"n", "value", "error", "at"}

Line = dict[str, Any]


class Moved(NamedTuple):
    """How far a bulk transfer was."""

    at_ns: int
    moved_bytes: int  # since its client began


def read(source: Path | str, client: str) -> list[Operation]:
    """The operations of `client` in the order in which it began them; `source` is a path or text.

    The value of an operation is what was answered, or else what it was to write; an `add` that was
    answered has both. Only the first outcome counts; how many there are is in `outcomes`, 0 for an
    OPEN one.
    """
    begun: dict[int, Line] = {}
    outcomes: dict[int, list[Line]] = {}
    for where, line in _lines(source):
        do, number = line.get("do"), line.get("n")
        if do is None:
            continue
        if do == BEGIN and number not in begun and line.keys() >= BEGUN:
            begun[line["n"]] = line
        elif do in OUTCOMES and number in begun and line.keys() >= ENDED:
            outcomes.setdefault(line["n"], []).append(line)
        else:
            raise ValueError(f"{where}: {do} of operation {number} of {client} is misplaced")
    return [_operation(client, line, outcomes.get(n, [])) for n, line in begun.items()]


def _operation(client: str, begun: Line, outcomes: list[Line]) -> Operation:
    first: Line = outcomes[0] if outcomes else {"do": OPEN, "at": 0}
    return Operation(
        client=client,
        number=begun["n"],
        op=begun["op"],
        key=begun["key"],
        begun_ns=begun["at"],
        ended_ns=first["at"],
        outcome=first["do"],
        value=_value(begun, first),
        error=first.get("error", ""),
        outcomes=len(outcomes),
    )


def _value(begun: Line, outcome: Line) -> str:
    said, answered = begun["value"], outcome.get("value", "")
    if begun["op"] == ADD and answered:
        return f"{said}{ANSWERED}{answered}"
    return str(answered or said)


def ended(source: Path | str) -> dict[str, int] | None:
    """The client's calls by what became of them: ok, retried, unknown, failed. None: it was cut
    off, or is still at work."""
    end: dict[str, int] | None = _last(source, "end")
    return end


def found(source: Path | str) -> dict[str, str] | None:
    """What `verify` found: key -> value. None: it could not look."""
    values: dict[str, str] | None = _last(source, "found")
    return values


def prepared(source: Path | str) -> str | None:
    """The SHA-256 of what `prepare` made. None: it did not."""
    digest: str | None = _last(source, "sha256")
    return digest


def moved(source: Path | str) -> list[Moved]:
    """The progress of a bulk transfer."""
    return [Moved(line["at"], line["moved"]) for _, line in _lines(source) if "moved" in line]


def shown(source: Path | str) -> list[tuple[int, str]]:
    """Each line that a guest has shown, and when it was seen."""
    return [(line["at"], line["line"]) for _, line in _lines(source) if "line" in line]


def health(source: Path | str) -> list[tuple[int, str, int, int]]:
    """What the statuses of a virtual machine have said: when, its state, faults, resets."""
    return [
        (line["at"], line["state"], line["faults"], line["resets"])
        for _, line in _lines(source)
        if "state" in line
    ]


def came(source: Path | str) -> dict[int, tuple[int, int]]:
    """Of each download by its number: the port that it came to, and how many bytes came."""
    return {
        line["n"]: (line["port"], line["bytes"]) for _, line in _lines(source) if "port" in line
    }


def _last(source: Path | str, key: str) -> Any:
    return next((line[key] for _, line in reversed([*_lines(source)]) if key in line), None)


def _lines(source: Path | str) -> Iterator[tuple[str, Line]]:
    """Each whole line and where it stands."""
    text, name = (source.read_text(), str(source)) if isinstance(source, Path) else (source, "line")
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            return  # torn: its writer was killed, or has not come to its end
        try:
            parsed = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{name}:{number}: {error}") from None
        if not isinstance(parsed, dict):
            raise ValueError(f"{name}:{number}: {line.strip()!r} is not an object")  # noqa: TRY004
        yield f"{name}:{number}", parsed
