"""guest_claims: what must hold of virtual machines when drivers die. Pure.

In processes of their own they outlive every driver, and their guests are told of nothing. In one
process with the drivers all of them die: were that not so, there would be nothing to compare.
"""

from __future__ import annotations

from collections.abc import Sequence

from launcher.compare.claim import Claim
from launcher.compare.run import Run


def guest_claims(vms: Sequence[str], runs: Sequence[Run]) -> list[Claim]:
    """None of a system without virtual machines."""
    if not vms:
        return []
    micro = [run for run in runs if run.case.placement == "micro"]
    mono = [run for run in runs if run.case.placement == "mono"]
    return [_outlive(vms, micro), _die(vms, mono), *_right(micro)]


def _outlive(vms: Sequence[str], micro: Sequence[Run]) -> Claim:
    kills = [(run.case.name, kill) for run in micro for kill in run.kills]
    bad = [f"{case}: {name} died" for case, kill in kills for name in vms if name in kill.died]
    why = _told(bad) or f"{len(vms)} of them over {len(kills)} kills"
    return Claim("under micro no virtual machine dies with a driver", not bad and bool(kills), why)


def _die(vms: Sequence[str], mono: Sequence[Run]) -> Claim:
    kills = [kill for run in mono for kill in run.kills]
    bad = [f"{name} lived on" for kill in kills for name in vms if name not in kill.died]
    why = _told(bad) or f"{len(vms)} of them at each of {len(kills)} kills"
    return Claim("under mono all virtual machines die with it", not bad and bool(kills), why)


def _right(micro: Sequence[Run]) -> list[Claim]:
    """Of guests that say how they are; where none does there is no such claim."""
    guests = [(run.case.name, name, each) for run in micro for name, each in run.guests.items()]
    if micro and not any(each.speaks for _, _, each in guests):
        return []
    bad = [
        f"{case}: {name}: {each.wrong} wrong bytes, {each.errors} errors, {each.faults} faults"
        for case, name, each in guests
        if each.wrong or each.errors or each.faults
    ]
    lines = sum(each.lines for _, _, each in guests)
    why = _told(bad) or f"{lines:,} times a guest has said how it is"
    claim = "under micro no guest finds a wrong byte or is told of an error"
    return [Claim(claim, not bad and lines > 0, why)]


def _told(bad: Sequence[str]) -> str:
    """Each once."""
    return "; ".join(dict.fromkeys(bad))
