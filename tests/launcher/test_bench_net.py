"""bench net: bytes are counted, doubts are told, everything ends. No time is asserted: what a run
measures is for people to read."""

from __future__ import annotations

import json
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest

from launcher.bench.net import busy, netlink, picture, places, pytcp, result, run, table, visit
from launcher.bench.net.plan import MIB, VARIANTS, Plan, quick
from launcher.bench.net.result import (
    ABSENT,
    INVALID,
    OK,
    SCHEMA,
    STATUSES,
    SUSPECT,
    NetResult,
    Row,
    Visit,
    absent_row,
    row_of,
)
from launcher.rundir import running

US, S = 1_000, 1_000_000_000
SMALL = Plan(2 * MIB, 5, 1)


def visited(mib_per_s: float, came: int = 2 * MIB, rtt_us: int = 100, **doubts: Any) -> Visit:
    trips = {trip: [rtt_us * US, 3 * rtt_us * US, 2 * rtt_us * US] for trip in result.TRIPS}
    return Visit(came, round(came / MIB / mib_per_s * S), trips, **doubts)


def row(name: str, *rates: float, rtt_us: int = 100) -> Row:
    found = [visited(rate, rtt_us=rtt_us) for rate in rates]
    return row_of(VARIANTS[name], 2 * MIB, found, [])


# --- the plan -----------------------------------------------------------------------------------


def test_all_are_asked_for_the_same_bytes_but_who_is_so_slow() -> None:
    plan = Plan()
    asked = {name: plan.of(variant) for name, variant in VARIANTS.items()}
    assert {name for name, count in asked.items() if count != 64 * MIB} == {"pmd-pytcp"}
    assert asked["pmd-pytcp"] == 4 * MIB
    assert quick().of(VARIANTS["ukernel"]) == 16 * MIB


def test_a_visit_warms_up_downloads_and_measures_round_trips() -> None:
    steps = SMALL.steps(VARIANTS["ukernel"])
    assert [(step["do"], step["count"]) for step in steps] == [
        ("bulk", MIB // 2), ("bulk", 2 * MIB), ("ping", 5), ("echo", 5),
    ]  # fmt: skip
    assert [step["do"] for step in SMALL.steps(VARIANTS["ukernel-http"])] == ["http", "http"]
    assert Plan().steps(VARIANTS["linux"])[0]["count"] == MIB


def test_every_round_visits_all_of_them() -> None:
    names = list(VARIANTS)
    order = list(Plan(rounds=3).order(names))
    for start in range(0, len(order), len(names)):
        assert sorted(order[start : start + len(names)]) == sorted(names)


# --- figures and doubts -------------------------------------------------------------------------


def test_a_row_has_the_median_and_the_spread_of_its_rounds() -> None:
    found = row("ukernel", 100, 110, 90)
    assert (found.status, found.rounds, found.bytes) == (OK, 3, 2 * MIB)
    assert found.throughput == {
        "unit": "MiB/s", "median": 100, "min": 90, "max": 110, "spread": 0.2,
        "runs": [100, 110, 90],
    }  # fmt: skip
    assert found.rtt["ping"] == {
        "unit": "ns", "n": 9, "min": 100 * US, "p50": 200 * US, "p99": 300 * US, "max": 300 * US,
        "spread": 0.0, "runs": [200 * US] * 3,
    }  # fmt: skip
    assert row("ukernel-http", 100).rtt == {}


@pytest.mark.parametrize(
    ("doubtful", "status", "why"),
    [
        (visited(100, came=2 * MIB - 1), INVALID, "2097151 bytes came, 2097152 were asked for"),
        (visited(100, wrong=3), INVALID, "3 echoes are not what was sent"),
        (visited(100, busy=0.6), SUSPECT, "others used 30% of the processors"),
        (visited(100, stolen=0.1), SUSPECT, "the hypervisor took 5% of the processors"),
    ],
)
def test_a_doubtful_visit_is_told(doubtful: Visit, status: str, why: str) -> None:
    found = row_of(VARIANTS["linux"], 2 * MIB, [visited(100), doubtful], [])
    assert (found.status, found.reasons) == (status, [why])


def test_rounds_that_lie_apart_are_suspect_and_failed_ones_invalid() -> None:
    apart = row("ukernel", 100, 130, 90)
    assert (apart.status, len(apart.reasons)) == (SUSPECT, 1)
    assert "40% apart, at most 20%" in apart.reasons[0]
    failed = row_of(VARIANTS["ukernel"], 2 * MIB, [], ["it did not come up"])
    assert (failed.status, failed.throughput) == (INVALID, {})
    assert "it did not come up" in failed.reasons[0]


def test_who_beats_the_floor_is_suspect() -> None:
    rows = [row("linux", 130, 130), row("ukernel", 50), row("loopback", 100, 120)]
    result.hold_to_floor(rows)
    assert [one.status for one in rows] == [SUSPECT, OK, OK]
    assert "quicker than loopback" in rows[0].reasons[0]


def test_ratios_are_of_ours_to_each_other_stack_that_was_measured() -> None:
    rows = [
        row("ukernel", 100, rtt_us=200),
        row("ukernel-http", 50),
        absent_row(VARIANTS["pmd-pytcp"], "no network"),
        row("linux", 400, rtt_us=20),
        row("loopback", 800),
    ]
    assert result.ratios_of(rows) == {
        "ukernel_over_linux_throughput": 0.25,
        "ukernel_over_linux_ping_p50": 10.0,
        "ukernel_over_linux_echo_p50": 10.0,
        "ukernel-http_over_linux_throughput": 0.125,
    }


def made(*rows: Row) -> NetResult:
    return NetResult({}, {}, "", 2 * MIB, 1, list(rows))


def test_the_table_has_who_was_measured_and_the_notes_say_the_rest() -> None:
    found = made(
        row("ukernel", 100), row("ukernel-http", 50), absent_row(VARIANTS["pmd-pytcp"], "no pip")
    )
    titles, cells = table.table(found.results)
    assert all(len(line) == len(titles) for line in cells)
    assert [line[0] for line in cells] == ["ukernel", "ukernel-http"]
    assert cells[0][1:] == [2.0, 100, 0.0, 200, 300, 200, 300, OK]
    assert cells[1][4:8] == [None] * 4
    assert "pmd-pytcp is absent: no pip" in table.notes(found)
    fewer = row_of(VARIANTS["pmd-pytcp"], MIB // 8, [visited(1, MIB // 8)], [])
    assert any("0.125 MiB only" in note for note in table.notes(made(fewer)))


def test_the_worst_row_is_the_status_of_all() -> None:
    assert made().status == OK
    assert made(row("linux", 1), absent_row(VARIANTS["pmd-pytcp"], "")).status == ABSENT
    assert made(row("linux", 1), row("ukernel", 1, 2)).status == SUSPECT


def test_a_picture_is_drawn_of_what_was_measured(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert picture.draw(made(), tmp_path) == []
    files = picture.draw(made(row("ukernel", 100), row("ukernel-http", 50)), tmp_path)
    assert [file.name for file in files] == ["net.svg", "net.png"]
    assert "ukernel-http" in files[0].read_text()


# --- what it stands on --------------------------------------------------------------------------


def test_shares_of_the_processors_are_of_the_ticks_between() -> None:
    before = busy.parsed("cpu  100 0 50 800 50 0 0 0 7 0\ncpu0 1 2 3\n")
    after = busy.parsed("cpu  130 0 60 840 60 0 0 10 9 0\n")
    assert before == busy.Ticks(1000, 150, 0)
    assert after.since(before) == (0.5, 0.1)
    assert before.since(before) == (0.0, 0.0)


def test_the_message_for_a_veth_is_made_of_attributes_that_fill_it() -> None:
    message = netlink.veth_message("near", "farther", 7)
    length, kind, _, _, _ = netlink.HEADER.unpack_from(message)
    assert (length, kind) == (len(message), netlink.RTM_NEWLINK)
    outer = attributes(message[netlink.HEADER.size + len(netlink.INTERFACE) :])
    assert outer[netlink.IFLA_IFNAME] == b"near\0"
    info = attributes(outer[netlink.IFLA_LINKINFO])
    assert info[netlink.IFLA_INFO_KIND] == b"veth"
    peer = attributes(info[netlink.IFLA_INFO_DATA])[netlink.VETH_INFO_PEER]
    assert attributes(peer[len(netlink.INTERFACE) :]) == {
        netlink.IFLA_IFNAME: b"farther\0", netlink.IFLA_NET_NS_FD: struct.pack("=I", 7),
    }  # fmt: skip


def attributes(data: bytes) -> dict[int, bytes]:
    """Each struct rtattr by its kind."""
    found = {}
    while data:
        length, kind = struct.unpack_from("=HH", data)
        found[kind] = data[4:length]
        data = data[-(-length // 4) * 4 :]
    return found


def test_the_system_file_has_what_the_bench_asks_for() -> None:
    plain, full = places.system_file(offload=False), places.system_file(offload=True)
    cards = [file.manifest.hardware[places.CARD] for file in (plain, full)]
    assert [getattr(card, "offload", None) for card in cards] == [False, True]
    assert places.DISK in full.manifest.hardware
    assert full.manifest.servers["net"].args["address"] == f"{places.ADDRESS}/24"


def test_why_it_cannot_be_installed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(pytcp.CannotInstall, match="/nowhere/python"):
        pytcp.python(tmp_path / "pytcp", lambda line: None)


def test_what_is_installed_is_not_installed_again(tmp_path: Path) -> None:
    (tmp_path / "installed").touch()
    told: list[str] = []
    assert pytcp.python(tmp_path, told.append) == tmp_path / "bin" / "python"
    assert told == []


# --- whole runs ---------------------------------------------------------------------------------


@contextmanager
def nothing_left() -> Iterator[None]:
    """No process, no descriptor, no system, no file: namespaces end with their last process."""

    def scratch() -> set[Path]:
        return set(Path(tempfile.gettempdir()).glob("ukernel-bench-*"))

    us = psutil.Process()
    before, descriptors, files = us.children(recursive=True), us.num_fds(), scratch()
    yield
    assert set(us.children(recursive=True)) <= set(before)
    assert us.num_fds() <= descriptors
    assert not [name for name in running() if name.startswith("bench-")]
    assert scratch() <= files


def refuse(folder: Path, progress: Callable[[str], None]) -> NoReturn:
    raise pytcp.CannotInstall("there is no network")


@pytest.mark.usefixtures("runtime_dir")
def test_a_run_counts_every_byte_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pytcp, "python", refuse)
    names = ("ukernel", "ukernel-http", "pmd-pytcp", "linux")
    told: list[str] = []
    with nothing_left():
        found = run.measure(SMALL._replace(names=names), told.append)
    assert sorted(line.split()[1] for line in told if "MiB/s" in line) == [
        "linux", "ukernel", "ukernel-http",
    ]  # fmt: skip
    found.write(tmp_path / "bench.json")
    document = json.loads((tmp_path / "bench.json").read_text())
    assert set(document) == {
        "schema", "status", "host", "versions", "commit", "bytes", "rounds", "results", "ratios",
    }  # fmt: skip
    assert (document["schema"], document["bytes"], document["rounds"]) == (SCHEMA, 2 * MIB, 1)
    assert {"cpu", "cores", "kernel", "load"} <= set(document["host"])
    assert document["status"] in STATUSES
    ours, http, absent, linux = document["results"]
    assert (absent["status"], absent["reasons"]) == (ABSENT, ["there is no network"])
    for one, kind in ((ours, "ours"), (http, "ours"), (linux, "linux")):
        assert (one["class"], one["bytes"], one["rounds"]) == (kind, 2 * MIB, 1)
        assert one["status"] != INVALID, one["reasons"]
        assert len(one["throughput"]["runs"]) == 1
    for one in (ours, linux):
        assert [one["rtt"][trip]["n"] for trip in result.TRIPS] == [5, 5]
        assert all(0 < rtt["min"] <= rtt["p50"] <= rtt["max"] for rtt in one["rtt"].values())
    assert len(document["ratios"]) == 4


@pytest.mark.usefixtures("runtime_dir")
def test_an_interrupt_in_the_middle_of_a_visit_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(visit, "_wait", interrupted)
    with nothing_left(), pytest.raises(KeyboardInterrupt):
        run.measure(SMALL._replace(names=("linux",)), lambda line: None)


@pytest.mark.usefixtures("runtime_dir")
def test_a_stack_that_fails_is_an_invalid_row_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(places, "PYTCP", Path("/nowhere.py"))
    monkeypatch.setattr(pytcp, "python", lambda *_: Path("/bin/true"))
    with nothing_left():
        found = run.measure(SMALL._replace(names=("pmd-pytcp", "loopback")), lambda line: None)
    peer, floor = found.results
    assert (peer.status, peer.rounds) == (INVALID, 0)
    assert "ended before it was ready" in peer.reasons[0]
    assert floor.status != INVALID
    assert found.status == INVALID
