"""blast: the prediction from a file, what a trace shows, and that the two agree."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.chaos.blast import Window, observe, outages, predict, reach, repaired_by, taken_along
from launcher.chaos.evidence import Blast, Recovery
from launcher.config import load
from tests.conftest import CONFIGS, Ukernel
from ukernel.abi.errors import Code
from ukernel.abi.manifest import Manifest
from ukernel.abi.syscalls import TraceRow

STORAGE = CONFIGS / "storage.yaml"
RECOVERY = Recovery("disk", 1, "killed by SIGKILL", True, 10, 11, 12, 13, 14, 15, 20)


def system(calls: Mapping[str, list[str]], **more: Any) -> Manifest:
    servers = {name: {"run": "x", "serves": "echo", "calls": each} for name, each in calls.items()}
    for name, keys in more.items():
        servers[name] |= keys
    return Manifest.model_validate({"system": "s", "servers": servers})


# --- predicted ----------------------------------------------------------------------------------

DRIVERS = ("disk", "console", "timer", "rng")
PREDICTIONS = [
    (["disk"], [], Blast(("disk",), ("fs",), ("machine", "console", "timer", "rng"))),
    (["fs"], [], Blast(("fs",), (), ("machine", *DRIVERS))),
    (["fs"], ["shell"], Blast(("fs",), ("shell",), ("machine", *DRIVERS))),
    (["disk", "rng"], [], Blast(("disk", "rng"), ("fs",), ("machine", "console", "timer"))),
    (["shell"], [], Blast(("shell",), (), ("machine", *DRIVERS, "fs"))),
    (["machine"], ["shell.2"], Blast(("machine", *DRIVERS), ("fs", "shell.2"), ())),
]


@pytest.mark.parametrize(("victims", "clients", "expected"), PREDICTIONS)
def test_the_storage_system(victims: list[str], clients: list[str], expected: Blast) -> None:
    assert predict(load(STORAGE).manifest, victims, clients=clients) == expected


def test_callers_feel_it_through_any_number_of_calls_and_callees_never() -> None:
    chain = system({"a": ["b"], "b": ["c"], "c": ["d"], "d": [], "other": ["d"]})
    assert predict(chain, ["c"]) == Blast(("c",), ("a", "b"), ("d", "other"))
    running = ["a", "b", "c", "d", "other"]
    assert reach(chain, running, ["c"]) == {"b": ("b", "c"), "a": ("a", "b", "c")}


def test_the_path_is_a_shortest_one() -> None:
    two_ways = system({"a": ["b", "d"], "b": ["d"], "d": []})
    assert reach(two_ways, ["a", "b", "d"], ["d"])["a"] == ("a", "d")


def test_who_does_not_run_passes_nothing_on() -> None:
    lazy = system({"a": ["b"], "b": ["c"], "c": []}, b={"start": "demand"})
    assert predict(lazy, ["c"]) == Blast(("c",), (), ("a",))
    assert predict(lazy, ["c"], clients=["b"]) == Blast(("c",), ("a", "b"), ())


def test_a_group_goes_down_together() -> None:
    pair = system({"a": ["b"], "b": [], "c": ["d"], "d": []})
    assert predict(pair, ["b"], also_down=["d"]) == Blast(("b", "d"), ("a", "c"), ())


@pytest.mark.parametrize(
    ("strategy", "victim", "others"),
    [
        ("one_for_one", "b", []),
        ("one_for_all", "b", ["c", "a"]),
        ("rest_for_one", "b", ["a"]),
        ("rest_for_one", "a", []),
        ("one_for_all", "other", []),
        ("one_for_all", "machine", []),
    ],
)
def test_a_restart_strategy_takes_its_group_along(
    strategy: str, victim: str, others: list[str]
) -> None:
    keys = {"restart": {"strategy": strategy}}
    every = {"a": ["b"], "b": ["c"], "c": [], "other": [], "lazy": []}
    family = system(every, a=keys, b=keys, c=keys, other=keys, lazy={"start": "demand"})
    family = family.model_copy(update={"groups": {"family": ("a", "b", "c", "lazy")}})
    assert taken_along(family, [victim]) == others


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("dsik", "no task 'dsik'; did you mean 'disk'?"),
        ("x", "tasks are machine, disk"),
        ("disk0", "disk0 is a device; name its driver: disk"),
    ],
)
def test_an_unknown_name_is_refused_with_a_hint(name: str, told: str) -> None:
    manifest = load(STORAGE).manifest
    for victims, clients in (([name], []), (["disk"], [name])):
        with pytest.raises(LookupError) as raised:
            predict(manifest, victims, clients=clients)
        assert told in str(raised.value)


def test_without_hardware_there_is_no_machine() -> None:
    with pytest.raises(LookupError, match="no task 'machine'"):
        predict(system({"a": []}), ["machine"])


# --- observed -----------------------------------------------------------------------------------


NUMBERS = itertools.count()
BEFORE = {"disk": 1, "fs": 1, "app": 1, "other": 1}
AFTER = BEFORE | {"disk": 2}
OUTAGE = [Window("disk", 100, 200)]


def call(client: str, server: str, begun: int, done: int, status: int = Code.OK) -> TraceRow:
    number, head = next(NUMBERS), (1, 1, 0, status, 0, 0)
    return TraceRow(number, f"{client}#1", server, *head, begun, begun, done, b"", b"")


def degraded(*rows: TraceRow) -> tuple[str, ...]:
    return observe(BEFORE, AFTER, OUTAGE, rows).degraded


def test_who_had_a_call_open_during_the_outage_is_degraded() -> None:
    for begun, done in ((150, 160), (50, 100), (199, 300), (200, 201), (0, 500)):
        assert degraded(call("fs", "disk", begun, done)) == ("fs",)
    for begun, done in ((0, 99), (201, 300)):
        assert degraded(call("fs", "disk", begun, done)) == ()
    assert degraded(call("fs", "other", 150, 160)) == ()
    assert degraded(call("disk", "other", 150, 160)) == ()
    assert degraded(call("nobody", "disk", 150, 160)) == ()


def test_it_is_passed_on_to_those_who_called_meanwhile() -> None:
    waited = call("fs", "disk", 150, 300)
    assert degraded(waited, call("app", "fs", 140, 310)) == ("fs", "app")
    assert degraded(waited, call("app", "fs", 300, 310), call("other", "app", 305, 400)) == (
        "fs", "app", "other"
    )  # fmt: skip
    assert degraded(waited, call("app", "fs", 10, 149)) == ("fs",)
    assert degraded(waited, call("app", "fs", 301, 400)) == ("fs",)
    late = call("app", "fs", 250, 300)
    assert degraded(waited, late, call("other", "app", 0, 249)) == ("fs", "app")


def test_trouble_begins_where_a_call_meets_an_outage() -> None:
    met = call("fs", "disk", 50, 300)  # the outage begins at 100
    assert degraded(met, call("app", "fs", 10, 99)) == ("fs",)
    assert degraded(met, call("app", "fs", 10, 100)) == ("fs", "app")
    long_ago = call("other", "disk", 20, 40)
    assert degraded(met, long_ago) == ("fs",)


def test_of_two_outages_the_first_counts_whichever_is_named_first() -> None:
    first, second = Window("disk", 100, 200), Window("disk", 300, 400)
    rows = [call("fs", "disk", 50, 500), call("app", "fs", 120, 160)]
    for windows in ([first, second], [second, first]):
        assert observe(BEFORE, AFTER, windows, rows).degraded == ("fs", "app")
    assert observe(BEFORE, AFTER, [second], rows).degraded == ("fs",)


def test_the_order_of_the_trace_does_not_matter() -> None:
    rows = [
        call("fs", "disk", 150, 300),
        call("fs", "disk", 310, 320),
        call("app", "fs", 140, 310),
        call("other", "app", 100, 400),
        call("other", "fs", 0, 90),
    ]
    for seed in range(20):
        random.Random(seed).shuffle(rows)
        assert degraded(*rows) == ("fs", "app", "other")


def test_a_call_that_ended_with_its_server_met_the_outage_whenever_it_was() -> None:
    assert degraded(call("fs", "disk", 0, 90, Code.E_DEAD_UNKNOWN)) == ("fs",)
    assert degraded(call("fs", "other", 0, 90, Code.E_DEAD_UNKNOWN)) == ()
    assert degraded(call("fs", "disk", 0, 90, Code.E_DENIED)) == ()


def test_down_is_whose_number_of_lives_has_grown() -> None:
    assert observe(BEFORE, AFTER, [], []) == Blast(("disk",), (), ("fs", "app", "other"))
    first = observe({"disk": 1, "app": 0, "late": 0}, {"disk": 1, "app": 1, "late": 0}, [], [])
    assert first == Blast((), (), ("disk", "app"))
    given_up = observe(BEFORE, BEFORE, [Window("disk", 100, 0)], [call("fs", "disk", 900, 950)])
    assert given_up == Blast(("disk",), ("fs",), ("app", "other"))
    paused = observe(BEFORE, BEFORE, [Window("disk", 100, 200)], [call("fs", "disk", 150, 160)])
    assert paused.degraded == ()


def test_who_was_down_is_not_degraded_too() -> None:
    both = observe(BEFORE, AFTER | {"fs": 2}, OUTAGE, [call("fs", "disk", 150, 160)])
    assert both == Blast(("disk", "fs"), (), ("app", "other"))


def test_an_outage_lasts_until_a_life_has_replied() -> None:
    overtaken = RECOVERY._replace(serving_ns=0)
    second = RECOVERY._replace(life=2, killed_ns=30, serving_ns=50)
    elsewhere = RECOVERY._replace(server="fs", life=2)
    assert outages([RECOVERY]) == [Window("disk", 10, 20)]
    assert outages([RECOVERY._replace(killed_ns=0, client_ns=99)]) == [Window("disk", 12, 20)]
    assert outages([overtaken, elsewhere]) == [Window("disk", 10, 0), Window("fs", 10, 20)]
    assert outages([overtaken, second]) == [Window("disk", 10, 50), Window("disk", 30, 50)]
    assert repaired_by(second, [RECOVERY, second._replace(serving_ns=0)]) is second
    assert repaired_by(overtaken, [RECOVERY._replace(life=0), overtaken]) is None


# --- both ---------------------------------------------------------------------------------------

any_time = settings(deadline=None)
NAMES = [f"s{number}" for number in range(7)]


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    """Calls without a cycle: each server may call those after it."""
    return {
        name: [callee for callee in NAMES[at + 1 :] if draw(st.booleans())]
        for at, name in enumerate(NAMES)
    }


class Run:
    """Calls of a system while `victim` answers nobody from 1,000 to 2,000 ns; each call in its
    turn makes calls, one after the other, as a server with one thread does."""

    def __init__(self, calls: Mapping[str, list[str]], victim: str) -> None:
        self.calls, self.victim = calls, victim
        self.rows: list[TraceRow] = []

    def visit(self, client: str, server: str, now: int, chosen: random.Random | None) -> int:
        """One call; when it was done. Without `chosen` a server calls all that it may."""
        begun, now = now, now + 1
        if server == self.victim and 1000 <= now < 2000:
            now = 2000
        callees = self.calls[server]
        for callee in callees if chosen is None else chosen.sample(callees, len(callees) // 2):
            now = self.visit(server, callee, now, chosen)
        self.rows.append(call(client, server, begun, now + 1))
        return now + 1

    def observed(self) -> Blast:
        before = dict.fromkeys(self.calls, 1)
        window = Window(self.victim, 1000, 2000)
        return observe(before, before | {self.victim: 2}, [window], self.rows)


@any_time
@given(graphs(), st.sampled_from(NAMES))
def test_when_everybody_calls_during_the_outage_the_prediction_is_met(
    calls: dict[str, list[str]], victim: str
) -> None:
    run = Run(calls, victim)
    for name in NAMES:
        for callee in calls[name]:
            run.visit(name, callee, 1500, None)
    assert run.observed() == predict(system(calls), [victim])


@any_time
@given(graphs(), st.sampled_from(NAMES), st.integers(0, 99))
def test_nobody_else_is_ever_observed_to_feel_it(
    calls: dict[str, list[str]], victim: str, seed: int
) -> None:
    run, dice = Run(calls, victim), random.Random(seed)
    for name in NAMES:
        for callee in calls[name]:
            run.visit(name, callee, dice.randrange(3000), dice)
    predicted, observed = predict(system(calls), [victim]), run.observed()
    assert observed.down == predicted.down
    assert set(observed.degraded) <= set(predicted.degraded)


# --- the command --------------------------------------------------------------------------------


def test_the_command_says_who_and_why(ukernel: Ukernel) -> None:
    lines = ukernel("blast", "disk", str(STORAGE)).stdout.splitlines()
    assert [line.split(None, 2) for line in lines[1:4]] == [
        ["disk", "down", "it dies"],
        ["fs", "degraded", "fs -> disk"],
        ["shell", "degraded", "shell -> fs -> disk, when it runs"],
    ]
    assert "console  untouched  cannot reach disk" in lines
    gone = ukernel("blast", "machine", str(STORAGE)).stdout
    assert "its device is gone: clock" in gone


def test_the_command_says_it_in_json(ukernel: Ukernel) -> None:
    told = json.loads(ukernel("blast", "disk", str(STORAGE), "--json").stdout)
    assert told == {
        "victim": "disk",
        "down": ["disk"],
        "degraded": ["fs", "shell"],
        "untouched": ["machine", "console", "timer", "rng"],
        "paths": {"fs": ["fs", "disk"], "shell": ["shell", "fs", "disk"]},
        "holds": {},
    }


def test_the_command_knows_the_restart_strategies(ukernel: Ukernel, tmp_path: Path) -> None:
    config = tmp_path / "pair.yaml"
    config.write_text(
        "system: pair\n"
        "groups: {both: [a, b]}\n"
        "servers:\n"
        "  a: {run: servers.echo, serves: echo, restart: {strategy: one_for_all}}\n"
        "  b: {run: servers.echo, serves: echo}\n"
    )
    lines = ukernel("blast", "a", str(config)).stdout.splitlines()
    assert lines[2].split(None, 2) == ["b", "down", "a takes it along: strategy one_for_all"]
    assert "a     untouched  cannot reach b" in ukernel("blast", "b", str(config)).stdout


def test_the_command_refuses_what_is_not_there(ukernel: Ukernel, tmp_path: Path) -> None:
    assert "did you mean 'disk'?" in ukernel("blast", "dsik", str(STORAGE), status=2).stderr
    assert "name its driver" in ukernel("blast", "con0", str(STORAGE), status=2).stderr
    assert "none.yaml" in ukernel("blast", "a", str(tmp_path / "none.yaml"), status=2).stderr


def test_the_command_names_the_objects_that_a_server_holds(
    ukernel: Ukernel, tmp_path: Path
) -> None:
    config = tmp_path / "parts.yaml"
    config.write_text(
        "system: parts\n"
        "servers:\n"
        "  parts: {run: servers.echo, serves: block}\n"
        "  a: {run: servers.echo, calls: [{parts: {badge: 1}}]}\n"
        "  b: {run: servers.echo, calls: [{parts: {badge: 2}}]}\n"
        "  a2: {run: servers.echo, calls: [{parts: {badge: 1}}]}\n"
    )
    lines = ukernel("blast", "a", str(config)).stdout.splitlines()
    assert lines[-1].split(None, 2) == ["parts:1", "held", "by a and a2"]
    assert "b      degraded  b -> parts:2" in ukernel("blast", "parts", str(config)).stdout
    told = json.loads(ukernel("blast", "b", str(config), "--json").stdout)
    assert told["holds"] == {"parts:2": []}
