"""Who shares a process, by which policy, and what is refused. No process is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from launcher import board, placement, rules
from launcher.config import ConfigError, load, placed
from launcher.heartbeat import Vital
from launcher.placement import Unit, merged, units
from launcher.tasks import Task
from launcher.vitals import of_processes
from tests.conftest import CONFIGS
from ukernel.abi.manifest import Backoff, Heartbeat, Link, Manifest, Restart, Server


def server(*calls: str, serves: str | None = "echo", **keys: object) -> Server:
    made = Server(run="servers.echo", serves=serves, **keys)  # type: ignore[arg-type]
    return made.model_copy(update={"calls": {name: Link() for name in calls}})


SERVERS = {
    "app": server("top", serves=None),
    "top": server("low", "side"),
    "low": server(),
    "side": server(),
    "tool": server("top", serves=None, start="demand"),
}


def members(how: str, **groups: tuple[str, ...]) -> list[tuple[str, ...]]:
    manifest = Manifest(system="s", servers=SERVERS, groups=groups, placement=how)  # type: ignore[arg-type]
    return [unit.members for unit in units(manifest)]


def test_everybody_is_alone_in_a_microkernel() -> None:
    assert members("micro", pair=("top", "low")) == [("low",), ("side",), ("top",), ("app",)]


def test_all_servers_share_a_monolith_in_start_order_and_applications_do_not() -> None:
    assert members("mono") == [("low", "side", "top"), ("app",)]


def test_groups_share_a_process_in_a_hybrid() -> None:
    assert members("hybrid", pair=("top", "low")) == [("side",), ("low", "top"), ("app",)]


def test_who_serves_nobody_stays_out_of_its_groups_process() -> None:
    assert members("hybrid", pair=("app", "top")) == [("low",), ("side",), ("top",), ("app",)]


def test_one_server_alone_keeps_its_own_terms() -> None:
    only = server(memory=1 << 20)
    assert units(Manifest(system="s", servers={"a": only}, placement="mono")) == [
        Unit(("a",), only)
    ]


def test_the_strictest_policy_is_the_processs() -> None:
    tough = Restart(when="always", max_restarts=9, within_s=5, backoff=Backoff(first_ms=0))
    frail = Restart(max_restarts=2, within_s=60, ready_timeout_s=3, strategy="one_for_all")
    found = merged(
        [
            server(restart=tough, critical=True, memory=1 << 20, cores=(0, 1), priority=7),
            server(restart=frail, standby=True, spawn="cold", cores=(1, 2), priority=9),
        ]
    )
    assert found.restart == Restart(
        when="always", max_restarts=2, within_s=60, ready_timeout_s=13, strategy="one_for_all"
    )
    assert (found.critical, found.standby, found.spawn, found.priority) == (True, True, "cold", 9)
    assert (found.cores, found.memory) == ((1,), (1 << 20) + placement.MEMORY)


def test_without_any_limit_there_is_none() -> None:
    assert merged([server(), server()]).memory is None
    assert merged([server(memory=5), server(memory=6)]).memory == 11


@pytest.mark.parametrize(
    ("each", "joint"),
    [
        ((Heartbeat(), Heartbeat(misses=9)), Heartbeat(misses=9)),
        ((Heartbeat(), Heartbeat(period_ms=0)), Heartbeat(period_ms=0)),
        ((Heartbeat(max_call_s=3), Heartbeat(max_call_s=2)), Heartbeat(max_call_s=2)),
    ],
)
def test_the_most_patient_heartbeat_is_the_processs(
    each: tuple[Heartbeat, ...], joint: Heartbeat
) -> None:
    assert merged([server(heartbeat=h) for h in each]).heartbeat == joint


def test_the_supervisor_sees_one_child_for_each_process() -> None:
    file = placed(load(CONFIGS / "storage.yaml"), "mono")
    assert list(board.supervised(file).children) == ["machine", "disk"]


def test_a_file_that_cannot_be_placed_so_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("system: s\nservers:\n  echo: {run: servers.echo, serves: echo}\n")
    with pytest.raises(ConfigError) as refused:
        placed(load(path), "hybrid")
    assert str(refused.value).startswith(f"{path}:1:1: placement: hybrid puts the members of each")
    assert placed(load(path), "mono").manifest.placement == "mono"


def test_who_shares_a_process_needs_a_core_in_common() -> None:
    servers = {"here": server(cores=(0,)), "there": server(cores=(1,))}
    draft = rules.Draft(Path(), list(servers), [], [], servers, {}, {}, "mono")
    (finding,) = rules.processes_have_cores(draft)
    assert finding.keys == ("servers", "there", "cores")
    assert "shares the process mono with here" in finding.text


def test_a_process_has_room_for_so_many() -> None:
    servers = {f"s{n}": server() for n in range(placement.MOST + 1)}
    draft = rules.Draft(Path(), list(servers), [], [], servers, {}, {}, "mono")
    (finding,) = rules.processes_have_room(draft)
    assert f"has room for {placement.MOST}" in finding.text


def task(name: str, max_call_s: float | None = None) -> Task:
    made = Task(name, "", [], b"", cast(Any, None), cast(Any, None))
    made.spec = server(heartbeat=Heartbeat(max_call_s=max_call_s))
    return made


def test_what_one_member_says_the_process_says() -> None:
    bound, free = task("bound", max_call_s=1.0), task("free")
    bound.company = free.company = [bound, free]
    alone = task("alone")
    found = of_processes(
        [bound, free, alone],
        {
            "bound": Vital(1.0, 5.0, oldest_s=9.0),
            "free": Vital(2.0, 4.0, oldest_s=3.0, waits_for="kv"),  # of its calls nobody counts
            "alone": Vital(1.0, oldest_s=2.0),
        },
    )
    assert found == {
        "bound": Vital(2.0, 5.0, oldest_s=9.0, waits_for="kv"),
        "alone": Vital(1.0, oldest_s=2.0),
    }


def test_who_waits_for_a_housemate_is_no_excuse_for_their_process() -> None:
    fs, disk = task("fs"), task("disk")
    fs.company = disk.company = [fs, disk]
    found = of_processes([fs, disk], {"fs": Vital(1.0, waits_for="disk"), "disk": Vital(1.0)})
    assert found == {"fs": Vital(1.0)}
