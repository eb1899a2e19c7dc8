"""sweep: how much slower a bulk transfer is while its target is killed again and again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from launcher.chaos.checkers.common import Params, judged
from launcher.chaos.evidence import Evidence, Leg, Verdict
from launcher.words import count

NEVER = 0.0  # the interval of the legs without kills


class Row(NamedTuple):
    """The legs at one interval."""

    mb_per_s: float  # the median leg, 10^6 bytes
    loss_percent: float | None  # against the legs without kills
    legs: int
    kills: int


def throughput_loss(evidence: Evidence, params: Params) -> Verdict:
    """Killed every `every_s`, the median leg moves at most `max_percent` less than the median leg
    without kills, and every leg moved the right bytes. Without `every_s`: at every interval."""
    legs = defaultdict[float, list[Leg]](list)
    for leg in evidence.sweep:
        legs[leg.every_s].append(leg)
    table = _table(legs)
    broken = [f"leg {_name(leg)} moved wrong bytes" for leg in evidence.sweep if not leg.right]
    broken += _too_slow(table, params)
    figures = {"table": {f"{every_s:g}": row._asdict() for every_s, row in sorted(table.items())}}
    text = f"{count(len(evidence.sweep), 'leg')}: " + ", ".join(_told(table))
    return judged("throughput_loss", text, broken, list(_missing(legs, params)), figures)


def _name(leg: Leg) -> str:
    return f"{leg.round} at {leg.every_s:g} s"


def _speed(leg: Leg) -> float:
    return leg.moved_bytes / leg.took_s / 1e6 if leg.took_s > 0 else 0.0


def _table(legs: Mapping[float, Sequence[Leg]]) -> dict[float, Row]:
    speeds = {every_s: median(map(_speed, some)) for every_s, some in legs.items()}
    whole = speeds.get(NEVER)
    return {
        every_s: Row(
            round(speed, 3),
            round(100 * (1 - speed / whole), 2) if whole else None,
            len(legs[every_s]),
            sum(leg.kills for leg in legs[every_s]),
        )
        for every_s, speed in speeds.items()
    }


def _asked(table: Mapping[float, object], params: Params) -> list[float]:
    every_s = params.get("every_s")
    return [each for each in sorted(table) if each != NEVER and every_s in (None, each)]


def _too_slow(table: Mapping[float, Row], params: Params) -> Iterator[str]:
    most = params.get("max_percent")
    for every_s in _asked(table, params):
        loss = table[every_s].loss_percent
        if most is not None and loss is not None and loss > most:
            yield f"killed every {every_s:g} s it loses {loss:g} %, more than {most:g}"


def _missing(legs: Mapping[float, Sequence[Leg]], params: Params) -> Iterator[str]:
    """What a loss cannot be told without."""
    if not any(map(_speed, legs.get(NEVER, ()))):
        yield "no leg without kills moved anything"
    if not _asked(legs, params):
        every_s = params.get("every_s")
        yield "no leg with kills" if every_s is None else f"no leg was killed every {every_s:g} s"
    for leg in (leg for some in legs.values() for leg in some):
        if (leg.every_s == NEVER) != (leg.kills == 0):
            yield f"leg {_name(leg)} had {count(leg.kills, 'kill')}"


def _told(table: Mapping[float, Row]) -> Iterator[str]:
    for every_s, row in sorted(table.items()):
        loss = (
            "" if every_s == NEVER or row.loss_percent is None else f" ({-row.loss_percent:+g} %)"
        )
        yield f"{f'every {every_s:g} s' if every_s else 'no kills'} {row.mb_per_s:g} MB/s{loss}"
