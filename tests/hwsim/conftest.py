"""Disks for the tests of the hardware."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hwsim.harness import Machine, MachineMaker


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[MachineMaker]:
    """Makes machines on one image; the image is closed at the end whatever happened."""
    made: list[Machine] = []

    def make(name: str = "disk.img", **kwargs: Any) -> Machine:
        made.append(Machine(tmp_path / name, **kwargs))
        return made[-1]

    yield make
    for one in made:
        try:
            one.power_cut()
        except OSError:
            continue  # the test cut its power already
