"""player: one history over all boots, in which nothing is hidden and a power cut blames nobody."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from launcher.chaos.evidence import FAIL, INFO, OK, OPEN, Operation, Transfer
from launcher.chaos.player import Player, argv_of, in_boot
from launcher.chaos.workload import AnyWorkload, Workload
from ukernel.abi.manifest import MAX_SEED

CUT_NS = 1000


def client(**keys: object) -> Workload:
    made: Workload = TypeAdapter(AnyWorkload).validate_python(
        {"client": "writer", "run": "files", "to": "fs", **keys}
    )
    return made


def operation(number: int, outcome: str = OK, ended_ns: int = 20) -> Operation:
    return Operation(
        "writer", number, "write", "/writer/0", 10, ended_ns, outcome, "aa", "", ended_ns > 0
    )


OPENED = operation(1, OPEN, 0)


def written(*numbers: int, last_open: bool = False) -> str:
    """What a client writes down of these operations."""
    lines = []
    for number in numbers:
        begin = {"n": number, "do": "begin", "op": "write", "key": "/writer/0", "value": "aa"}
        end = {"n": number, "do": "ok", "value": "", "error": ""}
        lines += [{**begin, "at": 10}, {**end, "at": 20}]
    lines = lines[:-1] if last_open else lines
    return "".join(json.dumps(line) + "\n" for line in lines)


def test_what_was_open_when_the_power_went_is_in_doubt() -> None:
    done, cut = in_boot([operation(0), OPENED], 0, CUT_NS)
    assert done == operation(0)
    assert (cut.outcome, cut.outcomes, cut.ended_ns) == (INFO, 1, CUT_NS)


def test_it_did_not_end_before_it_began() -> None:
    (cut,) = in_boot([OPENED._replace(begun_ns=CUT_NS + 5)], 0, CUT_NS)
    assert cut.ended_ns == cut.begun_ns


def test_what_was_open_without_a_power_cut_stays_open() -> None:
    assert in_boot([OPENED], 0, 0) == [OPENED]


def test_what_had_failed_or_was_in_doubt_before_the_power_cut_stays_so() -> None:
    history = [operation(0, FAIL), operation(1, INFO)]
    assert in_boot(history, 0, CUT_NS) == history


def test_a_number_that_a_client_skipped_stays_skipped() -> None:
    assert [op.number for op in in_boot([operation(0), operation(2)], 7, 0)] == [7, 9]


@pytest.fixture
def player(tmp_path: Path) -> Player:
    player = Player(client(), 4, tmp_path)
    for boot, text in enumerate((written(0, 1, 3, last_open=True), written(0, 1))):
        player.files.append(tmp_path / f"writer.{boot}.jsonl")
        player.files[-1].write_text(text)
        if not boot:
            player.lost_power()
    return player


def test_the_boots_of_a_run_are_one_history(player: Player) -> None:
    operations = player.operations()
    assert [(op.number, op.outcome) for op in operations] == [
        (0, OK), (1, OK), (3, INFO), (4, OK), (5, OK),
    ]  # fmt: skip
    assert all(op.ended_ns for op in operations)


def test_what_is_recent_begins_with_a_whole_operation(player: Player) -> None:
    assert [op.number for op in player.recent()] == [0, 1]
    with player.files[-1].open("a") as file:
        file.write(written(2)[:-20])  # the mark is set while a line is being written
    player.set_mark()
    assert player.recent() == []
    with player.files[-1].open("a") as file:
        file.write(written(2)[-20:] + written(3))
    assert [op.number for op in player.recent()] == [3]


def test_a_client_writes_something_else_in_each_boot() -> None:
    for boot in range(3):
        assert f"seed={4 + boot}" in argv_of(client(), 4, boot)
    assert "seed=9" in argv_of(client(seed=8), 4, 1)
    assert "seed=0" in argv_of(client(), MAX_SEED, 1)


def test_downloads_are_numbered_on_as_operations_are(tmp_path: Path) -> None:
    url = "http://10.0.0.2/big"
    player = Player(client(run="download", url=url, device="nic0"), 4, tmp_path)
    for boot, last in enumerate((2, 0)):
        player.files.append(tmp_path / f"{boot}.jsonl")
        came = json.dumps({"n": last, "port": 4000 + boot, "bytes": 64}) + "\n"
        player.files[-1].write_text(written(*range(last + 1)) + came)
    assert [op.number for op in player.operations()] == [0, 1, 2, 3]
    assert player.transfers() == [
        Transfer("writer", 2, "nic0", 4000, 64),
        Transfer("writer", 3, "nic0", 4001, 64),
    ]
