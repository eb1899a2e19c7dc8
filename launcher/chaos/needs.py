"""needs: what each checker asks of the rest of an experiment; without it, it has nothing to say."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from launcher.chaos.checks import (
    AckedWritesDurable,
    BesideDies,
    Bystanders,
    Checker,
    DownloadsComplete,
    GuestGap,
    GuestsRight,
    MinLanded,
    NoDuplicateEffect,
    RecoveryMs,
    SameConnection,
    ThroughputLoss,
    WrongDataSeen,
)
from launcher.chaos.nemesis import Sweep
from launcher.chaos.rules import Draft, Rule
from launcher.chaos.values import NEVER
from launcher.chaos.workload import RUNS
from launcher.rules import Finding
from launcher.source import KEY
from ukernel.abi.durations import seconds_of


def checkers_have_what_they_need(draft: Draft) -> Iterator[Finding]:
    for index, checker in draft.checkers.items():
        if why := _lacking(draft, checker):
            text = f"checkers: {checker.checker} {why}"
            yield Finding(("checkers", index, checker.checker, KEY), text)


def _lacking(draft: Draft, checker: Checker) -> str:
    """What a checker misses in the experiment, and what to do about it; nothing: it has all."""
    if len(draft.workload) == len(draft.listed("workload")) and (why := _unfed(draft, checker)):
        return why
    match checker:
        case RecoveryMs(p50=None, p99=None):
            return "has no limit to compare with; give it p50, p99 or both"
        case RecoveryMs() if "sweep" not in draft.raw and not _somebody_dies(draft):
            return "looks at repairs, and nothing in nemesis makes a server die; remove it"
        case ThroughputLoss() if "sweep" not in draft.raw:
            return "looks at a sweep, and there is none; add 'sweep:'"
        case ThroughputLoss(every_s=every_s) if draft.sweep is not None:
            return _unswept(draft.sweep, every_s)
        case MinLanded(faults=faults):
            return _too_few(draft, faults)
        case GuestGap():
            return _not_calm(draft)
        case BesideDies() if "beside" not in draft.raw:
            return "looks at another placement, and there is none; add 'beside: mono'"
    return ""


def _unfed(draft: Draft, checker: Checker) -> str:
    """What a checker that looks at clients misses in the workload."""
    clients = draft.workload.values()
    if not checker.needs_clients:
        return ""
    if not clients:
        return "looks at what clients saw, and there are none; add one to 'workload:'"
    match checker:
        case Bystanders() if not any(client.bystander for client in clients):
            return "looks at bystanders, and there are none; mark a client `bystander: true`"
        case AckedWritesDurable() | NoDuplicateEffect() if not any(c.writes for c in clients):
            return f"looks at what was changed, and no client changes anything; {_take('writes')}"
        case DownloadsComplete() | SameConnection() if not any(c.fetches for c in clients):
            return f"looks at downloads, and no client makes any; {_take('fetches')}"
        case GuestGap() if not any(client.shows and client.bystander for client in clients):
            return "looks at guests that are bystanders; add a run: guest with `bystander: true`"
        case GuestsRight() if not any(client.shows for client in clients):
            return f"looks at what guests show, and no client does; {_take('shows')}"
        case WrongDataSeen() if not any(client.checks for client in clients):
            return f"looks at what was read, and no client knows what is right; {_take('checks')}"
    return ""


def _take(able: str) -> str:
    """`add one with run: files or kv`: those whose model has this mark."""
    return f"add one with run: {' or '.join(run for run, m in RUNS.items() if getattr(m, able))}"


def _somebody_dies(draft: Draft) -> bool:
    unclear = len(draft.actions) < len(draft.listed("nemesis"))
    return unclear or any(action.lethal for action in draft.actions.values())


def _unswept(sweep: Sweep, every_s: float | None) -> str:
    if every_s is not None and every_s not in sweep.every_s:
        have = ", ".join(f"{each:g} s" for each in sweep.every_s if each)
        return f"looks at kills every {every_s:g} s, and sweep.every has {have}; take one of them"
    if 0.0 not in sweep.every_s:
        return f"compares with a leg without kills; add {NEVER!r} to sweep.every"
    return ""


def _too_few(draft: Draft, faults: int) -> str:
    actions = draft.actions.values()
    if "nemesis" not in draft.raw or len(actions) < len(draft.listed("nemesis")):
        return ""
    planned = sum(action.occurrences() for action in actions)
    if faults <= planned or any(action.several for action in actions):
        return ""
    return f"wants {faults} faults, and nemesis plans {planned}; ask for fewer or plan more"


def _not_calm(draft: Draft) -> str:
    """Why there is not as long a time without faults as there is with them."""
    moments = [at_s for action in draft.actions.values() for at_s in action.moments()]
    last_s, calm_s = max(moments, default=0.0), seconds_of(draft.raw.get("calm"))
    if calm_s is not None and calm_s >= last_s:
        return ""
    return (
        f"compares with a time without faults, as long as that with them; say calm: {ceil(last_s)}s"
    )


RULES: tuple[Rule, ...] = (checkers_have_what_they_need,)
