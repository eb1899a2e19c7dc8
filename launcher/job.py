"""job: file commands run inside a system by its shell, and what came of them."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launcher.system import System

PATIENCE_S = 1.0  # between two looks at what else is to be done


class Job:
    """A script of the shell. Its outcomes can be read at any time, also when the system died.

    with Job(system, ["put a.txt /a", "sha256 /a"]) as job:
        job.run()
    """

    def __init__(self, system: System, commands: list[str]) -> None:
        self.system = system
        self._scratch = tempfile.TemporaryDirectory(prefix="ukernel-job-")
        self._output = Path(self._scratch.name, "output")
        self._script = Path(self._scratch.name, "script")
        self._script.write_text("\n".join(commands))
        self._output.touch()
        self._lines: list[dict[str, Any]] = []

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *raised: object) -> None:
        self._lines = self._read()
        self._scratch.cleanup()

    def run(self, meanwhile: Callable[[], float] | None = None) -> int:
        """Run it to its end; its exit status. `meanwhile` is called again and again, and says in
        how many seconds it wants to be called next."""
        with self._output.open("wb") as out, open(os.devnull, "rb") as nothing:
            stdio = (nothing.fileno(), out.fileno(), 2)
            argv = ["script", "--keep-going", str(self._script), "--json"]
            task = self.system.run_task("shell", argv, stdio)
        while task.process is not None:
            self.system.pump(meanwhile() if meanwhile else PATIENCE_S)
        return task.status or 0

    @property
    def lines(self) -> list[dict[str, Any]]:
        """One object for each command that has ended, and one with the counts of calls."""
        return self._read() if self._output.exists() else self._lines

    def _read(self) -> list[dict[str, Any]]:
        whole = self._output.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in whole if line.endswith("\n")]

    @property
    def digests(self) -> dict[str, str]:
        """What `sha256` said, by path."""
        found: dict[str, str] = {}
        for line in self.lines:
            found.update(line.get("sha256", {}))
        return found

    def done(self, command: str) -> int:
        """How many commands of this name were done, as acknowledged."""
        return sum(line.get("command") == command for line in self.lines if "error" not in line)

    def calls(self, outcome: str) -> int:
        """How many calls of the shell ended so: ok, retried, unknown, failed."""
        return sum(line["calls"][outcome] for line in self.lines if "calls" in line)
