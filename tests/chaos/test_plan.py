"""plan: the same seed is the same plan, in order, within bounds, whatever is added at the end."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.chaos.evidence import Injection
from launcher.chaos.experiment import Experiment
from launcher.chaos.nemesis import Sweep
from launcher.chaos.plan import Planned, ends_s, legs, plan
from ukernel.abi.faults import DEVICE_FAULTS, MESSAGE_FAULTS
from ukernel.abi.manifest import MAX_SEED

SERVERS = ["disk", "fs", "console", "timer", "rng"]

seeds = st.integers(0, MAX_SEED)
milliseconds = st.integers(1, 5000).map(lambda ms: f"{ms}ms")
several = st.lists(st.sampled_from(SERVERS), min_size=2, unique=True)
targets = st.sampled_from(SERVERS) | several
times: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"every": milliseconds, "count": st.integers(1, 20)}),
    st.fixed_dictionaries(
        {"every": milliseconds, "count": st.integers(1, 20), "until": st.just(70)}
    ),
)
KINDS: list[dict[str, st.SearchStrategy[Any]]] = [
    {"do": st.just("kill"), "target": targets},
    {"do": st.just("kill_together"), "target": several},
    {"do": st.just("swizzle"), "target": several, "step": milliseconds},
    {"do": st.just("pause"), "target": targets, "for": milliseconds},
    {"do": st.just("crash_init"), "target": targets, "times": st.integers(1, 5)},
    {"do": st.just("powercut")},
    {
        "do": st.just("message"),
        "link": st.just("fs->disk"),
        "fault": st.sampled_from(MESSAGE_FAULTS),
    },
    {
        "do": st.just("device"),
        "device": st.just("disk0"),
        "fault": st.sampled_from(DEVICE_FAULTS),
        "for": milliseconds,
    },
]
kinds = st.one_of(*map(st.fixed_dictionaries, KINDS))
entries = st.builds(
    lambda at, when, what: {"at": at, **when, **what}, st.integers(0, 60), times, kinds
)


def experiment(nemesis: list[dict[str, Any]], seed: int = 0) -> Experiment:
    return Experiment.model_validate(
        {
            "version": 1,
            "title": "t",
            "system": "s.yaml",
            "seed": seed,
            "nemesis": nemesis,
            "checkers": ["kernel_alive"],
        }
    )


experiments = st.lists(entries, max_size=5).map(experiment)


def apart(planned: Planned) -> Planned:
    return planned._replace(number=0)


# --- whatever the experiment --------------------------------------------------------------------


@given(experiments, seeds)
def test_the_same_seed_is_the_same_plan(chaos: Experiment, seed: int) -> None:
    assert plan(chaos, seed) == plan(chaos, seed)
    assert plan(chaos, seed) == plan(chaos.model_copy(update={"seed": seed}))


@given(experiments, seeds)
def test_injections_are_in_order_and_as_many_as_asked(chaos: Experiment, seed: int) -> None:
    planned = plan(chaos, seed)
    assert [injection.number for injection in planned] == list(range(len(planned)))
    assert all(a.at_s <= b.at_s for a, b in pairwise(planned))
    wanted: Counter[str] = Counter()
    for action in chaos.nemesis:
        wanted[action.do] += action.occurrences()
    assert Counter(injection.action for injection in planned) == wanted


@given(entries, seeds)
def test_injections_are_within_bounds(entry: dict[str, Any], seed: int) -> None:
    chaos = experiment([entry])
    (action,) = chaos.nemesis
    planned = plan(chaos, seed)
    ends = [entry["at"] + 20 * 5.0] + [action.until_s] * (action.until_s is not None)
    assert planned[0].at_s == entry["at"]
    assert all(injection.at_s <= min(ends) for injection in planned)
    for before, after in pairwise(planned):
        assert action.every_s is not None
        assert after.at_s - before.at_s == pytest.approx(action.every_s)
    for injection in planned:
        check_targets(entry, injection)
        assert 0 <= injection.params.get("seed", 0) <= MAX_SEED
        assert injection.at_s <= injection.ends_s <= ends_s(planned)


def check_targets(entry: dict[str, Any], injection: Planned) -> None:
    """Those of the entry: all, some or one, as the action has it."""
    named = entry.get("target") or [entry.get("link") or entry.get("device") or "machine"]
    named = [named] if isinstance(named, str) else named
    assert set(injection.targets) <= set(named)
    assert len(set(injection.targets)) == len(injection.targets)
    match injection.action:
        case "kill_together":
            assert list(injection.targets) == named
        case "swizzle":
            assert len(injection.targets) >= 2
            assert sorted(injection.params["release"]) == sorted(injection.targets)
        case _:
            assert len(injection.targets) == 1


@given(st.lists(entries, max_size=4), entries, seeds)
def test_an_action_at_the_end_changes_nothing_before_it(
    before: list[dict[str, Any]], added: dict[str, Any], seed: int
) -> None:
    short, longer = plan(experiment(before), seed), plan(experiment([*before, added]), seed)
    assert len(longer) == len(short) + experiment([added]).nemesis[0].occurrences()
    rest = map(apart, longer)
    assert all(injection in rest for injection in map(apart, short))  # and in the same order


# --- one experiment -----------------------------------------------------------------------------

CHAOS: list[dict[str, Any]] = [
    {"at": "1s", "every": "500ms", "count": 3, "do": "kill", "target": SERVERS},
    {"at": "1s", "do": "message", "link": "fs->disk", "fault": "delay", "ms": 20, "for": "2s"},
    {"at": "1.2s", "do": "swizzle", "target": SERVERS, "step": "50ms"},
    {"at": 9, "do": "device", "device": "disk0", "fault": "io_error", "requests": 3},
    {"at": "500ms", "do": "kill_together", "target": ["fs", "disk"]},
]


def test_a_plan_is_what_it_was_yesterday() -> None:
    """These values were drawn once. Another result means that old journals replay no more."""
    planned = plan(experiment(CHAOS), 4000)
    assert [(each.at_s, each.action, each.targets) for each in planned] == [
        (0.5, "kill_together", ("fs", "disk")),
        (1.0, "kill", ("rng",)),
        (1.0, "message", ("fs->disk",)),
        (1.2, "swizzle", ("timer", "rng", "fs")),
        (1.5, "kill", ("timer",)),
        (2.0, "kill", ("rng",)),
        (9.0, "device", ("disk0",)),
    ]
    assert planned[2].params["seed"] == 12808540626985581318
    assert planned[3].params["release"] == ("rng", "fs", "timer")


def test_another_seed_is_another_plan() -> None:
    assert plan(experiment(CHAOS), 1) != plan(experiment(CHAOS), 2)


def test_what_is_planned_reads_as_evidence() -> None:
    faults = {(each.fault, each.target) for each in plan(experiment(CHAOS), 4000)}
    assert {("delay", "fs->disk"), ("io_error", "disk0"), ("kill_together", "fs, disk")} <= faults
    first = plan(experiment(CHAOS), 4000)[0]
    injection = Injection(first.number, first.fault, first.target, int(first.at_s * 1e9), 0)
    assert (injection.fault, injection.planned_ns) == ("kill_together", 500_000_000)


def test_everything_an_action_needs_is_in_its_parameters() -> None:
    by_action = {each.action: each.params for each in plan(experiment(CHAOS), 4000)}
    assert by_action["kill"] == {"signal": "KILL"}
    assert by_action["kill_together"] == {}
    assert by_action["message"].keys() == {
        "fault", "ms", "jitter_ms", "probability", "for_s", "seed",
    }  # fmt: skip
    assert by_action["device"].keys() == {"fault", "requests", "probability", "for_s", "seed"}
    assert by_action["swizzle"].keys() == {"step_s", "release"}


def test_the_end_is_when_the_last_fault_is_over() -> None:
    assert ends_s([]) == 0
    assert ends_s(plan(experiment(CHAOS))) == 10.0
    assert ends_s(plan(experiment(CHAOS[:2]))) == 3.0


# --- a sweep ------------------------------------------------------------------------------------

intervals = st.lists(st.integers(1, 20) | st.just("never"), min_size=1, max_size=5, unique=True)


@given(intervals, st.integers(1, 10), st.integers(1, 4), seeds)
def test_legs(every: list[Any], for_s: int, rounds: int, seed: int) -> None:
    sweep = Sweep.model_validate(
        {"target": "disk", "every": every, "for": for_s, "rounds": rounds, "client": "r"}
    )
    planned = legs(sweep, seed)
    assert planned == legs(sweep, seed)
    assert [leg.round for leg in planned] == [n for n in range(rounds) for _ in every]
    for number in range(rounds):
        swept = [leg.every_s for leg in planned if leg.round == number]
        assert sorted(swept) == sorted(sweep.every_s)
    for leg in planned:
        assert bool(leg.kills_s) == (leg.every_s > 0)
        assert all(0 <= at_s <= leg.for_s for at_s in leg.kills_s)
        assert all(b - a == pytest.approx(leg.every_s, abs=1e-5) for a, b in pairwise(leg.kills_s))
        assert leg.for_s == max(for_s, leg.every_s)
