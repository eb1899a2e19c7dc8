"""Experiments beside virtual machines: what their guests notice, and what a single process loses.

Both runs are short, and gaps are judged generously: others run beside us. What the checkers make of
small differences is tested without processes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.journey.experiments import ALWAYS, READY, experiment, play, results, told
from ukernel.abi.vm import RUNNING

SYSTEM = f"""
system: bystander
hardware:
  disk0: {{model: virtio-blk, image: d.img, size: 1MiB}}
servers:
  disk: {{run: servers.disk, serves: block, devices: [disk0], {ALWAYS}}}
  parts:
    run: servers.partitions
    serves: block
    calls: [{{disk: {{via: channel}}}}]
    window: 64
    args: {{parts: [64KiB, 128KiB]}}
    {ALWAYS}
  switch: {{run: servers.switch, serves: ethernet, window: 64, args: {{ports: 2}}, {ALWAYS}}}
groups: {{storage: [disk, parts]}}
vms:
  vm-a: {{image: heartbeat, memory: 1MiB, share: 30, disk: {{server: parts, badge: 1}}, {ALWAYS}}}
  vm-b: {{image: diskcheck, memory: 1MiB, share: 20, disk: {{server: parts, badge: 2}}, {ALWAYS}}}
  vm-n: {{image: netping, memory: 1MiB, nic: {{server: switch, port: 1}}, {ALWAYS}}}
"""
GUESTS = [
    {"client": "pulse-a", "run": "guest", "to": "vm-a", "bystander": True},
    {"client": "pulse-b", "run": "guest", "to": "vm-b", "bystander": True},
    {"client": "pulse-n", "run": "guest", "to": "vm-n"},
]
CHECKERS = [{"guest_gap": {"times": 20}}, "guests_right", "bystanders", "beside_dies"]


@pytest.mark.usefixtures("runtime_dir")
def test_guests_beside_the_dead_go_on_and_in_one_process_they_die(tmp_path: Path) -> None:
    run = play(
        experiment(
            tmp_path,
            SYSTEM,
            workload=GUESTS,
            steady_state=[READY],
            calm="2s",
            nemesis=[
                {"at": "100ms", "every": "500ms", "count": 4, "do": "kill", "target": "disk"},
                {"at": "300ms", "every": "1s", "count": 2, "do": "kill", "target": "vm-n"},
            ],
            quiet="500ms",
            beside="mono",
            checkers=[*CHECKERS, "min_landed", "one_outcome_per_call"],
        )
    )
    assert told(run) == {}
    assert len(results(run)) == 7
    evidence, mono = run.evidence, run.evidence.beside
    assert {each.server for each in evidence.recoveries} == {"disk", "vm-n"}
    assert {each.state for each in evidence.health} == {RUNNING}
    assert mono is not None
    assert mono.placement == "mono"
    assert {each.server for each in mono.recoveries} == {
        "disk", "parts", "switch", "vm-a", "vm-b", "vm-n",
    }  # fmt: skip
    assert len({each.dead_ns for each in mono.recoveries}) == 1  # there was one process
    (kill,) = mono.injections
    assert any(line.machine == "vm-a" and line.at_ns > kill.landed_ns for line in mono.lines)


@pytest.mark.usefixtures("runtime_dir")
def test_what_a_guest_notices_breaks_the_claim(tmp_path: Path) -> None:
    """Its monitor is killed and it boots; its disk has other bytes than it wrote; and what is in
    one process beside is not the guest."""
    run = play(
        experiment(
            tmp_path,
            SYSTEM,
            workload=GUESTS,
            calm="1s",
            nemesis=[
                {"at": 0, "do": "device", "device": "disk0", "fault": "wrong_data", "for": "1s"},
                {"at": "500ms", "do": "kill", "target": "disk"},
                {"at": "900ms", "do": "kill", "target": "vm-a"},
            ],
            quiet="500ms",
            beside="hybrid",
            checkers=CHECKERS,
        )
    )
    assert results(run) == {
        "steady_state": "held",
        "guest_gap": "broken",
        "guests_right": "broken",
        "bystanders": "held",
        "beside_dies": "broken",
    }
    why = told(run)
    assert "again: it went back" in why["guest_gap"]
    assert "vm-b says 'diskcheck" in why["guests_right"]
    assert "vm-a is in another process, and lives" in why["beside_dies"]
