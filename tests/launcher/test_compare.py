"""compare, without a process: who plays which part, what the figures and their ratios are, what is
explained by what, and which claims a run bears out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from launcher.chaos.report.markup import Markup
from launcher.compare import figures, guests, report, tables
from launcher.compare.amounts import QUICK, Amounts
from launcher.compare.cases import MONO, Case, Cast, absent, cases, cast, doomed, with_load
from launcher.compare.drive import NoOutcome
from launcher.compare.explain import Span, explain
from launcher.compare.figures import JOBS
from launcher.compare.gauge import Reading
from launcher.compare.guests import Did, Felt, Guest, Look
from launcher.compare.kill import Kill
from launcher.compare.result import Result
from launcher.compare.run import Job, Run
from launcher.compare.screen import Screen
from launcher.config import SystemFile, load
from launcher.source import ConfigError
from tests.conftest import CONFIGS
from ukernel.abi.services import Kept, Timed

MICRO, CHANNEL, HYBRID = Case("micro", "kernel"), Case("micro", "channel"), Case("hybrid", "kernel")
US = 1000
MS = 1_000_000
S = 1000 * MS
GROUPED = """
system: grouped
hardware:
  disk0: {model: virtio-blk, image: disk.img, size: 8MiB}
  clock: {model: timer}
servers:
  disk: {run: servers.disk, serves: block, devices: [disk0]}
  timer: {run: servers.timer, serves: timer, devices: [clock]}
  fs: {run: servers.fs, serves: file, calls: [disk], state: disk}
groups:
  storage: [disk, fs]
"""
HOSTING = """
system: hosting
hardware:
  disk0: {model: virtio-blk, image: disk.img, size: 8MiB}
  nic0: {model: virtio-net, backend: switch, switch: lan}
servers:
  disk: {run: servers.disk, serves: block, devices: [disk0]}
  nic: {run: servers.nic, serves: ethernet, devices: [nic0]}
  parts:
    run: servers.partitions
    serves: block
    calls: [disk]
    args: {parts: [4MiB, 64KiB]}
  fs:
    run: servers.fs
    serves: file
    calls: [{parts: {badge: 1}}]
    state: persistent
    args: {disk: parts}
vms:
  beat:
    image: heartbeat
    memory: 1MiB
    share: 30
    disk: {server: parts, badge: 2}
    nic: {server: nic}
    snapshot_every: 200ms
  beat2: {standby_for: beat}
"""


def grouped(directory: Path, text: str = GROUPED) -> SystemFile:
    path = directory / "grouped.yaml"
    path.write_text(text)
    return load(path)


# --- who is who ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["storage", "resilience"])
def test_the_parts_are_found_by_what_servers_do(name: str) -> None:
    file = load(CONFIGS / f"{name}.yaml")
    assert cast(file) == Cast("load", "load-echo", "fs", "disk")
    assert [case.name for case in cases(file)] == ["mono", "micro/channel", "micro/kernel"]


def test_a_name_that_is_taken_is_not_taken_again(tmp_path: Path) -> None:
    text = GROUPED.replace("  timer:", "  load: {run: servers.echo, serves: echo}\n  timer:")
    assert cast(grouped(tmp_path, text)).load == "load-2"


def test_groups_make_hybrids(tmp_path: Path) -> None:
    names = [case.name for case in cases(grouped(tmp_path))]
    assert names == ["mono", "hybrid/kernel", "hybrid/channel", "micro/channel", "micro/kernel"]


def test_a_hybrid_that_cannot_be_is_absent_and_a_mono_that_cannot_be_is_refused(
    tmp_path: Path,
) -> None:
    apart = GROUPED.replace("devices: [clock]", "devices: [clock], policy: fifo")
    with pytest.raises(ConfigError, match=r"servers\.timer\.policy: fifo, and it shares"):
        absent(grouped(tmp_path, apart), cast(grouped(tmp_path)))
    cycle = GROUPED.replace("calls: [disk], state", "calls: [disk, echo], state").replace(
        "  timer:", "  echo: {run: servers.echo, serves: echo, calls: [disk]}\n  timer:"
    )
    file = grouped(tmp_path, cycle)
    missing = absent(file, cast(file))
    assert [case.name for case in missing] == ["hybrid/kernel", "hybrid/channel"]
    assert all("would wait for each other" in why for why in missing.values())


def test_without_a_file_server_it_says_what_is_missing_and_where() -> None:
    with pytest.raises(ConfigError, match=r"minimal\.yaml:\d+:\d+: no server .* serves `file`"):
        cast(load(CONFIGS / "minimal.yaml"))


def test_without_a_disk_it_says_so_at_the_file_server(tmp_path: Path) -> None:
    text = GROUPED.replace("calls: [disk], ", "")
    line = 1 + text.splitlines().index(next(li for li in text.splitlines() if "servers.fs" in li))
    with pytest.raises(ConfigError, match=rf"grouped\.yaml:{line}:\d+: fs reaches no driver"):
        cast(grouped(tmp_path, text))


def test_every_link_goes_the_way_of_the_case_and_the_file_is_left_alone(tmp_path: Path) -> None:
    file = grouped(tmp_path)
    whole = with_load(file, cast(file), CHANNEL).manifest
    assert {link.via for server in whole.servers.values() for link in server.calls.values()} == {
        "channel"
    }
    assert whole.placement == "micro"
    assert whole.servers["fs"].args["format_if_blank"] is True
    assert {server.heartbeat.period_ms for server in whole.servers.values()} == {0}
    assert set(whole.servers) - set(file.manifest.servers) == {"load", "load-echo"}
    assert file.manifest.servers["fs"].args == {}


@pytest.mark.parametrize(
    ("case", "dying"),
    [
        (MICRO, {"disk"}),
        (HYBRID, {"disk", "fs"}),
        (MONO, {"disk", "fs", "timer", "load", "load-echo"}),
    ],
)
def test_who_is_at_risk_follows_from_the_placement(
    tmp_path: Path, case: Case, dying: set[str]
) -> None:
    file = grouped(tmp_path)
    assert doomed(with_load(file, cast(file), case).manifest, "disk") == dying


def test_whom_a_strategy_takes_along_is_at_risk_too(tmp_path: Path) -> None:
    text = GROUPED.replace("devices: [disk0]", "devices: [disk0], restart: {strategy: one_for_all}")
    assert doomed(grouped(tmp_path, text).manifest, "disk") == {"disk", "fs"}


def test_a_large_file_leaves_room_on_the_disk() -> None:
    assert Amounts().fitting(8 << 20).write == 2
    assert QUICK.fitting(1 << 30) == QUICK


def test_virtual_machines_bring_a_second_victim_and_standbys_are_left_out(tmp_path: Path) -> None:
    found = cast(grouped(tmp_path, HOSTING))
    assert (found.victim, found.card) == ("disk", "nic")
    assert (found.part, found.vms) == (("parts", 1), ("beat",))


# --- figures ------------------------------------------------------------------------------------


def a_job(name: str, unit_us: int, calls: int = 0, kernel_us: int = 0, past: int = 0) -> Job:
    """Ten units; each takes so long, makes so many calls by the kernel and past it, and gives it
    work."""
    unit_ns = unit_us * US
    each = Timed(name, 10, 1 << 20, 10 * unit_ns, unit_ns, 2 * unit_ns, 0)
    used = Reading(5_000_000, 200, 10 * calls, 20 * calls, 10 * kernel_us * US, 10 * past)
    return Job([each._replace(operation="whole"), each], used)


def a_run(
    case: Case, *, unit_us: int = 100, calls: int = 0, call_us: int = 1, kernel_us: int = 0,
    past: int = 0, **kill: object,
) -> Run:  # fmt: skip
    """Every job alike, but for the empty calls: those give the kernel 9 us of work, if any."""
    jobs = {name: a_job(name, unit_us, calls, kernel_us, past) for name in JOBS}
    jobs["call"] = a_job("call", call_us, *((1, 9) if calls else ()))
    jobs["rested"] = a_job("rested", call_us)
    jobs["trap"] = a_job("trap", call_us)
    done = Kill(["disk"], {}, [], 9_000_000, 40, Kept(20, 0, 0), under_load=True)
    return Run(case, 200.0, 9, 70_000_000, jobs, done._replace(**kill))  # type: ignore[arg-type]


def a_result(*runs: Run, tmp_path: Path) -> Result:
    file = grouped(tmp_path)
    rounds: dict[Case, dict[int, Run]] = {case: {} for case in cases(file)}
    for run in runs:
        rounds[run.case][len(rounds[run.case])] = run
    return Result(file, cast(file), QUICK, {"cpu": "x"}, {}, "", rounds)


def test_a_ratio_is_made_within_a_round(tmp_path: Path) -> None:
    """The machine is twice as slow in the second round: micro takes 3 times mono's in both."""
    runs = [a_run(case, unit_us=us) for us in (100, 200) for case in (MONO,)]
    runs += [a_run(MICRO, unit_us=3 * us) for us in (100, 200)]
    result = a_result(*runs, tmp_path=tmp_path)
    files = next(m for m in result.measures() if m.name == "files_per_s")
    found = result.figure(files, MICRO)
    assert found is not None
    assert found.values == pytest.approx([1e4 / 3, 5e3 / 3])
    assert found.ratio == pytest.approx(1 / 3)
    assert not found.doubtful
    same = result.figure(files, MONO)
    assert same is not None
    assert same.doubtful


def test_the_difference_is_explained_by_calls_at_what_a_call_costs(tmp_path: Path) -> None:
    """Of 1000 us: 12 calls, each 80 us more than a direct one, for which the kernel works 9; it
    has worked 116, 8 more than that. 32 us have no name."""
    mono = a_run(MONO, unit_us=100, call_us=2)
    micro = a_run(MICRO, unit_us=1100, calls=12, call_us=82, kernel_us=116)
    result = a_result(mono, micro, tmp_path=tmp_path)
    files = next(e for e in explain(result.rounds) if e.job == "files")
    assert [(c.name, c.number, c.total) for c in files.costs] == [
        ("calls through the kernel", 12, Span(960, 0)),
        ("the kernel, beyond empty calls", 1, Span(8, 8)),
    ]
    assert files.difference == Span(1000, 0)
    assert files.rest == pytest.approx(Span(32, -8))


def test_calls_by_channel_are_those_that_their_clients_count(tmp_path: Path) -> None:
    mono = a_run(MONO, unit_us=100, call_us=2)
    micro = a_run(MICRO, unit_us=1100, calls=12, call_us=82)
    channel = a_run(CHANNEL, unit_us=300, calls=2, call_us=7, past=10)
    result = a_result(mono, micro, channel, tmp_path=tmp_path)
    assert figures.passed("files", CHANNEL, result.rounds) == 10
    found = {(e.case, e.job): e for e in result.explained()}[CHANNEL, "files"]
    assert [(c.name, c.number, c.each.time_us) for c in found.costs] == [
        ("calls through the kernel", 2, 80),
        ("calls by channel", 10, 5),
    ]
    assert found.rest.time_us == pytest.approx(200 - 160 - 50)


def test_calls_by_channel_that_slept_are_counted_by_context_switches(tmp_path: Path) -> None:
    """30 switches more than mono's; a call that sleeps takes 4, and 18 us more than one that does
    not: 20, of which the pause before it is 2, as under mono. So 7.5 of the 10 calls slept."""
    mono, channel = a_run(MONO, call_us=2), a_run(CHANNEL, call_us=7, past=10)
    mono = with_jobs(mono, files=(100, 10), rested=(4, 2), call=(2, 0), trap=(1, 0))
    channel = with_jobs(channel, files=(300, 40), rested=(27, 8), call=(7, 2), trap=(1, 0))
    micro = a_run(MICRO, unit_us=1100, calls=10, call_us=82)
    result = a_result(mono, channel, micro, tmp_path=tmp_path)
    found = {(e.case, e.job): e for e in result.explained()}[CHANNEL, "files"]
    assert [(c.name, c.number, c.each.time_us) for c in found.costs] == [
        ("calls by channel", 10, 5),
        ("of these, woken from sleep", 7.5, 18),
    ]


def with_jobs(run: Run, **jobs: tuple[int, int]) -> Run:
    """Of each, how long a unit takes in us and how many context switches it has."""
    made = {}
    for name, (unit_us, switches) in jobs.items():
        job, past = a_job(name, unit_us), run.jobs[name].used.channel
        made[name] = job._replace(used=job.used._replace(switches=10 * switches, channel=past))
    return run._replace(jobs={**run.jobs, **made})


# --- virtual machines ---------------------------------------------------------------------------


def test_what_a_guest_says_is_understood_in_any_pieces() -> None:
    beat, check, other = Screen("beat"), Screen("check"), Screen("other")
    beat.show(1 * S, b"heartbeat with a disk\nheartbeat 10 1000 250\r\nheartbeat 2")
    beat.show(2 * S, b"0 2000 900\nheartbeat: the disk says 1\n")
    check.show(1 * S, b"diskcheck of 64 sectors\n")
    check.show(2 * S, b"diskcheck: the write of sector 8 ended with status 1\n")
    assert not check.checked_since(0)
    check.show(3 * S, b"diskcheck 1 sectors 64 wrong 3 errors 2\n")
    other.show(1 * S, b"\xffhello\nheartbeat")
    assert [(each.ticks, each.late_ms) for each in beat.beats] == [(10, 0.25), (20, 0.9)]
    assert (beat.lines, beat.wrong, beat.errors) == (2, 0, 1)
    assert (check.lines, check.wrong, check.errors) == (1, 3, 2)
    assert [beat.heard_since(2 * S - 1), beat.heard_since(2 * S)] == [True, False]
    assert [check.checked_since(3 * S - 1), check.checked_since(3 * S)] == [True, False]
    assert beat.checked_since(9 * S)
    assert check.heard_since(9 * S)
    assert (other.kind, other.lines) == (None, 0)


def test_gaps_are_between_heartbeats_from_before_a_stretch_to_after_it() -> None:
    screen = Screen("vm")
    for number, at_ms in enumerate((0, 100, 200, 650, 750, 2000), 1):
        screen.show(at_ms * MS, f"heartbeat {10 * number} 0 {at_ms}\n".encode())
    assert screen.gap_ms(210 * MS, 220 * MS) == 450
    assert screen.gap_ms(110 * MS, 190 * MS) == 100
    assert screen.gap_ms(700 * MS, 1000 * MS) == 1250
    assert screen.ticks_per_s(0, 750 * MS) == pytest.approx(40 / 0.75)
    assert screen.latest_ms(0, 750 * MS) == 0.75
    assert (screen.ticks_per_s(0, 50 * MS), Screen("vm").gap_ms(0, MS)) == (None, None)


def a_look(at_s: int, life: int, times: int, restored_ms: int = 0) -> Look:
    counted = dict.fromkeys(("disk_requests", "frames_sent", "frames_received"), times)
    exits = [{"kind": "wfi", "times": times}]
    counted |= {"run_us": 1000 * times, "restored_from_ms": restored_ms}
    status = {**counted, "exits": exits, "faults": times, "resets": 0}
    return Look(at_s * 1000 * MS, life, status)


def test_what_lies_between_two_looks_is_told_by_the_second() -> None:
    did = guests.did("vm", Screen("vm"), a_look(1, 1, 10), a_look(3, 1, 110))
    assert did == Did({"wfi": 50}, 0.05, 50, 100, None, None)
    with pytest.raises(NoOutcome, match="vm has died while"):
        guests.did("vm", Screen("vm"), a_look(1, 1, 10), a_look(3, 2, 110))
    back = guests.felt(Screen("vm"), a_look(1, 1, 0), a_look(3, 2, 0, restored_ms=80), 0, 1)
    assert back == Felt(1, 80, None, 0)
    on = guests.felt(Screen("vm"), a_look(1, 1, 5), a_look(3, 1, 7, restored_ms=80), 0, 1)
    assert on == Felt(0, 0, None, 2)


def a_guest(
    lives: int = 0, wrong: int = 0, errors: int = 0, faults: int = 0, **more: object
) -> Guest:
    did = Did({"wfi": 100.0}, 0.1, 10.0, 0.0, 100.0, 3.0)
    felt = [Felt(lives, 90 * lives, 130.0, 0), Felt(lives, 40 * lives, 150.0, faults)]
    return Guest(did, felt, True, 20, wrong, errors)._replace(**more)  # type: ignore[arg-type]


def hosted(
    tmp_path: Path, guest: Guest, mono: Guest, micro_dies: str = "", spared: str = ""
) -> Result:
    """A comparison of a system with a virtual machine, `beat`."""
    file = grouped(tmp_path, HOSTING)
    every = [name for name in file.manifest.servers if name != spared]
    rounds: dict[Case, dict[int, Run]] = {}
    for case, found, names in ((MONO, mono, every), (MICRO, guest, [micro_dies])):
        run = a_run(case, died=list(filter(None, [*names, "disk"])))
        card = run.kill._replace(died=list(filter(None, [*names, "nic"])))
        rounds[case] = {0: run._replace(card=card, guests={"beat": found})}
    return Result(file, cast(file), QUICK, {"cpu": "x"}, {}, "", rounds)


def test_of_virtual_machines_each_claim_can_break(tmp_path: Path) -> None:
    dead = a_guest(lives=1)
    assert hosted(tmp_path, a_guest(), dead).held
    outlive, die, right = (
        "under micro no virtual machine dies with a driver",
        "under mono all virtual machines die with it",
        "under micro no guest finds a wrong byte or is told of an error",
    )
    assert outlive in broken(hosted(tmp_path, a_guest(), dead, micro_dies="beat"))
    assert broken(hosted(tmp_path, a_guest(), dead, spared="beat")) == [die]
    assert broken(hosted(tmp_path, a_guest(wrong=1), dead)) == [right]
    assert broken(hosted(tmp_path, a_guest(errors=1), dead)) == [right]
    assert broken(hosted(tmp_path, a_guest(faults=1), dead)) == [right]
    assert broken(hosted(tmp_path, a_guest(lines=0), dead)) == [right]
    silent = hosted(tmp_path, a_guest(speaks=False, lines=0), dead)
    assert right not in [claim.claim for claim in silent.claims()]


def test_of_virtual_machines_the_same_is_told_everywhere(tmp_path: Path) -> None:
    result = hosted(tmp_path, a_guest(), a_guest(lives=1))
    made = {about: (titles, rows) for about, titles, rows in tables.tables(result)}
    assert len(made) == 6  # where the time goes is not told
    for titles, rows in made.values():
        assert {len(row) for row in rows} == {len(titles)}
    _, rows = made["what the deaths did to virtual machines"]
    assert [row[2:4] for row in rows] == [[1, "back 90 to 90 ms"], [0, "went on"]]
    document = result.as_json()
    assert document["cast"]["vms"] == ("beat",)
    for case in document["cases"]:
        (virtual,) = case["virtual_machines"]
        assert virtual["beat"]["felt"][0]["gap_ms"] == 130
        assert case["figures"]["beat_gap_nic_killed_ms"]["median"] == 150
        assert [kill["kept"]["lost"] for kill in case["card_kills"]] == [0]
    assert [m.name for m in result.shown_of_guests()] == [
        "beat_exits", "beat_gap_disk_killed_ms", "beat_gap_nic_killed_ms",
    ]  # fmt: skip


def test_without_virtual_machines_nothing_is_said_of_them(tmp_path: Path) -> None:
    document = a_result(a_run(MONO), a_run(MICRO), tmp_path=tmp_path).as_json()
    assert list(document["cast"]) == ["load", "echo", "fs", "victim"]
    assert not {"virtual_machines", "card_kills"} & document["cases"][0].keys()
    assert len(document["claims"]) == 4


# --- claims -------------------------------------------------------------------------------------


def broken(result: Result) -> list[str]:
    return [claim.claim for claim in result.claims() if not claim.held]


def test_a_good_comparison_holds(tmp_path: Path) -> None:
    assert a_result(a_run(MONO), a_run(MICRO), tmp_path=tmp_path).held


def test_each_claim_can_break(tmp_path: Path) -> None:
    lost = a_run(MICRO, kept=Kept(20, 1, 0))
    assert broken(a_result(lost, tmp_path=tmp_path)) == ["no acknowledged write lost"]
    more = a_run(HYBRID, died=["disk", "fs", "timer"])
    result = a_result(more, tmp_path=tmp_path)
    assert broken(result) == ["nobody died whom the placement does not put at risk"]
    assert "hybrid/kernel: timer died too" in result.claims()[-1].why
    run = a_run(MICRO)
    rows = [run.jobs["read"].whole._replace(wrong=1), *run.jobs["read"].rows[1:]]
    jobs = {**run.jobs, "read": run.jobs["read"]._replace(rows=rows)}
    assert broken(a_result(run._replace(jobs=jobs), tmp_path=tmp_path)) == ["no wrong data"]
    good = a_result(a_run(MICRO), tmp_path=tmp_path)
    failed = dataclasses.replace(good, failures=[(MONO, 0, "fs failed at start\n  its log")])
    assert broken(failed) == ["every run came to its end"]
    assert failed.claims()[0].why == "mono, round 1: fs failed at start"


def test_of_nothing_no_claim_holds_and_everything_can_be_said(tmp_path: Path) -> None:
    nothing = a_result(tmp_path=tmp_path)
    assert len(broken(nothing)) == 4
    assert tables.tables(nothing)
    assert report.write(nothing, tmp_path / "report").exists()
    assert nothing.as_json()["explained"] == []


# --- as people see it ---------------------------------------------------------------------------


def test_the_page_says_what_the_paper_found_and_what_was_found_here(tmp_path: Path) -> None:
    result = a_result(a_run(MONO), a_run(MICRO, unit_us=125), tmp_path=tmp_path)
    text = report.page(result, Markup("<svg></svg>"))
    assert "SOSP&#x27;97" in text
    assert "micro/kernel loses 20% of small files" in text
    assert "mono is the monolithic kernel" in text


def test_rows_of_tables_are_as_long_as_their_titles(tmp_path: Path) -> None:
    result = a_result(a_run(MONO), a_run(MICRO, calls=3), a_run(HYBRID), tmp_path=tmp_path)
    made = tables.tables(result)
    assert len(made) == 4
    for _, titles, rows in made:
        assert {len(row) for row in rows} == {len(titles)}
