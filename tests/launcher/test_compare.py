"""compare, without a process: who plays which part, what the figures and their ratios are, what is
explained by what, and which claims a run bears out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from launcher.chaos.report.markup import Markup
from launcher.compare import figures, report, tables
from launcher.compare.amounts import QUICK, Amounts
from launcher.compare.cases import MONO, Case, Cast, absent, cases, cast, doomed, with_load
from launcher.compare.explain import Span, explain
from launcher.compare.figures import JOBS
from launcher.compare.gauge import Reading
from launcher.compare.kill import Kill
from launcher.compare.result import Result
from launcher.compare.run import Job, Run
from launcher.config import SystemFile, load
from launcher.source import ConfigError
from tests.conftest import CONFIGS
from ukernel.abi.services import Kept, Timed

MICRO, CHANNEL, HYBRID = Case("micro", "kernel"), Case("micro", "channel"), Case("hybrid", "kernel")
US = 1000
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
