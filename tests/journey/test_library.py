"""What the library offers a server, with real processes: notifications and deferred replies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.config import load
from launcher.system import System
from tests.journey.world import Pipes, wait_for

BOARD = """
system: board
servers:
  board: {run: tests.journey.tasks.board, serves: "tests.journey.tasks.board:Board"}
  subscriber: {run: tests.journey.tasks.subscriber, calls: [board]}
  reader: {run: tests.journey.tasks.reader, calls: [board], start: demand}
  poster: {run: tests.journey.tasks.poster, calls: [board], start: demand}
"""

LARGE = """
system: large
servers:
  echo: {run: servers.echo, serves: echo}
  user: {run: tests.journey.tasks.oversized, calls: [echo], start: demand}
"""


@pytest.fixture
def board(tmp_path: Path, runtime_dir: Path) -> Iterator[System]:
    config = tmp_path / "board.yaml"
    config.write_text(BOARD)
    with System(load(config)) as system:
        system.boot()
        yield system


def test_a_notification_reaches_its_owner_with_the_bits_of_the_capability(board: System) -> None:
    poster = Pipes(board, "poster", [])
    assert poster.ask("1") == "1"
    log = board.run.log("subscriber")
    wait_for(board, lambda: "bits 0b100" in log.read_text(), patience_s=0.01)
    poster.close()


def test_a_deferred_reply_keeps_nobody_else_waiting(board: System) -> None:
    readers = [Pipes(board, "reader", []) for _ in range(3)]
    poster = Pipes(board, "poster", [])
    wait_for(board, lambda: board.slots()["board"].taken == 3, patience_s=0.01)
    assert poster.ask("42") == "4"
    assert [reader.hear() for reader in readers] == ["42", "42", "42"]
    for task in (*readers, poster):
        task.close()


def test_a_deferred_reply_outlives_its_caller_without_harm(board: System) -> None:
    reader, poster = Pipes(board, "reader", []), Pipes(board, "poster", [])
    wait_for(board, lambda: board.slots()["board"].taken == 1, patience_s=0.01)
    board.signal("reader", 9)
    reader.close()
    assert poster.ask("7") == "2"
    counters = {row.name: row.value for row in board.control().counters()}
    assert counters["late_replies"] == 1
    poster.close()


def test_a_call_too_large_for_a_message_is_refused_before_it_costs_the_connection(
    tmp_path: Path, runtime_dir: Path
) -> None:
    config = tmp_path / "large.yaml"
    config.write_text(LARGE)
    with System(load(config)) as system:
        system.boot()
        user = Pipes(system, "user", [])
        assert "lend memory instead" in user.hear()
        assert user.hear() == str(256 * 1024)
        user.close()
