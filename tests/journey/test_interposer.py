"""An interposer between real processes: nobody notices it, until it is told to break something."""

from __future__ import annotations

import hashlib
import random
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from launcher.config import load
from launcher.job import Job
from launcher.system import BootError, System
from tests.journey.world import Pipes, sources, wait_for
from ukernel.abi.errors import Code
from ukernel.abi.faults import (
    CORRUPT,
    DELAY,
    DROP,
    DUPLICATE,
    MESSAGE_FAULTS,
    Interposer,
    Landed,
    NoSuchFault,
)
from ukernel.abi.syscalls import FAILED, READY

ECHO = """
system: interposed
servers:
  voice: {run: servers.echo, serves: echo, restart: {when: never}, heartbeat: {period_ms: 0}}
  echo:
    run: servers.interposer
    serves: echo
    calls: [voice]
    args: {to: voice, serves: echo}
  asker: {run: tests.journey.tasks.asker, calls: [echo], start: demand}
"""

# fs calls its disk by that name, and the shell its fs: both find an interposer under it.
STORAGE = """
system: interposed
hardware:
  disk0: {model: virtio-blk, image: disk.img, size: 8MiB}
servers:
  platter:
    run: servers.disk
    serves: block
    devices: [disk0]
    restart: {max_restarts: 1000, backoff: {first_ms: 0}}
  disk:
    run: servers.interposer
    serves: block
    calls: [platter]
    args: {to: platter, serves: block}
  store:
    run: servers.fs
    serves: file
    calls: [disk]
    state: persistent
    args: {format_if_blank: true}
    restart: {max_restarts: 1000, backoff: {first_ms: 0}}
  fs:
    run: servers.interposer
    serves: file
    calls: [store]
    args: {to: store, serves: file}
  shell: {run: servers.shell, calls: [fs], start: demand}
  holder: {run: tests.journey.tasks.holder, calls: [fs], start: demand}
"""

BOARD = """
system: interposed
servers:
  notices: {run: tests.journey.tasks.board, serves: "tests.journey.tasks.board:Board"}
  board:
    run: servers.interposer
    serves: "tests.journey.tasks.board:Board"
    calls: [notices]
    args: {to: notices, serves: "tests.journey.tasks.board:Board"}
  subscriber: {run: tests.journey.tasks.subscriber, calls: [board]}
  reader: {run: tests.journey.tasks.reader, calls: [board], start: demand}
  poster: {run: tests.journey.tasks.poster, calls: [board], start: demand}
"""

TALLY = """
system: interposed
servers:
  sum:
    run: tests.journey.tasks.tally
    serves: "tests.journey.tasks.tally:Tally"
    restart: {when: never}
  tally:
    run: servers.interposer
    serves: "tests.journey.tasks.tally:Tally"
    calls: [sum]
    args: {to: sum, serves: "tests.journey.tasks.tally:Tally"}
  teller: {run: tests.journey.tasks.teller, calls: [tally], start: demand}
"""

PATIENT, HASTY = "20", "0.3"  # seconds that an asker waits
HOUR_MS = 3_600_000
WORD = b"word".hex()


@contextmanager
def up(tmp_path: Path, config: str) -> Iterator[System]:
    file = tmp_path / "interposed.yaml"
    file.write_text(config)
    with System(load(file)) as system:
        system.boot()
        yield system


def disturb(system: System, name: str, fault: str, ms: int = 0, seed: int = 1) -> Interposer:
    """Let every request that passes `name` meet the fault."""
    interposer = system.reach(Interposer, name)
    interposer.disturb(fault, 1.0, ms, 0, seed)
    return interposer


def kill(system: System, name: str) -> None:
    """SIGKILL, and wait until the next life serves."""
    life = system.tasks[name].life
    system.signal(name, signal.SIGKILL)
    wait_for(system, lambda: system.tasks[name].life > life and system.tasks[name].state == READY)


def calls_of(system: System, server: str) -> Counter[tuple[object, ...]]:
    """What was asked of a server and what came of it, as the kernel saw it."""
    rows = list(system.control().trace(0))
    while page := system.control().trace(rows[-1].number + 1):
        rows += page
    return Counter(
        (row.opcode, row.sent_size, row.sent_head, row.status, row.got_size, row.got_head)
        for row in rows
        if row.server == server and row.opcode not in Interposer.ops
    )


def open_files(system: System) -> list[tuple[str, str]]:
    """Who holds a file of whom."""
    rows = [row for row in system.caps() if row.kind == "endpoint" and row.badge]
    return sorted((row.holder, row.object) for row in rows)


def unharmed(system: System) -> bool:
    """Nobody died, nobody broke a rule, and no call is left."""
    rows = system.slots().values()
    assert all(row.life <= 1 for row in rows)
    assert all(row.faults == 0 for row in rows)
    return all(row.taken == row.queued == 0 for row in rows)


def test_files_pass_two_interposers_whole(tmp_path: Path, runtime_dir: Path) -> None:
    files = sources(tmp_path / "src", [f"f{n}" for n in range(10)], 1)
    with up(tmp_path, STORAGE) as system:
        commands = [f"put {file} {path}" for path, file in files.items()]
        with Job(system, [*commands, "ls /nothing", *(f"sha256 {path}" for path in files)]) as job:
            job.run()
            assert job.done("put") == len(files)
            assert job.calls("failed") == 0
            assert job.digests == {
                path: hashlib.sha256(file.read_bytes()).hexdigest() for path, file in files.items()
            }
        assert calls_of(system, "fs") == calls_of(system, "store") != Counter()
        assert calls_of(system, "disk") == calls_of(system, "platter") != Counter()
        assert open_files(system) == []
        assert unharmed(system)


def test_an_opened_file_passes_too_and_lives_on_when_who_is_behind_dies(
    tmp_path: Path, runtime_dir: Path
) -> None:
    with up(tmp_path, STORAGE) as system:
        user = Pipes(system, "holder", ["/diary"])
        assert user.hear() == "open"
        assert open_files(system) == [("fs#1", "store"), ("holder#1", "fs")]
        assert user.ask("append one") == "done"
        kill(system, "store")
        kill(system, "platter")
        assert user.ask("append two") == "done"
        assert user.ask("read") == "onetwo"
        assert user.ask("close") == "done"
        wait_for(system, lambda: open_files(system) == [], patience_s=0.01)
        user.close()


def test_a_file_that_an_interposer_opened_does_not_outlive_it(
    tmp_path: Path, runtime_dir: Path
) -> None:
    with up(tmp_path, STORAGE) as system:
        user = Pipes(system, "holder", ["/old"])
        assert user.hear() == "open"
        kill(system, "fs")
        assert user.ask("read") == "StaleLife"
        other = Pipes(system, "holder", ["/new"])
        assert other.hear() == "open"
        assert user.ask("read") == "StaleLife"
        assert other.ask("append text") == "done"
        other.close()
        user.close()


def test_of_a_file_that_was_opened_twice_one_is_kept(tmp_path: Path, runtime_dir: Path) -> None:
    with up(tmp_path, STORAGE) as system:
        disturb(system, "fs", DUPLICATE)
        user = Pipes(system, "holder", ["/twice"])
        assert user.hear() == "open"
        assert user.ask("append text") == "done"
        assert user.ask("read") == "text"
        wait_for(system, lambda: len(open_files(system)) == 2, patience_s=0.01)
        assert open_files(system) == [("fs#1", "store"), ("holder#1", "fs")]
        user.close()
        wait_for(system, lambda: open_files(system) == [] and unharmed(system), patience_s=0.01)


def test_many_wait_at_once_and_a_notification_passes(tmp_path: Path, runtime_dir: Path) -> None:
    with up(tmp_path, BOARD) as system:
        readers = [Pipes(system, "reader", []) for _ in range(3)]
        wait_for(system, lambda: system.slots()["notices"].taken == 3, patience_s=0.01)
        assert system.slots()["board"].waits_for == ""  # it is not blocked in any of them
        poster = Pipes(system, "poster", [])
        assert poster.ask("42") == "4"  # the readers and the subscriber
        assert [reader.hear() for reader in readers] == ["42", "42", "42"]
        log = system.run.log("subscriber")
        wait_for(system, lambda: "bits 0b100" in log.read_text(), patience_s=0.01)
        for task in (*readers, poster):
            task.close()
        assert unharmed(system)


def test_the_fate_of_a_call_passes_as_the_kernel_says_it(tmp_path: Path, runtime_dir: Path) -> None:
    with up(tmp_path, BOARD) as system:
        reader = Pipes(system, "reader", [])
        wait_for(system, lambda: system.slots()["notices"].taken == 1, patience_s=0.01)
        kill(system, "notices")
        reader.close()
        assert [row[3] for row in calls_of(system, "board") if row[0] == 3] == [Code.E_DEAD_UNKNOWN]
        assert calls_of(system, "board") == calls_of(system, "notices")


def test_a_callee_that_was_given_up_is_unavailable(tmp_path: Path, runtime_dir: Path) -> None:
    with up(tmp_path, ECHO) as system:
        asker = Pipes(system, "asker", [PATIENT])
        assert asker.ask(WORD) == WORD
        system.signal("voice", signal.SIGKILL)
        wait_for(system, lambda: system.tasks["voice"].state == FAILED)
        assert asker.ask(WORD) == "Unavailable"
        asker.close()


def test_a_deadline_passes_with_its_call(tmp_path: Path, runtime_dir: Path) -> None:
    with up(tmp_path, ECHO) as system:
        system.signal("voice", signal.SIGSTOP)
        asker = Pipes(system, "asker", [HASTY])
        assert asker.ask(WORD) == "DeadlinePassed"
        wait_for(system, lambda: system.slots()["echo"].taken == 0, patience_s=0.01)
        assert system.slots()["voice"].taken == 1
        system.signal("voice", signal.SIGCONT)
        wait_for(system, lambda: unharmed(system), patience_s=0.01)
        asker.close()


def test_sends_pass_as_sends(tmp_path: Path, runtime_dir: Path) -> None:
    with up(tmp_path, TALLY) as system:
        teller = Pipes(system, "teller", [])
        assert teller.ask("100") == "100"
        disturb(system, "tally", DUPLICATE)
        assert teller.ask("50") == "200"
        wait_for(system, lambda: unharmed(system), patience_s=0.01)
        system.signal("sum", signal.SIGKILL)
        wait_for(system, lambda: system.tasks["sum"].state == FAILED)
        assert teller.ask("1") == "Unavailable"
        teller.close()
        assert unharmed(system)


def test_a_delayed_request_arrives(tmp_path: Path, runtime_dir: Path) -> None:
    with up(tmp_path, ECHO) as system:
        interposer = disturb(system, "echo", DELAY, ms=5)
        asker = Pipes(system, "asker", [PATIENT])
        assert [asker.ask(WORD) for _ in range(5)] == [WORD] * 5
        assert interposer.disturbed() == [Landed("echo->voice", DELAY, 5)]
        asker.close()
        assert unharmed(system)


def test_a_request_that_is_delayed_beyond_its_deadline_never_arrives(
    tmp_path: Path, runtime_dir: Path
) -> None:
    with up(tmp_path, ECHO) as system:
        disturb(system, "echo", DELAY, ms=HOUR_MS)
        asker = Pipes(system, "asker", [HASTY])
        assert asker.ask(WORD) == "DeadlinePassed"
        wait_for(system, lambda: unharmed(system), patience_s=0.01)
        assert system.slots()["voice"].replies == 0
        asker.close()


def test_pass_all_lets_go_of_what_is_delayed(tmp_path: Path, runtime_dir: Path) -> None:
    with up(tmp_path, BOARD) as system:
        interposer = disturb(system, "board", DELAY, ms=HOUR_MS)
        reader = Pipes(system, "reader", [])
        wait_for(system, lambda: system.slots()["board"].taken == 1, patience_s=0.01)
        assert system.slots()["notices"].taken == 0
        interposer.pass_all()
        wait_for(system, lambda: system.slots()["notices"].taken == 1, patience_s=0.01)
        poster = Pipes(system, "poster", [])
        assert poster.ask("7") == "2"
        assert reader.hear() == "7"
        reader.close()
        poster.close()
        assert unharmed(system)


def test_of_a_dropped_call_its_caller_hears_nothing_until_its_deadline(
    tmp_path: Path, runtime_dir: Path
) -> None:
    with up(tmp_path, ECHO) as system:
        interposer = disturb(system, "echo", DROP)
        asker = Pipes(system, "asker", [HASTY])
        assert [asker.ask(WORD) for _ in range(4)] == ["DeadlinePassed"] * 4
        wait_for(system, lambda: unharmed(system), patience_s=0.01)
        assert system.slots()["voice"].replies == 3  # the fourth was lost on its way there
        assert interposer.disturbed() == [Landed("echo->voice", DROP, 4)]
        interposer.pass_all()
        other = Pipes(system, "asker", [PATIENT])
        assert other.ask(WORD) == WORD
        asker.close()
        other.close()


def test_a_duplicate_is_served_twice_and_answered_once(tmp_path: Path, runtime_dir: Path) -> None:
    with up(tmp_path, ECHO) as system:
        interposer = disturb(system, "echo", DUPLICATE)
        asker = Pipes(system, "asker", [PATIENT])
        assert asker.ask(WORD) == WORD
        wait_for(system, lambda: system.slots()["voice"].replies == 2, patience_s=0.01)
        assert interposer.disturbed() == [Landed("echo->voice", DUPLICATE, 1)]
        assert asker.ask(WORD) == WORD
        wait_for(system, lambda: unharmed(system), patience_s=0.01)
        asker.close()


def test_a_corrupt_request_is_answered_wrong_or_refused_and_harms_nobody(
    tmp_path: Path, runtime_dir: Path
) -> None:
    rng = random.Random(4)
    words = [rng.randbytes(rng.randint(1, 40)).hex() for _ in range(200)]
    with up(tmp_path, ECHO) as system:
        interposer = disturb(system, "echo", CORRUPT)
        asker = Pipes(system, "asker", [PATIENT])
        heard = [asker.ask(word) for word in words]
        assert all(word != answer for word, answer in zip(words, heard, strict=True))
        assert 0 < heard.count("Protocol") < len(words)
        assert interposer.disturbed() == [Landed("echo->voice", CORRUPT, len(words))]
        interposer.pass_all()
        assert [asker.ask(word) for word in words] == words
        asker.close()
        assert unharmed(system)


def test_corrupt_requests_do_not_bring_a_file_system_down(
    tmp_path: Path, runtime_dir: Path
) -> None:
    files = sources(tmp_path / "src", [f"f{n}" for n in range(20)], 2)
    with up(tmp_path, STORAGE) as system:
        disturb(system, "fs", CORRUPT)
        with Job(system, [f"put {file} {path}" for path, file in files.items()]) as job:
            job.run()
        assert system.reach(Interposer, "fs").disturbed()[0].times >= len(files)
        assert unharmed(system)


def test_all_faults_at_once(tmp_path: Path, runtime_dir: Path) -> None:
    with up(tmp_path, ECHO) as system:
        interposer = system.reach(Interposer, "echo")
        for fault in MESSAGE_FAULTS:
            interposer.disturb(fault, 0.4, 3, 3, 8)
        askers = [Pipes(system, "asker", [HASTY]) for _ in range(3)]
        for _ in range(5):
            for asker in askers:
                asker.ask(WORD)
        assert {row.fault for row in interposer.disturbed() if row.times} == set(MESSAGE_FAULTS)
        interposer.pass_all()
        patient = Pipes(system, "asker", [PATIENT])
        assert patient.ask(WORD) == WORD
        wait_for(system, lambda: unharmed(system), patience_s=0.01)
        for asker in (*askers, patient):
            asker.close()


def test_what_it_cannot_do_it_says(tmp_path: Path, runtime_dir: Path) -> None:
    with up(tmp_path, ECHO) as system, pytest.raises(NoSuchFault, match="a message knows drop"):
        system.reach(Interposer, "echo").disturb("melt", 1.0, 0, 0, 0)
    mute = ECHO.replace("args: {to: voice, serves: echo}", "args: {to: voice}")
    with pytest.raises(BootError, match="add args"), up(tmp_path, mute):
        pass
