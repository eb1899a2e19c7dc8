"""world: a running system under attack, and bystanders in it who must not notice.

An Intruder is the test's own process as a task of the system: it goes through the same door as
every task, holds what the system file grants it, and can put any bytes on the wire. Nothing here
sleeps: waiting is `World.until`, which lets the launcher do its work meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import psutil
import zmq

from launcher.config import load
from launcher.system import System
from launcher.tasks import Task
from ukernel.abi import wire
from ukernel.abi.interface import Interface
from ukernel.abi.syscalls import Boot, Kernel, SlotRow, TraceRow
from ukernel.lib.channel import Channel
from ukernel.lib.connection import Connection, TaskInfo
from ukernel.lib.link import Link
from ukernel.lib.stub import bind, kernel

ROOT = Path(__file__).parents[2]
PATIENCE_S = 10.0
PROOF = 5  # right answers that a bystander must get before it counts as unharmed

T = TypeVar("T")
I = TypeVar("I", bound=Interface)  # noqa: E741

BYSTANDERS = """
system: adversary
servers:
  echo: {run: servers.echo, serves: echo}
  witness: {run: tests.adversary.tasks.witness, calls: [echo]}
"""
MORTAL = """
  mortal:
    run: tests.adversary.tasks.mortal
    state: persistent
    serves: tests.adversary.tasks.mortal:Mortal
    window: 1
    restart: {max_restarts: 100, backoff: {first_ms: 0}}
  attacker: {run: servers.client, calls: [mortal], start: demand}
"""


class Event(NamedTuple):
    """What the launcher was told: `who` is `slot#life`, or the slot."""

    kind: str
    who: str
    text: str


class Intruder(Connection):
    """The test as a task. It never waits for ever: `zmq.Again` after PATIENCE_S."""

    def __init__(self, info: TaskInfo, task: Task, secret: bytes) -> None:
        super().__init__(info)
        self.task = task
        self.secret = secret  # of its HELLO, which is over
        self.socket.set(zmq.RCVTIMEO, int(PATIENCE_S * 1000))
        self.socket.set(zmq.SNDTIMEO, int(PATIENCE_S * 1000))
        self.socket.set(zmq.LINGER, 0)

    @property
    def who(self) -> str:
        return f"{self.slot}#{self.life}"

    def put(self, op: int, **fields: Any) -> int:
        """Put one well-formed frame on the wire; its number."""
        self._seq += 1
        self.socket.send(wire.encode(op, **{"seq": self._seq, **fields}))
        return self._seq

    def ask(self, op: int, **fields: Any) -> wire.Message:
        """As `put`; its outcome."""
        return self.outcome(self.put(op, **fields))

    def outcome(self, seq: int) -> wire.Message:
        """The reply to number `seq`; what else arrives is kept."""
        return self.collect_all([seq])[0]

    def delivered(self) -> wire.Message:
        """The next call that the kernel brings, to an intruder that serves."""
        for m in self.inbox:
            if m.op == wire.DELIVER:
                self.inbox.remove(m)
                return m
        while (m := self.receive()).op != wire.DELIVER:
            self.put_aside(m)
        return m

    def serve(self, credit: int = 1) -> None:
        """Be READY, and ask for so many calls: the kernel knows of it when this returns."""
        kernel(self).ready("")
        self.put(wire.RECV, seq=credit, token=self.named["self"])
        self.sync()

    def sync(self) -> None:
        """Everything sent before has been looked at when this returns."""
        self.kernel("self").describe()

    def stub(self, interface: type[I], name: str) -> I:
        return bind(interface, self, self.named[name])

    def kernel(self, name: str) -> Kernel:
        return kernel(self, self.named[name])

    def quiet(self) -> bool:
        """Nothing has been delivered to this task, and nothing is on its way."""
        self.sync()
        return not any(m.op == wire.DELIVER for m in self.inbox)


class World:
    """One booted system. `check` says whether kernel and bystanders are unharmed."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.events: list[Event] = []
        self.intruders: list[Intruder] = []
        system.tell = lambda *event: self.events.append(Event(*event))
        try:
            system.boot()
        except BaseException:
            system.down()
            raise
        self.kernel_pid = self._kernel_pid()

    def _kernel_pid(self) -> int:
        assert self.system.kernel is not None
        return self.system.kernel.process.pid

    # --- waiting --------------------------------------------------------------------------------

    def until(self, done: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
        """Let the system live until `done` is true; its value."""
        deadline = time.monotonic() + patience_s
        while not (value := done()):
            assert time.monotonic() < deadline, f"{what} did not come; events: {self.events}"
            self.system.pump(0.01)
        return value

    def told(self, kind: str, who: str, text: str = "") -> Event:
        """Wait for an event of `kind` about `who` that says `text`."""

        def found() -> Event | None:
            return next((e for e in self.events if e[:2] == (kind, who) and text in e.text), None)

        event = self.until(found, f"{kind} {who} {text!r}")
        assert event is not None
        return event

    def alongside(self, work: Callable[[], T]) -> T:
        """Do `work`, which waits for servers, while the launcher goes on; its result."""
        results: list[T] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                results.append(work())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        self.until(lambda: not thread.is_alive(), "the end of the work")
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def ready(self, name: str, life: int) -> None:
        self.told("ready", f"{name}#{life}")

    # --- intruders ------------------------------------------------------------------------------

    def announce(self, name: str, pid: int) -> tuple[socket.socket, Task]:
        """Begin the next life of a `start: demand` slot as process `pid`; its control socket."""
        task = self.system.task(name)
        assert self.system.kernel is not None
        (fd,) = self.system.kernel.connection.descriptors(task.control.prepare())
        task.control.start(pid)
        task.life = task.control.begin(task.grants)
        return socket.socket(fileno=fd), task

    def intrude(self, name: str = "attacker") -> Intruder:
        """This process as the next life of a `start: demand` slot."""
        control, task = self.announce(name, os.getpid())
        secret = self.boot_record(control, socket.MSG_PEEK).secret
        where = self.system.file.where("servers", name)
        info = TaskInfo(name, control.detach(), os.getpid(), origin=where)
        self.intruders.append(Intruder(info, task, secret))
        return self.intruders[-1]

    def bury(self, intruder: Intruder) -> None:
        """End the intruder's life, as the launcher does after a death. Its connection stays."""
        intruder.task.control.end("dead")

    def boot_record(self, control: socket.socket, flags: int = 0) -> Boot:
        return Boot(*wire.unpack(control.recv(4096, flags)))

    @contextlib.contextmanager
    def stranger(self, routing_id: bytes = b"") -> Iterator[Any]:
        """A raw connection to the kernel that nobody announced."""
        context = zmq.Context()
        line = context.socket(zmq.DEALER)
        try:
            line.set(zmq.LINGER, 0)
            line.set(zmq.RCVTIMEO, int(PATIENCE_S * 1000))
            if routing_id:
                line.set(zmq.ROUTING_ID, routing_id)
            line.connect(f"ipc://{self.system.run.path}/kernel")
            yield line
        finally:
            line.close()
            context.term()

    # --- what there is to see -------------------------------------------------------------------

    def slot(self, name: str) -> SlotRow:
        return self.system.slots()[name]

    def counter(self, name: str) -> int:
        return next((c.value for c in self.system.control().counters() if c.name == name), 0)

    def trace(self) -> list[TraceRow]:
        rows: list[TraceRow] = []
        while page := self.system.control().trace(rows[-1].number + 1 if rows else 0):
            rows += page
        return rows

    def logs(self) -> dict[str, str]:
        folder = self.system.run.path / "logs"
        return {path.stem: path.read_text(errors="replace") for path in folder.iterdir()}

    def check(self) -> None:
        """The kernel lives, and bystanders get right answers as if nothing had happened."""
        assert self._kernel_pid() == self.kernel_pid
        assert psutil.Process(self.kernel_pid).status() != psutil.STATUS_ZOMBIE
        before = self.slot("witness").calls
        self.until(lambda: self.slot("witness").calls >= before + PROOF, "an answer for witness")
        for name in ("echo", "witness"):
            row = self.slot(name)
            assert (row.life, row.state, row.errors, row.faults) == (1, "ready", 0, 0), row
        assert self.logs()["kernel"] == ""
        assert not [c for c in self.system.control().counters() if c.name.startswith("failed_")]

    def close(self) -> None:
        for intruder in self.intruders:
            intruder.close()
        if self.system.kernel is not None:  # else the test has taken it down
            self.system.down()


def own_opcode(interface: type[Interface], name: str) -> int:
    """The number of an operation."""
    return next(o.number for o in interface.ops.values() if o.name == name)


def system_of(folder: Path, text: str, name: str = "a") -> System:
    """The system that `text` adds to the bystanders, not yet booted."""
    path = folder / "system.yaml"
    path.write_text(BYSTANDERS + text)
    return System(load(path), name=name)


@contextlib.contextmanager
def launched(
    folder: Path, servers: str = MORTAL
) -> Iterator[tuple[subprocess.Popen[str], dict[str, int]]]:
    """A system in a launcher of its own, and the process ids of everything in it."""
    path = folder / "system.yaml"
    path.write_text(BYSTANDERS + servers)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.adversary.tasks.launched", str(path), "b"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as launcher:
        assert launcher.stdin is not None
        assert launcher.stdout is not None
        pids: dict[str, int] = json.loads(launcher.stdout.readline() or "{}")
        assert pids, "the system came up"
        try:
            yield launcher, pids
            launcher.stdin.close()
            launcher.wait(PATIENCE_S)
        finally:
            launcher.kill()


def gone(pids: list[int]) -> bool:
    """None of these processes is left (one that waits to be reaped is not)."""
    return all(not psutil.pid_exists(p) or _is_dead(p) for p in pids)


def _is_dead(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def linked(
    task: Intruder, interface: Any, token: bytes, timeout_s: float = 10.0, seldom: bool = False
) -> Any:
    """A stub whose calls go by a channel of their own."""
    link = task.links.setdefault(token, Link(task, token, 0, seldom))
    return bind(interface, task, token, timeout_s, link)


def channel_of(stub: Any) -> Channel:
    """The channel that a stub of `linked` has opened."""
    channel: Channel = stub.link._channel
    assert channel is not None
    return channel
