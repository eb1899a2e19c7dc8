"""beside: in the other placement the first kill ends them all."""

from __future__ import annotations

from launcher.chaos.checkers.common import Params, judged
from launcher.chaos.evidence import Evidence, Verdict
from launcher.words import count


def beside_dies(evidence: Evidence, params: Params) -> Verdict:
    """In the placement beside, one kill ended everybody who shares the victim's process, others
    than the victim among them, and each virtual machine that a bystander looks at. Who has died
    before that has shown nothing."""
    name, other = "beside_dies", evidence.beside
    if other is None or other.predicted is None or other.observed is None:
        return judged(name, "", [], ["nothing was done in another placement"])
    landed = [each for each in other.injections if each.landed_ns]
    victims = {target for each in landed for target in each.target.split(", ")}
    down, sharing = other.observed.down, other.predicted.down
    machines = {seen.machine for seen in other.health if seen.client in other.bystanders}
    broken = [f"{who} outlived it" for who in sharing if who not in down]
    elsewhere = sorted(machines - {*down, *sharing})
    broken += [f"{who} is in another process, and lives" for who in elsewhere]
    if landed and not {*down} - victims:
        broken.append(f"nobody died but {', '.join(sorted(victims))}")
    unknown = [] if landed else ["; ".join(["no kill landed", *_details(other)])]
    early = [each for each in other.recoveries if landed and each.dead_ns < landed[0].landed_ns]
    unknown += [f"{each.server} had died before: {each.cause}" for each in early]
    kills, ended = count(len(landed), "kill"), count(len(down), "server")
    figures = {"placement": other.placement, "down": list(down)}
    return judged(name, f"{kills} under {other.placement} ended {ended}", broken, unknown, figures)


def _details(evidence: Evidence) -> list[str]:
    return [each.detail for each in evidence.injections if each.detail]
