"""result: what a comparison has found: its runs, the claims that they bear out, and the JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from launcher.compare import figures
from launcher.compare.amounts import Amounts
from launcher.compare.cases import MONO, Case, Cast, doomed, with_load
from launcher.compare.claim import Claim
from launcher.compare.explain import Explained, explain
from launcher.compare.figures import JOBS, Figure, Measure
from launcher.compare.guest_claims import guest_claims
from launcher.compare.guest_figures import death_measures, guest_measures
from launcher.compare.kill import LAUNCHER, Kill
from launcher.compare.run import Run
from launcher.config import SystemFile

SCHEMA = "compare/1"
PLAYERS = ("load", "echo", "fs", "victim")
REFERENCE = "mono is the monolithic kernel: every server of the file in one process"


@dataclass
class Result:
    """A comparison. `rounds` has the runs that came to their end, `failures` why others did not."""

    file: SystemFile
    cast: Cast
    amounts: Amounts
    host: dict[str, Any]
    versions: dict[str, str]
    commit: str
    rounds: dict[Case, dict[int, Run]]
    failures: list[tuple[Case, int, str]] = field(default_factory=list)
    absent: dict[Case, str] = field(default_factory=dict)  # what this system cannot be, and why

    def runs(self, case: Case) -> list[Run]:
        return list(self.rounds.get(case, {}).values())

    def every(self) -> Iterator[Run]:
        return (run for runs in self.rounds.values() for run in runs.values())

    def cases(self) -> list[Case]:
        """Those that have figures."""
        return [case for case, runs in self.rounds.items() if runs]

    def measures(self) -> list[Measure]:
        some = next(self.every(), None)
        return figures.measures(some) if some is not None else []

    def guest_measures(self) -> list[Measure]:
        """What is told of virtual machines, beside that of the work."""
        return guest_measures(self.every())

    def death_measures(self) -> list[Measure]:
        """How long virtual machines were not heard of around each kill."""
        victims = [name for name in (self.cast.victim, self.cast.card) if name is not None]
        return death_measures(self.every(), victims)

    def shown_of_guests(self) -> list[Measure]:
        """What a picture of virtual machines shows: what mono has a figure of too."""
        exits = [each for each in self.guest_measures() if each.name.endswith("_exits")]
        every = [*exits, *self.death_measures()]
        return [m for m in every if (mono := self.figure(m, MONO)) is not None and mono.median]

    def figure(self, measure: Measure, case: Case) -> Figure | None:
        return figures.figure(measure, case, self.rounds)

    def explained(self) -> list[Explained]:
        """Nothing where guests run: what they cause is counted together with the work."""
        return explain(self.rounds) if not self.cast.vms else []

    def predicted(self, case: Case, victim: str = "") -> list[str]:
        """Who is to die with a victim, the disk's driver if none is named; in the file's order."""
        manifest = with_load(self.file, self.cast, case).manifest
        dying = doomed(manifest, victim or self.cast.victim)
        return [name for name in manifest.servers if name in dying]

    def booted(self) -> list[str]:
        """The servers that run, the load and its echo server among them."""
        servers = with_load(self.file, self.cast, MONO).manifest.servers
        return [name for name, server in servers.items() if server.start == "boot"]

    def notes(self) -> list[str]:
        """What somebody must know who reads the figures."""
        told = [f"{case.name} is absent: {why}" for case, why in self.absent.items()]
        if self.cast.vms and self.cases():
            told.append(
                f"{', '.join(self.cast.vms)} ran all the while: what they cause is in processor "
                "time, calls and context switches, so it is not told where the time goes"
            )
        load, cores = self.host.get("load", [0.0])[0], self.host.get("cores", 1)
        if load > cores / 2:
            told.append(
                f"the machine was busy before this began (load {load:.1f} on {cores} cores): "
                "processor time says more here than time"
            )
        return told

    # --- the claims -----------------------------------------------------------------------------

    def claims(self) -> list[Claim]:
        told = [self._ended(), self._right(), self._kept(), self._blast()]
        return told + guest_claims(self.cast.vms, list(self.every()))

    @property
    def held(self) -> bool:
        return all(claim.held for claim in self.claims())

    def _ended(self) -> Claim:
        count = sum(1 for _ in self.every())
        told = [f"{c.name}, round {at + 1}: {why.splitlines()[0]}" for c, at, why in self.failures]
        why = "; ".join(told) or f"{count} runs"
        return Claim("every run came to its end", not told and count > 0, why)

    def _right(self) -> Claim:
        jobs = [(run, name, job) for run in self.every() for name, job in run.jobs.items()]
        wrong = [
            f"{r.case.name}: {n}: {j.whole.wrong} answers" for r, n, j in jobs if j.whole.wrong
        ]
        moved = sum(job.whole.moved for _, _, job in jobs)
        why = "; ".join(wrong) or f"{moved / figures.MEGA:,.0f} MB of files compared"
        return Claim("no wrong data", not wrong and moved > 0, why)

    def _kept(self) -> Claim:
        kills = [(run.case.name, kill) for run in self.every() for kill in run.kills]
        bad = [
            f"{name}: {k.kept.lost} lost, {k.kept.wrong} wrong of {k.kept.files} files"
            for name, k in kills
            if k.kept.lost or k.kept.wrong
        ]
        acknowledged = sum(k.acknowledged for _, k in kills)
        why = "; ".join(bad) or f"{acknowledged:,} acknowledged writes over {len(kills)} kills"
        return Claim("no acknowledged write lost", not bad and acknowledged > 0, why)

    def _blast(self) -> Claim:
        bad, count = [], 0
        for case, victim, kill in self._kills():
            more = sorted(set(kill.died) - set(self.predicted(case, victim)))
            if more:
                bad.append(f"{case.name}: {', '.join(more)} died too")
            count += len(kill.died)
        why = "; ".join(dict.fromkeys(bad)) or f"{count} lives lost, all of them as predicted"
        return Claim(
            "nobody died whom the placement does not put at risk", not bad and count > 0, why
        )

    def _kills(self) -> Iterator[tuple[Case, str, Kill]]:
        for run in self.every():
            yield run.case, self.cast.victim, run.kill
            if run.card is not None and self.cast.card is not None:
                yield run.case, self.cast.card, run.card

    # --- as JSON --------------------------------------------------------------------------------

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "config": str(self.file.path),
            "system": self.file.manifest.system,
            "reference": REFERENCE,
            "cast": self._cast(),
            "amounts": self.amounts._asdict(),
            "host": self.host,
            "versions": self.versions,
            "commit": self.commit,
            "cases": [self._case(case) for case in self.rounds],
            "absent": {case.name: why for case, why in self.absent.items()},
            "notes": self.notes(),
            "explained": [each.as_json() for each in self.explained()],
            "claims": [claim._asdict() for claim in self.claims()],
            "held": self.held,
        }

    def _cast(self) -> dict[str, Any]:
        """Of a system without virtual machines, nothing is said of what comes with those."""
        told = self.cast._asdict()
        return told if self.cast.vms else {key: told[key] for key in PLAYERS}

    def _case(self, case: Case) -> dict[str, Any]:
        measures = [*self.measures(), *self.guest_measures(), *self.death_measures()]
        found = {measure: self.figure(measure, case) for measure in measures}
        passed = {job: figures.passed(job, case, self.rounds) for job in JOBS}
        told = {
            "case": case.name,
            "placement": case.placement,
            "via": "direct" if case == MONO else case.via,
            "figures": {
                measure.name: {"title": measure.title, "unit": measure.unit, **figure.as_json()}
                for measure, figure in found.items()
                if figure is not None
            },
            "calls_past_the_kernel": passed,
            "predicted_to_die": self.predicted(case),
            "kills": [_kill(run.kill) for run in self.runs(case)],
            "failures": [why for each, _, why in self.failures if each == case],
        }
        if self.cast.vms:
            told["virtual_machines"] = [_guests(run) for run in self.runs(case)]
        if self.cast.card is not None:
            cards = [run.card for run in self.runs(case)]
            told["card_predicted_to_die"] = self.predicted(case, self.cast.card)
            told["card_kills"] = [_kill(card) for card in cards if card is not None]
        return told


def _kill(kill: Kill) -> dict[str, Any]:
    told = {**kill._asdict(), "kept": kill.kept._asdict()}
    told["recovery_ms"] = told.pop("recovery_ns") / 1e6
    del told["killed_ns"], told["back_ns"]  # which mean nothing on another clock
    return told


def _guests(run: Run) -> dict[str, Any]:
    """Of one run, by name; `felt` has an entry for each kill, the disk's driver's first."""
    return {
        name: {
            **guest._asdict(),
            "faults": guest.faults,
            "did": guest.did._asdict(),
            "felt": [felt._asdict() for felt in guest.felt],
        }
        for name, guest in run.guests.items()
    }


def clients(kill: Kill) -> dict[str, str]:
    """Who saw another outcome than success; of the launcher, which is the load's own client, it
    is enough that the load died."""
    return {name: how for name, how in kill.noticed.items() if name != LAUNCHER}
