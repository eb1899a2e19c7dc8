"""What a client wrote down, as operations; whatever state its file was left in."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.chaos import history
from launcher.chaos.evidence import FAIL, INFO, OK, OPEN, Operation
from launcher.chaos.history import Moved

WHOLE = """\
{"n": 0, "do": "begin", "op": "write", "key": "/w/0", "value": "aa", "at": 10}
{"n": 0, "do": "ok", "value": "", "error": "", "at": 20}
{"moved": 4096, "at": 21}
{"n": 1, "do": "begin", "op": "read", "key": "/w/0", "value": "", "at": 30}
{"n": 1, "do": "ok", "value": "bb", "error": "", "at": 40}
{"n": 2, "do": "begin", "op": "add", "key": "w.sum", "value": "3", "at": 50}
{"n": 2, "do": "ok", "value": "17", "error": "", "at": 60}
{"n": 3, "do": "begin", "op": "write", "key": "/w/1", "value": "cc", "at": 70}
{"n": 3, "do": "info", "value": "", "error": "E_DEADLINE: late", "at": 80}
{"n": 4, "do": "begin", "op": "read", "key": "/w/1", "value": "", "at": 90}
{"n": 4, "do": "fail", "value": "", "error": "E_UNAVAILABLE: fs is failed", "at": 95}
{"n": 5, "do": "begin", "op": "write", "key": "/w/1", "value": "dd", "at": 99}
{"moved": 8192, "at": 100}
"""
LATE = '{"n": 3, "do": "ok", "value": "", "error": "", "at": 101}\n'
END = '{"end": {"ok": 4, "retried": 1, "unknown": 0, "failed": 2}}\n'

OPERATIONS = [
    Operation("w", 0, "write", "/w/0", 10, 20, OK, "aa"),
    Operation("w", 1, "read", "/w/0", 30, 40, OK, "bb"),
    Operation("w", 2, "add", "w.sum", 50, 60, OK, "3=17"),
    Operation("w", 3, "write", "/w/1", 70, 80, INFO, "cc", "E_DEADLINE: late"),
    Operation("w", 4, "read", "/w/1", 90, 95, FAIL, "", "E_UNAVAILABLE: fs is failed"),
    Operation("w", 5, "write", "/w/1", 99, 0, OPEN, "dd", "", 0),
]


def test_operations_are_read_with_their_outcomes(tmp_path: Path) -> None:
    assert history.read(WHOLE, "w") == OPERATIONS
    file = tmp_path / "w.jsonl"
    file.write_text(WHOLE + END)
    assert history.read(file, "w") == OPERATIONS
    assert history.read("", "w") == []


def test_a_second_outcome_is_counted_and_changes_nothing() -> None:
    twice = history.read(WHOLE + LATE, "w")
    assert twice[3] == OPERATIONS[3]._replace(outcomes=2)
    assert twice[:3] + twice[4:] == OPERATIONS[:3] + OPERATIONS[4:]


def test_a_line_torn_anywhere_is_not_there() -> None:
    lines = WHOLE.splitlines(keepends=True)
    for count, line in enumerate(lines):
        whole = "".join(lines[:count])
        expected = history.read(whole, "w")
        for at in range(len(line)):
            assert history.read(whole + line[:at], "w") == expected


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        ("nonsense\n", "line:14: "),
        ("[1]\n", "line:14: '\\[1\\]' is not an object"),
        ('{"n": 7, "do": "ok", "value": "", "error": "", "at": 1}\n', "ok of operation 7 of w"),
        (WHOLE, "begin of operation 0 of w is misplaced"),
        ('{"n": 5, "do": "maybe", "at": 1}\n', "maybe of operation 5"),
        ('{"n": 5, "do": "ok"}\n', "ok of operation 5"),
        ('{"n": 6, "do": "begin"}\n', "begin of operation 6"),
        ('{"do": "begin"}\n', "begin of operation None"),
    ],
)
def test_any_other_damage_is_refused_by_line(damage: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        history.read(WHOLE + damage, "w")


def test_the_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "w.jsonl"
    file.write_text("nonsense\n")
    with pytest.raises(ValueError, match=f"{file}:1: "):
        history.read(file, "w")


def test_single_lines() -> None:
    assert history.moved(WHOLE) == [Moved(21, 4096), Moved(100, 8192)]
    assert history.ended(WHOLE) is None
    assert history.ended(WHOLE + END) == {"ok": 4, "retried": 1, "unknown": 0, "failed": 2}
    assert history.ended(WHOLE + END[:-1]) is None
    assert history.found('{"found": {"/w/0": "aa"}}\n') == {"/w/0": "aa"}
    assert history.found('{"found": {}}\n') == {}
    assert history.found("") is None
    assert history.prepared('{"sha256": "ee"}\n') == "ee"
    assert history.prepared("") is None


def test_from_where_downloads_came() -> None:
    first = '{"n": 5, "port": 4000, "bytes": 64}\n'
    second = '{"n": 6, "port": 4002, "bytes": 64}\n'
    assert history.came(WHOLE + first + second + second[:-1]) == {5: (4000, 64), 6: (4002, 64)}
    assert history.read(WHOLE + first, "w") == history.read(WHOLE, "w")
