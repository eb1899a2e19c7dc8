"""A line to a real QEMU: what is asked is done in turn, and told in the loop of who asked."""

from __future__ import annotations

import select
import shutil
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from servers.vmm.qemu import commands
from servers.vmm.qemu.process import PROGRAM
from servers.vmm.qemu.qmp import ENDED, Failed, Failure, Line

pytestmark = pytest.mark.skipif(
    shutil.which(PROGRAM) is None, reason=f"{PROGRAM} is not here: apt-get install qemu-system-x86"
)
PATIENCE_S = 20


class Asker:
    """Who has a QEMU without a guest, and notes what is told."""

    def __init__(self) -> None:
        ours, its = socket.socketpair()
        with its:
            self.qemu = subprocess.Popen(
                [PROGRAM, "-M", "none", "-accel", "tcg", "-S", "-nodefaults", "-display", "none",
                 "-chardev", f"socket,id=c,fd={its.fileno()}", "-mon", "chardev=c,mode=control"],
                pass_fds=[its.fileno()], stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self.told: list[Any] = []
        self.line = Line(ours, lambda reason: self.told.append(f"ended {reason}".strip()))

    def do(self, work: Any) -> None:
        self.line.do(work, self.told.append)

    def wait(self, count: int) -> list[Any]:
        """What was told, when so much is."""
        while len(self.told) < count:
            assert select.select([self.line.fd], [], [], PATIENCE_S)[0], "nothing came"
            self.line.take()
        return self.told


@pytest.fixture
def asker() -> Iterator[Asker]:
    made = Asker()
    yield made
    made.qemu.kill()
    made.qemu.wait()


async def say(client: Any, command: str) -> Any:
    return await client.execute(command)


def test_one_after_the_other(asker: Asker) -> None:
    asker.do(partial(say, command="query-status"))
    asker.do(partial(say, command="no-such-command"))
    asker.do(commands.go_on)
    asker.do(partial(say, command="query-status"))
    before, refused, since_ns, after = asker.wait(4)
    assert (before["running"], after["running"]) == (False, True)
    assert isinstance(refused, Failed)
    assert "no-such-command" in refused.why
    assert since_ns > 0
    assert asker.line.busy == 0
    asker.qemu.kill()
    asker.line.close()


def test_a_copy_begins_with_what_was_saved_and_nothing_else_does(asker: Asker) -> None:
    asker.do(partial(commands.begin, state=None))
    asker.do(partial(commands.copy, keep=lambda state, stood_ns: state, runs=True))
    begun, copied = asker.wait(2)
    assert begun is None
    assert copied.kept.startswith(b"QEVM")
    assert copied.went_on_ns >= copied.stood_ns > 0
    asker.do(partial(commands.copy, keep=lambda state, stood_ns: state, runs=False))
    asker.do(partial(commands.copy, keep=lambda state, stood_ns: state, runs=False))
    _, _, stands, again = asker.wait(4)
    assert stands.went_on_ns == 0
    assert isinstance(again, Failed)  # one that stands since it was copied
    asker.qemu.kill()
    asker.line.close()


def test_one_that_cannot_be_copied_goes_on(asker: Asker) -> None:
    def keep(state: bytes, stood_ns: int) -> None:
        raise Failure("there is no room for it")

    for command in (
        partial(commands.begin, state=None),
        commands.go_on,
        partial(commands.copy, keep=keep, runs=True),
        partial(say, command="query-status"),
        partial(commands.copy, keep=keep, runs=False),
        partial(say, command="query-status"),
    ):
        asker.do(command)
    _, _, *refused, last = asker.wait(6)
    assert refused[0] == refused[2] == Failed("there is no room for it")
    assert (refused[1]["running"], last["running"]) == (True, False)
    asker.qemu.kill()
    asker.line.close()


GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\n'
READY = b'{"return": {}, "id": "__qmp#00000"}\n'


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"[" * 100_000 + b"\n", ""),
        (b"\xff\n", ""),
        (b"[]\n", ""),
        (b'{"event": "SHUTDOWN", "timestamp": 0}\nno JSON\n', ""),
        (b'{"event": "SHUTDOWN", "data": {"reason": []}, "timestamp": 0}\nno JSON\n', ""),
        (b'{"event": "SHUTDOWN", "data": {"reason": "x"}, "timestamp": 0}\nno JSON\n', " x"),
    ],
)
def test_whatever_it_says_its_end_is_told(said: bytes, reason: str) -> None:
    """The other end is no QEMU, or not any more."""
    ours, its = socket.socketpair()
    told: list[str] = []
    line = Line(ours, lambda why: told.append(f"ended {why}".strip()))
    its.sendall(GREETING)
    assert b"qmp_capabilities" in its.recv(1 << 16)
    its.sendall(READY + said)
    assert select.select([line.fd], [], [], PATIENCE_S)[0], "nothing came"
    line.take()
    assert told == [f"ended{reason}"]
    its.close()
    line.close()


def test_a_death_is_told_and_all_that_was_asked_has_failed(asker: Asker) -> None:
    asker.do(partial(say, command="query-status"))
    asker.wait(1)
    asker.qemu.kill()
    assert asker.wait(2)[1] == "ended"
    asker.do(partial(say, command="query-status"))
    asker.do(partial(say, command="query-status"))
    asker.line.close()
    assert asker.told[2:] == [Failed(ENDED), Failed(ENDED)]


def test_the_reason_of_an_end(asker: Asker) -> None:
    asker.do(partial(say, command="quit"))
    assert asker.wait(2)[-1] == "ended host-qmp-quit"
    asker.line.close()


def test_closing_ends_what_is_under_way(asker: Asker) -> None:
    async def never(client: Any) -> None:
        with client.listener(("NEVER",)) as told:
            await told.get()

    asker.do(never)
    asker.qemu.kill()
    asker.line.close()
    assert asker.told == [Failed(ENDED)]


def test_a_bug_of_ours_is_raised_in_the_loop(asker: Asker) -> None:
    async def bug(client: Any) -> None:
        raise ZeroDivisionError

    asker.do(bug)
    with pytest.raises(ZeroDivisionError):
        asker.wait(1)
    asker.qemu.kill()
    asker.line.close()
