"""radius: whoever was down, felt it, or did not is who was said to."""

from __future__ import annotations

from launcher.chaos.checkers.common import Params, judged
from launcher.chaos.evidence import Blast, Evidence, Verdict

NOT_NAMED = "not named"
NOT_SEEN = "not seen"


def blast_radius_as_predicted(evidence: Evidence, params: Params) -> Verdict:
    """Every part of the observed blast radius is as predicted.

    Whoever a prediction does not name is predicted untouched: an experiment need not list all.
    """
    name = "blast_radius_as_predicted"
    if evidence.predicted is None or evidence.observed is None:
        which = "predicted" if evidence.predicted is None else "observed"
        return judged(name, "", [], [f"no blast radius was {which}"])
    predicted, observed = _parts(evidence.predicted), _parts(evidence.observed)
    wrong = [
        f"{who}: predicted {said}, observed {seen}"
        for who in [*predicted, *(other for other in observed if other not in predicted)]
        if (said := predicted.get(who, NOT_NAMED)) != (seen := observed.get(who, NOT_SEEN))
        if (said, seen) != (NOT_NAMED, "untouched")
    ]
    text = ", ".join(f"{len(names)} {part}" for part, names in evidence.observed._asdict().items())
    figures = {"predicted": evidence.predicted._asdict(), "observed": evidence.observed._asdict()}
    return judged(name, text, wrong, [] if observed else ["nobody was observed"], figures)


def _parts(blast: Blast) -> dict[str, str]:
    """Who is in which part; the worst, for one who is in two."""
    found: dict[str, str] = {}
    for part, names in blast._asdict().items():
        for who in names:
            found.setdefault(who, part)
    return found
