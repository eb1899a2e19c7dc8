"""meter: rates from two looks, across restarts, new slots and new processes."""

from __future__ import annotations

import os
from typing import Any

import pytest

from launcher.meter import GROWING, KERNEL, Figures, Look, Usage, interval, used

SECOND = 1_000_000_000


def row(name: str, **changes: Any) -> dict[str, Any]:
    blank = dict.fromkeys((*GROWING, "queued", "taken", "faults"), 0)
    rest = {"life": 1, "state": "ready", "restarts": 0, "ready_ns": SECOND}
    return {"name": name, **blank, **rest, **changes}


def usage(pid: int, cpu_s: float, **changes: Any) -> Usage:
    return Usage(pid, 5.0, cpu_s, 1 << 20, False)._replace(**changes)


def look(at_s: float, *rows: dict[str, Any], **changes: Any) -> Look:
    return Look(int(at_s * SECOND), rows, {}, {})._replace(**changes)


def only(before: Look, after: Look) -> Figures:
    """The one task besides the kernel."""
    kernel, task = interval(before, after).tasks
    assert kernel.name == KERNEL
    return task


def test_rates_are_differences_by_time() -> None:
    before = look(10, row("echo", replies=100, waited_ns=50_000, calls=7))
    after = look(12, row("echo", replies=104, waited_ns=58_000, calls=8, queued=3, taken=1))
    echo = only(before, after)
    assert (echo.replies_per_s, echo.calls_per_s, echo.latency_us) == (2.0, 0.5, 2.0)
    assert (echo.queued, echo.taken, echo.ready_s) == (3, 1, 11.0)


def test_without_replies_there_is_no_latency() -> None:
    echo = only(look(1, row("echo", replies=9)), look(2, row("echo", replies=9)))
    assert (echo.replies_per_s, echo.latency_us) == (0.0, None)


def test_a_new_slot_began_at_nothing() -> None:
    assert only(look(1), look(2, row("shell", calls=6))).calls_per_s == 6.0


def test_who_is_not_ready_has_not_been_so_for_any_time() -> None:
    echo = only(look(1), look(2, row("echo", state="dead", restarts=2)))
    assert (echo.ready_s, echo.cpu_percent, echo.rss_bytes) == (None, None, None)


@pytest.mark.parametrize(
    ("before", "after", "percent"),
    [
        (usage(7, 3.0), usage(7, 3.5), 25.0),
        (None, usage(7, 0.5), 25.0),
        (usage(6, 3.0), usage(7, 0.5), 25.0),
        (usage(7, 3.0), usage(7, 0.5, born_s=6.0), 25.0),
        (usage(7, 3.0), None, None),
    ],
    ids=["the same", "new", "restarted", "another of this number", "gone"],
)
def test_the_share_of_a_processor(
    before: Usage | None, after: Usage | None, percent: float | None
) -> None:
    old = look(1, row("echo"), usage={"echo": before} if before else {})
    new = look(3, row("echo"), usage={"echo": after} if after else {})
    assert only(old, new).cpu_percent == percent


def test_a_suspended_task_is_shown_as_such() -> None:
    stopped = {"echo": usage(7, 0.0, suspended=True)}
    assert only(look(1), look(2, row("echo"), usage=stopped)).state == "ready, suspended"


def test_the_whole_system() -> None:
    before = look(1, counters={"calls_done": 10})
    rows = [row("a", restarts=2), row("b", state="failed"), row("c", state="stopped")]
    counters = {"calls_done": 40, "denied": 3}
    after = look(3, *rows, counters=counters, usage={KERNEL: usage(2, 1.0)})
    found = interval(before, after)
    assert (found.seconds, found.calls_per_s, found.deaths, found.denials) == (2.0, 15.0, 3, 3)
    assert (found.tasks[0].calls_per_s, found.tasks[0].cpu_percent) == (15.0, 50.0)


def test_calls_past_the_kernel_are_told_beside_those_it_passed_on() -> None:
    before = look(1, row("fs", channel_calls=10), row("disk"))
    after = look(3, row("fs", channel_calls=30, direct_calls=6), row("disk", channel_served=20))
    found = interval(before, after)
    _, fs, disk = found.tasks
    assert (fs.channel_calls_per_s, fs.direct_calls_per_s, fs.calls_per_s) == (10.0, 3.0, 0.0)
    assert (disk.channel_served_per_s, found.past_per_s) == (10.0, 13.0)


def test_what_linux_says() -> None:
    mine = used(os.getpid())
    assert mine is not None
    assert (mine.pid, mine.suspended) == (os.getpid(), False)
    assert mine.rss_bytes > 1 << 20
    assert used(0) is None
