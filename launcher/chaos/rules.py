"""rules: what must hold between the parts of an experiment file, whatever its system is.

Each rule is a generator over a Draft, as those of a system file are. `launcher.chaos.fit` has the
rules that need the system, `launcher.chaos.needs` what each checker asks of the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from launcher.chaos.checks import Checker, OfClient, Predict, Probe
from launcher.chaos.nemesis import KILLS, Action, Message, OnServer, Sweep
from launcher.chaos.values import ANY
from launcher.chaos.workload import RUNS, Workload
from launcher.rules import Finding, hint
from launcher.source import KEY
from ukernel.abi.faults import DELAY

MAX_TIMES = 10_000  # of one action; more is a typing error


@dataclass(frozen=True)
class Draft:
    """The well-formed parts of an experiment file by their places, and what else it holds."""

    raw: Mapping[str, Any]  # the whole file
    workload: Mapping[int, Workload]
    probes: Mapping[int, Probe]
    actions: Mapping[int, Action]
    checkers: Mapping[int, Checker]
    predict: Predict | None
    sweep: Sweep | None

    @property
    def client_names(self) -> list[str]:
        """Of all clients, in the file's order."""
        entries = self.listed("workload")
        names = [entry.get("client") for entry in entries if isinstance(entry, dict)]
        return [name for name in names if isinstance(name, str)]

    def listed(self, key: str) -> list[Any]:
        """What stands in a list of the file, well-formed or not."""
        found = self.raw.get(key)
        return found if isinstance(found, list) else []


Rule = Callable[[Draft], Iterator[Finding]]


def something_breaks(draft: Draft) -> Iterator[Finding]:
    if {"nemesis", "sweep"} <= draft.raw.keys():
        text = "sweep: it stands instead of nemesis, not beside it; remove one of them"
        yield Finding(("sweep", KEY), text)
    if not {"nemesis", "sweep"} & draft.raw.keys():
        text = (
            "the file: key 'nemesis' or 'sweep' is missing; add one"
            " (`nemesis: []` is a run without faults)"
        )
        yield Finding((KEY,), text)


def times_make_sense(draft: Draft) -> Iterator[Finding]:
    for index, action in draft.actions.items():
        for key, why in _odd_times(action):
            yield Finding(("nemesis", index, key), f"nemesis.{key}: {why}")


def _odd_times(action: Action) -> Iterator[tuple[str, str]]:
    every, until, count = action.every_s, action.until_s, action.count
    if every is None:
        if count is not None:
            other = ", or say 'requests:' for those of a device" if action.do == "device" else ""
            yield "count", f"how often is said with how soon again; add 'every:'{other}"
        if until is not None:
            yield "until", "the last moment is said with how soon again; add 'every:'"
    elif count is None and until is None:
        yield "every", "it would never end; add 'count:' or 'until:'"
    if until is not None and until < action.at_s:
        yield "until", f"{until:g} s is before 'at', {action.at_s:g} s; nothing would happen"
    elif action.occurrences() > MAX_TIMES:
        yield "every", f"{action.occurrences()} times; at most {MAX_TIMES} are possible"


def together_means_several(draft: Draft) -> Iterator[Finding]:
    for index, action in draft.actions.items():
        if isinstance(action, OnServer) and action.for_one and _one(action.target):
            text = (
                f"nemesis.target: {action.do} needs several targets; for one there is"
                f" {action.for_one}"
            )
            yield Finding(("nemesis", index, "target"), text)


def _one(target: tuple[str, ...]) -> bool:
    return len(target) == 1 and target != (ANY,)


def delays_are_delays(draft: Draft) -> Iterator[Finding]:
    for index, action in draft.actions.items():
        if isinstance(action, Message):
            for key, why in _odd_delay(action):
                yield Finding(("nemesis", index, key), f"nemesis.{key}: {why}")


def _odd_delay(action: Message) -> Iterator[tuple[str, str]]:
    if action.fault == DELAY:
        if action.ms == 0:
            key = "ms" if "ms" in action.model_fields_set else "fault"
            yield key, "a delay needs a time; add 'ms:'"
        elif action.jitter_ms > action.ms:
            yield "jitter_ms", f"expected at most ms, {action.ms}: a message cannot be early"
        return
    for key in ("ms", "jitter_ms"):
        if key in action.model_fields_set:
            yield key, f"means nothing to {action.fault}; remove it, or write fault: {DELAY}"


def clients_are_unique(draft: Draft) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, client in draft.workload.items():
        if client.client in seen:
            text = f"workload.client: there are two clients {client.client!r}; rename one"
            yield Finding(("workload", index, "client"), text)
        seen.add(client.client)


def clients_exist(draft: Draft) -> Iterator[Finding]:
    for index, probe in draft.probes.items():
        if isinstance(probe, OfClient) and probe.client not in draft.client_names:
            remedy = hint(probe.client, draft.client_names, "clients")
            text = f"steady_state.client: no client {probe.client!r} in the workload{remedy}"
            yield Finding(("steady_state", index, "client"), text)
    if draft.sweep and draft.sweep.client not in draft.client_names:
        remedy = hint(draft.sweep.client, draft.client_names, "clients")
        text = f"sweep.client: no client {draft.sweep.client!r} in the workload{remedy}"
        yield Finding(("sweep", "client"), text)


def sweeps_move_bytes(draft: Draft) -> Iterator[Finding]:
    if draft.sweep is None:
        return
    if not draft.sweep.every_s:
        yield Finding(("sweep", "every"), "sweep.every: expected at least one interval")
    able = [run for run, model in RUNS.items() if model.moves]
    for client in draft.workload.values():
        if client.client == draft.sweep.client and not client.moves:
            text = (
                f"sweep.client: {client.client} (run: {client.run}) does not count what it moves;"
                f" take a client with run: {' or '.join(able)}"
            )
            yield Finding(("sweep", "client"), text)


def prediction_is_one(draft: Draft) -> Iterator[Finding]:
    if draft.predict is None:
        return
    first: dict[str, str] = {}
    bystanders = [client.client for client in draft.workload.values() if client.bystander]
    for key in ("down", "degraded", "untouched"):
        for index, name in enumerate(getattr(draft.predict, key)):
            where = ("predict", key, index)
            if (before := first.setdefault(name, key)) != key:
                text = f"predict.{key}: {name} is {before} already; it can be one of them"
                yield Finding(where, text)
            elif name in bystanders and key != "untouched":
                text = f"predict.{key}: {name} is a bystander, which is to notice nothing"
                yield Finding(where, text)


def something_is_asked(draft: Draft) -> Iterator[Finding]:
    if draft.raw.get("checkers") == []:
        text = "checkers: nothing is asked of the run; name a checker, kernel_alive for instance"
        yield Finding(("checkers",), text)


def checkers_are_unique(draft: Draft) -> Iterator[Finding]:
    seen: Counter[str] = Counter()
    for index, checker in draft.checkers.items():
        seen[checker.checker] += 1
        if seen[checker.checker] == 2:
            text = f"checkers: {checker.checker} is there twice; remove one"
            yield Finding(("checkers", index), text)


def beside_kills_somebody(draft: Draft) -> Iterator[Finding]:
    """What is done in another placement is the first kill."""
    unclear = len(draft.actions) < len(draft.listed("nemesis"))
    kills = unclear or any(action.do in KILLS for action in draft.actions.values())
    if draft.raw.get("beside") is not None and not kills:
        text = "beside: the first kill is done there, and there is none in nemesis; add do: kill"
        yield Finding(("beside",), text)


RULES: tuple[Rule, ...] = (
    something_breaks,
    times_make_sense,
    together_means_several,
    delays_are_delays,
    clients_are_unique,
    clients_exist,
    sweeps_move_bytes,
    prediction_is_one,
    something_is_asked,
    checkers_are_unique,
    beside_kills_somebody,
)
