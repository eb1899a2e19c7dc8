"""report: one page that stands alone, says what the run says, and lets nothing of it act."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import pytest

from launcher.chaos import report
from launcher.chaos.evidence import (
    FAIL,
    INFO,
    OK,
    OPEN,
    Blast,
    Evidence,
    Injection,
    Leg,
    Operation,
    Recovery,
    Result,
    Snapshot,
    Transfer,
    Usage,
    Verdict,
)
from launcher.chaos.journal import BadJournal
from launcher.chaos.report import ReportError, numbers, words
from launcher.chaos.report.markup import Markup, table, tag
from launcher.chaos.report.theme import SHADES, STAND_INS
from launcher.chaos.report.timeline import MAX_POINTS
from tests.chaos.test_journal import MS, document, operation, recovery

VOID = {"meta"}
NASTY = "<script src='//x.y'>alert(\"$x_1$ & \u732b\x00\ud800\")</script>"


class Page(HTMLParser):
    """What is in a page; raises AssertionError where an element is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, name: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def written(
    tmp_path: Path,
    found: Evidence | None = None,
    verdicts: list[Verdict] | None = None,
    title: str = "a title",
) -> str:
    path = report.write(document(found, verdicts, title), tmp_path / "made" / "here")
    assert path == tmp_path / "made" / "here" / "index.html"
    return path.read_text(encoding="utf-8")


def words_of(text: str) -> str:
    return " ".join(" ".join(Page(text).text).split())


# --- it stands alone ----------------------------------------------------------------------------


def test_it_refers_to_nothing_outside_itself(tmp_path: Path) -> None:
    text = written(tmp_path)
    page = Page(text)
    assert not re.search(r"https?:|url\((?!#)|@import|\bsrc=|<!ENTITY", text)
    assert not {"script", "link", "img", "iframe", "object"} & {name for name, _ in page.tags}
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = [a["href"] for _, a in page.tags if "href" in a]
    named += re.findall(r"url\((#[^)]*)\)", text)
    assert named
    assert {name.removeprefix("#") for name in named} <= set(ids)


def test_every_picture_says_in_words_what_it_shows(tmp_path: Path) -> None:
    pictures = Page(written(tmp_path)).all("svg")
    assert len(pictures) == 4
    assert {picture["role"] for picture in pictures} == {"img"}
    timeline, stages, sweep, guests = (picture["aria-label"] for picture in pictures)
    assert "74 operations" in timeline
    assert "first good reply p50 7.00, p90 7.00, p99 7.00" in stages
    assert "never: 20.0, 2.5: 15.0" in sweep
    assert "micro, 2 faults: vm-a at most 100 ms. mono, 1 fault: vm-a at most 200 ms." in guests


def test_pictures_take_their_colours_from_the_page(tmp_path: Path) -> None:
    text = written(tmp_path)
    assert "@media(prefers-color-scheme:dark)" in text
    pictures = " ".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert not re.search(r"#[0-9a-f]{6}\b", pictures)  # neither a stand-in nor a fixed colour
    assert set(re.findall(r"var\(--([a-z0-9-]+)\)", text)) <= set(SHADES)
    assert len(set(STAND_INS.values())) == len(SHADES)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("role", ["ink", "faint", "good", "bad", "doubt"])
def test_words_can_be_read_in_both_schemes(role: str, scheme: str) -> None:
    """WCAG 2.2 §1.4.3: a contrast of 4.5 to 1, on the page and on a panel."""
    for behind in ("page", "panel"):
        shades = [luminance(getattr(SHADES[name], scheme)) for name in (role, behind)]
        assert (max(shades) + 0.05) / (min(shades) + 0.05) >= 4.5


def luminance(color: str) -> float:
    """Relative, of `#rrggbb`."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_same_journal_makes_the_same_page_and_leaves_no_settings(tmp_path: Path) -> None:
    with mpl.rc_context({"font.size": 33, "svg.hashsalt": "mine"}):
        before = dict(mpl.rcParams)
        assert written(tmp_path) == written(tmp_path)
        assert dict(mpl.rcParams) == before


# --- it says what the run says ------------------------------------------------------------------


def test_it_shows_everything_that_is_known(tmp_path: Path) -> None:
    text = words_of(written(tmp_path))
    for expected in (
        "a title seed 4000 · 2025-01-31 12:00:00 UTC · a cpu, 2 cores ? UNKNOWN",
        "bystanders : nobody looked",
        "acked_writes_durable ✓ HELD 3 of 3 are there acknowledged 3",
        "kill disk, 1",
        "drop fs->disk, 0 of 1",
        "client clock (bystander): 50 operations, now",
        "first good reply 1 7.00 7.00 7.00 7.00",
        "2.5 1 4 15.0 25.0 % 0 of 1",
        "console untouched degraded ✗ no",
        "E_DEAD_UNKNOWN: disk died 1",
        "clock bystander 50 100 %",
        "caps 30 31 +1",
        "kernel 40 - - 16.0 - -",
        "4 fetcher answered 0.040 0.600 20.0 33.3 40,000 1 20.0 2",
        "3 were planned; 1 of them never landed.",
        "the link was closed",
        "version: 1",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("result", "expected"),
    [(Result.HELD, "✓ HELD"), (Result.BROKEN, "✗ BROKEN"), (Result.UNKNOWN, "? UNKNOWN")],
)
def test_the_result_is_seen_first(tmp_path: Path, result: Result, expected: str) -> None:
    page = Page(written(tmp_path, verdicts=[Verdict("a_checker", result, "so it is")]))
    assert ("div", {"class": f"result {result.value}"}) in page.tags
    assert expected in page.text
    assert "No checker gave a verdict." in words_of(written(tmp_path, verdicts=[]))


ALONE = {
    "nothing": Evidence(),
    "an operation": Evidence(history=[operation(0)]),
    "one without outcome": Evidence(history=[operation(0, OPEN)]),
    "an injection that never landed": Evidence(injections=[Injection(0, "kill", "a", 5, 0)]),
    "a repair without times": Evidence(
        begun_ns=1, recoveries=[Recovery("a", 1, "", False, *[0] * 7)], failed=("a", "b")
    ),
    "a repair that failed": Evidence(
        begun_ns=1, recoveries=[Recovery("a", 1, "", True, 5, *[0] * 6)], failed=("a",)
    ),
    "a leg without kills": Evidence(sweep=[Leg(0, 0, 1, 1.0, 0, True)]),
    "a leg that moved nothing": Evidence(sweep=[Leg(3, 0, 0, 0.0, 0, False)]),
    "a prediction": Evidence(predicted=Blast(("a",), (), ())),
    "a snapshot": Evidence(after=Snapshot((Usage("a", 1, 1),), 1, {})),
    "a download of which nobody knows": Evidence(
        history=[operation(0, OPEN, op="download"), operation(1, op="download")]
    ),
    "a download that nobody has listened to": Evidence(
        history=[operation(0, op="download", took_ms=0)],
        transfers=[Transfer("writer", 0, "nic0", 1, 1)],
    ),
    "a silent bystander": Evidence(bystanders=("a",)),
}


@pytest.mark.parametrize("found", ALONE.values(), ids=ALONE)
def test_what_is_not_known_is_left_out(tmp_path: Path, found: Evidence) -> None:
    Page(written(tmp_path, found))


def test_nothing_of_the_system_acts_in_the_page(tmp_path: Path) -> None:
    found = Evidence(
        history=[operation(0, client=NASTY, op=NASTY, key=NASTY, error=NASTY, value=NASTY)],
        injections=[Injection(0, NASTY, NASTY, 1000 * MS, 1001 * MS, detail=NASTY)],
        recoveries=[recovery(1, 1001, server=NASTY, cause=NASTY)],
        before=Snapshot((Usage(NASTY, 1, 1),), 1, {NASTY: 1}),
        predicted=Blast((NASTY,), (NASTY,), ()),
        bystanders=(NASTY, NASTY + "2"),
        failed=(NASTY,),
    )
    broken = [Verdict(NASTY, Result.BROKEN, NASTY, {NASTY: [NASTY, {NASTY: NASTY}]})]
    text = written(tmp_path, found, broken, title=NASTY)
    assert "<script" not in text
    assert "script" not in {name for name, _ in Page(text).tags}
    assert text.count("&lt;script src=&#x27;//x.y&#x27;&gt;") > 20


# --- it stays small -----------------------------------------------------------------------------


def many(count: int) -> list[Operation]:
    dice = random.Random(1)
    return [
        Operation("a", n, "get", f"a.{n}", n * MS, n * MS + dice.randrange(1, MS), OK)
        for n in range(count)
    ]


def test_a_long_run_still_makes_a_small_page(tmp_path: Path) -> None:
    found = Evidence(
        history=many(60_000),
        injections=[Injection(n, "kill", "disk", n * MS, n * MS + 9) for n in range(3000)],
        recoveries=[recovery(n, 20 * n) for n in range(3000)],
    )
    text = written(tmp_path, found)
    assert len(text.encode()) < 1_500_000
    assert "Of 60,000 operations about 5,000 are drawn" in text
    assert "and 2,500 more" in text


def test_thinning_keeps_what_stands_out() -> None:
    odd = {
        777: operation(777, took_ms=900, begun_ns=777 * MS, ended_ns=1677 * MS),
        5000: operation(5000, INFO, begun_ns=5000 * MS, ended_ns=5001 * MS),
        9000: operation(9000, FAIL, begun_ns=9000 * MS, ended_ns=9001 * MS),
        19_000: operation(19_000, OPEN, begun_ns=19_000 * MS),
    }
    history = [odd.get(each.number, each) for each in many(20_000)]
    when = numbers.ends(Evidence(history=history))
    kept = numbers.thin(history, MAX_POINTS, when)
    assert set(odd.values()) <= set(kept)
    assert len(kept) <= MAX_POINTS + 2 * len(odd)
    assert [each.begun_ns for each in kept] == sorted(each.begun_ns for each in kept)
    bin_ns = when.ended_ns / 100  # wide enough to hold several bins
    for at in range(100):
        inside = [each for each in history if at <= each.begun_ns / bin_ns < at + 1]
        slowest = max(inside, key=lambda each: numbers.latency_ms(each, when.ended_ns))
        assert slowest in kept


def test_few_operations_are_all_kept() -> None:
    history = many(100)[::-1]
    assert numbers.thin(history, 100, numbers.Ends(0, 100 * MS)) == history[::-1]


# --- numbers ------------------------------------------------------------------------------------


def test_latency_counts_apart_while_something_is_down() -> None:
    history = [
        operation(0, took_ms=2),  # from 1000 ms
        operation(1, took_ms=4),  # from 1010 ms, while disk is down
        operation(2, INFO, took_ms=8),  # from 1020 ms, while fs is paused
        operation(3, took_ms=2),  # from 1030 ms
    ]
    paused = [Injection(0, "pause", "fs", 0, 1025 * MS, 1026 * MS)]
    found = Evidence(history=history, injections=paused, recoveries=[recovery(1, 1012)])
    (row,) = numbers.clients(found)
    assert (row.operations, row.availability) == (4, 0.75)
    assert row.at_rest == {"n": 2, "p50": 2.0, "p90": 2.0, "p99": 2.0, "max": 2.0}
    assert row.disturbed == {"n": 2, "p50": 4.0, "p90": 8.0, "p99": 8.0, "max": 8.0}


def test_disturbances_that_touch_are_one() -> None:
    pause = Injection(0, "pause", "fs", 0, 15 * MS, 30 * MS)
    found = Evidence(injections=[pause], recoveries=[recovery(1, 10), recovery(2, 40)])
    assert numbers.disturbances(found) == [(10 * MS, 30 * MS), (40 * MS, 47 * MS)]


def test_losses_are_of_the_median_without_kills() -> None:
    moved = [(0, 90), (0, 100), (0, 110), (5, 80), (1, 40), (1, 60)]
    legs = [Leg(every_s, 0, size, 1.0, 2, size != 40) for every_s, size in moved]
    rows = numbers.sweep(legs)
    assert [(row.every_s, row.rounds, row.median_bytes_s) for row in rows] == [
        (0, 3, 100), (5, 1, 80), (1, 2, 50),
    ]  # fmt: skip
    assert [row.loss for row in rows] == pytest.approx([0.0, 0.2, 0.5])
    assert [row.right for row in rows] == [3, 1, 1]
    assert numbers.sweep(legs[3:])[0].loss is None


@pytest.mark.parametrize(
    ("part", "expected"), [(1.0, "100 %"), (0.99999, "99.99 %"), (0.5, "50.00 %"), (None, "-")]
)
def test_almost_everything_is_not_everything(part: float | None, expected: str) -> None:
    assert words.percent(part) == expected


# --- the rest -----------------------------------------------------------------------------------


def test_text_is_escaped_and_markup_is_not() -> None:
    assert (
        tag("p", "<b>", tag("b", "&"), class_='"') == '<p class="&quot;">&lt;b&gt;<b>&amp;</b></p>'
    )
    assert isinstance(tag("p"), Markup)
    Page(table(["a", "b"], [["x", 1], ["<", 2000]], "name", [("", 1), ("group", 1)]))


def test_without_matplotlib_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ReportError, match=re.escape("pip install 'ukernel[report]'")):
        report.write(document(), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_only_writing_imports_matplotlib() -> None:
    code = (
        "import sys; from launcher.chaos import journal, report; report.check_drawable();"
        "assert not {'matplotlib', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_no_journal_leaves_no_page(tmp_path: Path) -> None:
    with pytest.raises(BadJournal):
        report.write({"schema": "other"}, tmp_path / "none")
    assert not (tmp_path / "none").exists()
