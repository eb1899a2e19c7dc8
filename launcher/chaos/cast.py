"""cast: the clients of an experiment at work: started, ended, asked what they find, and read.

Use it as a context, within that of the stage: at its end none of them is left.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from launcher.chaos import history
from launcher.chaos.evidence import OK, OPEN, Health, Line, Operation, Transfer
from launcher.chaos.outside import Outsider
from launcher.chaos.player import ClientFailed, Player
from launcher.chaos.stage import Stage
from launcher.chaos.workload import Workload

LEAVE_S = 30.0  # for a client to end what it has begun
ASK_S = 300.0  # for one to do what it was asked for
LOOK_S = 0.05


class Cast:
    """All clients of an experiment."""

    def __init__(self, clients: tuple[Workload, ...], seed: int, scratch: Path) -> None:
        self.players = [Player(client, seed, scratch) for client in clients]
        self.scratch = scratch

    def __enter__(self) -> Cast:
        return self

    def __exit__(self, *raised: object) -> None:
        for player in self.players:
            player.close()

    @property
    def outsiders(self) -> list[int]:
        """The processes of those that are no tasks."""
        tasks = [player.task for player in self.players]
        return [task.pid for task in tasks if isinstance(task, Outsider)]

    def player(self, name: str) -> Player:
        return next(player for player in self.players if player.name == name)

    def prepare(self, stage: Stage) -> Mapping[str, str]:
        """Make the files that are read or fetched; the SHA-256 of each by its client."""
        made = {}
        for player in self.players:
            if player.spec.moves:
                digest = history.prepared(self.ask(stage, player, "prepare"))
                if digest is None:
                    raise ClientFailed(f"client {player.name} has made no file to read")
                made[player.name] = digest
        return made

    def rehearse(self, stage: Stage) -> None:
        """Let those outside do their work once: what the system sets up for the first of them, and
        keeps, is there before anybody looks. Raises ClientFailed when it cannot be done."""
        for player in self.players:
            if player.spec.outside:
                player.start(stage.system, "times=1")
                self._until_done(stage, player)
                player.end()
                while player.works:
                    stage.pump(LOOK_S)
                player.forget()

    def _until_done(self, stage: Stage, player: Player) -> None:
        """Until the first of its operations has its outcome."""
        deadline = time.monotonic() + ASK_S
        while not (done := [op for op in player.recent() if op.outcome != OPEN]):
            stage.pump(LOOK_S)
            player.check()
            if time.monotonic() > deadline:
                raise ClientFailed(f"client {player.name} has not done anything in {ASK_S:g} s")
        if done[0].outcome != OK:
            raise ClientFailed(f"client {player.name}, before the first fault: {done[0].error}")

    def start(self, stage: Stage) -> None:
        for player in self.players:
            player.start(stage.system)

    def work(self, stage: Stage, seconds: float) -> None:
        """Let them work in peace."""
        end = time.monotonic() + seconds
        while (left_s := end - time.monotonic()) > 0:
            stage.pump(min(left_s, LOOK_S))
            self.check()

    def check(self) -> None:
        """Raises ClientFailed when one of them has left by itself."""
        for player in self.players:
            player.check()

    def lost_power(self) -> None:
        for player in self.players:
            player.lost_power()

    def end(self, stage: Stage) -> None:
        """Let all of them finish; one that does not is killed, and its call stays open. Raises
        ClientFailed when one ended otherwise."""
        for player in self.players:
            player.end()
        deadline = time.monotonic() + LEAVE_S
        while working := [player for player in self.players if player.works]:
            if time.monotonic() > deadline:
                for player in working:
                    player.kill()
            stage.pump(LOOK_S)
        for player in self.players:
            player.check_end()

    def find(self, stage: Stage) -> dict[str, str]:
        """What is there now of all that the clients have written. Raises ClientFailed."""
        found: dict[str, str] = {}
        for player in self.players:
            if player.spec.writes:
                seen = history.found(self.ask(stage, player, "verify"))
                if seen is None:
                    raise ClientFailed(f"client {player.name} has not said what it found")
                found |= seen
        return found

    def ask(self, stage: Stage, player: Player, verb: str) -> str:
        """What a client prints that is asked for one thing, run to its end. Raises ClientFailed."""
        file = self.scratch / f"{player.name}.{verb}.jsonl"
        with file.open("wb") as out, open(os.devnull, "rb") as nothing, player.log() as log:
            fds = (nothing.fileno(), out.fileno(), log.fileno())
            task = stage.system.run_task(player.name, [verb, *player.argv], fds)
        deadline = time.monotonic() + ASK_S
        while task.process is not None:
            if time.monotonic() > deadline:
                stage.system.signal(task.name, 9)
            stage.pump(LOOK_S)
        if task.status:
            raise player.failed(task.status, verb)
        return file.read_text()

    def mark(self) -> None:
        """What `recent` tells begins here."""
        for player in self.players:
            player.set_mark()

    def recent(self) -> list[Operation]:
        return [operation for player in self.players for operation in player.recent()]

    def operations(self) -> list[Operation]:
        every = [operation for player in self.players for operation in player.operations()]
        return sorted(every, key=lambda operation: operation.begun_ns)

    def transfers(self) -> list[Transfer]:
        return [transfer for player in self.players for transfer in player.transfers()]

    def lines(self) -> list[Line]:
        return [line for player in self.players for line in player.lines()]

    def health(self) -> list[Health]:
        return [health for player in self.players for health in player.health()]
