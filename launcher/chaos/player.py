"""player: one client over all boots of a run, and its history: one file for each boot."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import IO

from launcher.chaos import history, outside
from launcher.chaos.evidence import INFO, OPEN, Health, Line, Operation, Transfer
from launcher.chaos.outside import Outsider, Stdio
from launcher.chaos.workload import Download, Outside, Workload
from launcher.process import describe
from launcher.system import System
from launcher.tasks import Task
from ukernel.abi.manifest import MAX_SEED

BEGINS = '"do": "begin"'  # in the first line of an operation
WORDS = 4  # last lines of a client that are shown


class ClientFailed(Exception):
    """A client did not do what it was started for; the text says how, and shows its last words."""


class Player:
    """One client."""

    def __init__(self, spec: Workload, seed: int, scratch: Path) -> None:
        self.spec = spec
        self.name = spec.client
        self.task: Task | Outsider | None = None
        self.files: list[Path] = []
        self._seed = seed
        self._scratch = scratch
        self._log = scratch / f"{self.name}.log"
        self._feed = -1  # its standard input: closed, it ends
        self._mark = 0  # where in the last file `recent` begins
        self._cut_ns: dict[int, int] = {}  # files whose client went with the power
        self._killed = False

    # --- at work --------------------------------------------------------------------------------

    @property
    def argv(self) -> list[str]:
        return argv_of(self.spec, self._seed, len(self.files))

    def start(self, system: System, *more: str) -> None:
        """Let it work, until `end`; `more` are further arguments."""
        argv = [*self.argv, *more]
        self.files.append(self._scratch / f"{self.name}.{len(self.files)}.jsonl")
        self._mark = 0
        theirs, self._feed = os.pipe2(os.O_CLOEXEC)
        with open(theirs, "rb") as feed, self.files[-1].open("ab") as out, self.log() as log:
            stdio = (feed.fileno(), out.fileno(), log.fileno())
            self.task = self._begin(system, argv, stdio)

    def _begin(self, system: System, argv: list[str], stdio: Stdio) -> Task | Outsider:
        if not isinstance(self.spec, Outside):
            return system.run_task(self.name, argv, stdio)
        try:
            return outside.start(system, self.spec, argv, stdio)
        except LookupError as error:
            raise ClientFailed(f"client {self.name}: {error}") from None

    def log(self) -> IO[bytes]:
        """Where it complains."""
        return self._log.open("ab")

    def end(self) -> None:
        """Ask it to finish what it is doing and leave."""
        if self._feed >= 0:
            os.close(self._feed)
            self._feed = -1

    def kill(self) -> None:
        """End it, whatever it is doing."""
        if self.task is not None and self.task.process is not None:
            self._killed = True
            self.task.process.send(signal.SIGKILL)

    def forget(self) -> None:
        """What it has done so far was a rehearsal."""
        for file in self.files:
            file.unlink()
        self.files.clear()
        self.task = None

    def close(self) -> None:
        """The run is over. Who is outside is gone at once, a task with its system."""
        self.end()
        self.kill()
        if isinstance(self.task, Outsider):
            self.task.close()

    def lost_power(self) -> None:
        """It is about to be killed together with everything else."""
        self.end()
        if isinstance(self.task, Outsider):
            self.task.close()
        self._cut_ns[len(self.files) - 1] = time.monotonic_ns()
        self.task = None

    @property
    def works(self) -> bool:
        return self.task is not None and self.task.process is not None

    def check(self) -> None:
        """Raises ClientFailed when it has left by itself."""
        if self.task is not None and not self.works and self._feed >= 0:
            raise self.failed(self.task.status)

    def check_end(self) -> None:
        """Raises ClientFailed when it did not end in order; whom we had to kill says so itself, by
        its open call."""
        if self.task is not None and self.task.status and not self._killed:
            raise self.failed(self.task.status)

    def failed(self, status: int | None, verb: str = "") -> ClientFailed:
        """Why it ended, in its own last words."""
        how = describe(status) if status is not None else "never started"
        what = f"client {self.name}{f', asked to {verb}' if verb else ''}: {how}"
        words = self._log.read_text(errors="replace").strip().splitlines()
        return ClientFailed("\n  ".join([what, *words[-WORDS:]]))

    # --- what it wrote down ---------------------------------------------------------------------

    def set_mark(self) -> None:
        """What `recent` tells begins here."""
        self._mark = self.files[-1].read_bytes().rfind(b"\n") + 1

    def recent(self) -> list[Operation]:
        """What it has begun since the mark."""
        text = self.files[-1].read_bytes()[self._mark :].decode()
        begins = text.find(BEGINS)
        start = text.rfind("\n", 0, begins) + 1 if begins >= 0 else len(text)
        return history.read(text[start:], self.name)

    def operations(self) -> list[Operation]:
        """Its history over all boots, numbered on: a number that it skipped stays skipped."""
        found: list[Operation] = []
        for boot, file in enumerate(self.files):
            first = found[-1].number + 1 if found else 0
            found += in_boot(history.read(file, self.name), first, self._cut_ns.get(boot, 0))
        return found

    def transfers(self) -> list[Transfer]:
        """Of a client outside, how its downloads came, numbered as its operations."""
        if not isinstance(self.spec, Download):
            return []
        device, found, first = self.spec.device or "", list[Transfer](), 0
        for file in self.files:
            came = history.came(file)
            found += [Transfer(self.name, first + n, device, *how) for n, how in came.items()]
            numbers = [operation.number for operation in history.read(file, self.name)]
            first += max(numbers, default=-1) + 1
        return found

    def lines(self) -> list[Line]:
        """What it saw of a guest."""
        return [
            Line(self.name, self.spec.to or "", at_ns, text)
            for file in self.files
            for at_ns, text in history.shown(file)
        ]

    def health(self) -> list[Health]:
        """How its virtual machine was, each time that it asked."""
        found = [each for file in self.files for each in history.health(file)]
        return [Health(self.name, self.spec.to or "", *each) for each in found]


def in_boot(operations: list[Operation], first: int, cut_ns: int) -> list[Operation]:
    """The operations of one boot with numbers from `first` on.

    What was open when the power went is in doubt: nobody was left to hear. It lasted until the end
    of its client, or longer.
    """
    return [
        operation._replace(
            number=first + operation.number,
            outcome=INFO,
            outcomes=1,
            ended_ns=max(operation.begun_ns, cut_ns),
        )
        if cut_ns and operation.outcome == OPEN
        else operation._replace(number=first + operation.number)
        for operation in operations
    ]


def argv_of(client: Workload, seed: int, boot: int) -> list[str]:
    """The command line of a client in this boot of the run, counted from 0.

    Each boot has a seed of its own: of two writes of the same bytes one could be lost unseen.
    """
    own = seed if client.seed is None else client.seed
    return client.model_copy(update={"seed": (own + boot) % (MAX_SEED + 1)}).argv()
