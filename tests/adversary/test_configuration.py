"""61: whatever is wrong with a system file, it is said before there is a process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from launcher.config import ConfigError, load
from tests.adversary.world import ROOT

BAD = sorted((ROOT / "tests" / "bad_configs").glob("*.yaml"))
PLACE = re.compile(r"^.*\.yaml:\d+:\d+: ")
NAMED = {
    "unknown key": "unknown_key_server",
    "wrong type": "text_for_a_number",
    "duplicate name": "duplicate_server",
    "cycle": "cycle_of_two",
    "unknown device": "device_unknown",
    "unknown server": "call_unknown",
    "two drivers": "device_with_two_drivers",
}


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_61_refused_before_anything_starts(
    path: Path, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With file:line:column of each problem; no process, no run directory, no disk image."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    files = set(path.parent.iterdir())
    with pytest.raises(ConfigError) as refused:
        load(path)
    problems = str(refused.value).splitlines()
    assert problems
    assert PLACE.match(problems[0]), problems
    assert {child.pid for child in psutil.Process().children(recursive=True)} == before
    assert not os.listdir(runtime_dir)
    assert set(path.parent.iterdir()) == files


def test_61_the_list_is_covered() -> None:
    assert set(NAMED.values()) <= {path.stem for path in BAD}


@pytest.mark.parametrize("what", NAMED)
def test_61_the_command_line_refuses_too(what: str, runtime_dir: Path) -> None:
    path = ROOT / "tests" / "bad_configs" / f"{NAMED[what]}.yaml"
    up = subprocess.run(
        [sys.executable, "-m", "launcher.cli", "up", str(path)],
        capture_output=True,
        text=True,
        timeout=20,
        cwd=ROOT,
        check=False,
    )
    assert up.returncode == 2, up
    assert re.search(r"\.yaml:\d+:\d+", up.stderr + up.stdout)
    assert not os.listdir(runtime_dir)
