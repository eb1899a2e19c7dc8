"""connection: a task's one line to the kernel. One thread, one socket, one call at a time.

While a call waits for its reply, requests and notices that arrive are put aside in `inbox` for
the server loop. Descriptors come over the inherited control socket, announced by a tag.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import zmq
from zmq.backend import Socket

from ukernel.abi import wire
from ukernel.abi.errors import BY_CODE, CallError, Code, Denied, Protocol
from ukernel.abi.syscalls import Boot

CODES = frozenset(Code)
ENVIRONMENT = "UKERNEL_TASK"


@dataclass
class TaskInfo:
    """What the launcher tells a process about the task it is."""

    name: str
    control_fd: int
    launcher: int  # the process whose death is ours
    memory: int = 0  # bytes of private memory at most, 0: no limit
    args: dict[str, Any] = field(default_factory=dict)
    devices: list[str] = field(default_factory=list)
    state: str = "stateless"  # what the system file says that its next life has
    origin: str = ""  # file:line of its entry in the system file
    recorder_fd: int = -1  # the page of its flight recorder
    mischief: str = ""  # how it is to misbehave, see `mischief`

    def dump(self) -> str:
        return json.dumps(self.__dict__)


def task_info() -> TaskInfo:
    """Who this process is; ends it with a hint when nobody said."""
    told = os.environ.get(ENVIRONMENT)
    if told is None:
        module = getattr(sys.modules.get("__main__"), "__spec__", None)
        name = module.name if module is not None else "your.module"
        sys.exit(f"{name}: a task is started by a system file (run: {name}); see `ukernel up`")
    return TaskInfo(**json.loads(told))


@dataclass
class Stats:
    """What became of the calls that stubs made."""

    ok: int = 0
    retried: int = 0
    unknown: int = 0
    failed: int = 0


_prepared: dict[str, tuple[zmq.Context[Any], Any]] = {}


def prepare(address: str, context: zmq.Context[Any] | None = None) -> zmq.Context[Any]:
    """Connect ahead of time, when this process is no task yet. Nothing is said to anybody."""
    _prepared[address] = _connect(address, context)
    return _prepared[address][0]


def _connect(address: str, context: zmq.Context[Any] | None = None) -> tuple[zmq.Context[Any], Any]:
    context = context or zmq.Context()
    if os.sched_getscheduler(0) == os.SCHED_OTHER:  # its thread never interrupts who feeds it,
        context.set(zmq.THREAD_SCHED_POLICY, os.SCHED_BATCH)  # so that a burst leaves as one
    made = Socket(context, zmq.DEALER)
    made.set(zmq.LINGER, 1000)  # a last reply may still be on its way out
    made.connect(address)
    return context, made


class Connection:
    """Bound to the kernel as the task that the launcher announced."""

    def __init__(self, info: TaskInfo) -> None:
        self.info = info
        self.stats = Stats()
        self.inbox: deque[wire.Message] = deque()
        self._outcomes: deque[wire.Message] = deque()
        self._unwanted: set[int] = set()
        self._control = socket.socket(fileno=info.control_fd)
        self._fds: dict[int, list[int]] = {}
        self._seq = 0
        boot = Boot(*wire.unpack(self._control.recv(4096)))
        line = _prepared.pop(boot.address, None) or _connect(boot.address)
        self._context, self.socket = line
        self.slot, self.life, self.named = self._hello(boot.secret)

    def _hello(self, secret: bytes) -> tuple[str, int, dict[str, bytes]]:
        self.socket.send(wire.encode(wire.HELLO, token=secret))
        reply = self.receive()
        if reply.status:
            raise error_of(reply)
        slot, life, named = wire.unpack(reply.body)
        return slot, life, named

    def poll_notice(self) -> wire.Message | None:
        """A message that is already here, without waiting; None when there is none."""
        if self.inbox:
            return self.inbox.popleft()
        try:
            m = wire.decode(self.socket.recv(zmq.DONTWAIT))
        except zmq.Again:
            return None
        return m if isinstance(m, wire.Message) else None

    def close(self) -> None:
        """Let go of the kernel; what was sent is delivered first."""
        self.socket.close()
        self._context.term()
        self._control.close()

    def capability(self, name: str) -> bytes:
        """The token of what the system file gives this task under `name`."""
        token = self.named.get(name)
        if token is None:
            raise Denied(
                f"{self.slot} may not use {name}: add {name} to servers.{self.slot}.calls or "
                f".devices ({self.info.origin or 'in the system file'})"
            )
        return token

    def transmit(self, frame: bytes) -> None:
        """Send a frame. Raises Protocol for one that ZeroMQ would drop together with the line."""
        if len(frame) > wire.MAX_FRAME:
            raise Protocol(
                f"a message of {len(frame)} bytes, at most {wire.MAX_FRAME}: lend memory instead"
            )
        self.socket.send(frame)

    def receive(self) -> wire.Message:
        """The next message from the kernel, waiting for it."""
        m = wire.decode(self.socket.recv())
        assert isinstance(m, wire.Message), m  # the kernel sends no malformed frames
        return m

    def call(
        self,
        token: bytes,
        opcode: int,
        body: bytes,
        caps: tuple[bytes, ...] = (),
        deadline_ns: int = 0,
        system: bool = False,
    ) -> wire.Message:
        """Send and wait for the one outcome; whatever else comes first goes to the inbox."""
        self._seq = seq = self._seq + 1
        self.transmit(
            wire.encode(
                wire.SYS if system else wire.CALL,
                opcode=opcode,
                seq=seq,
                deadline_ns=deadline_ns,
                token=token,
                caps=caps,
                body=body,
            )
        )
        while True:
            m = self.receive()
            if m.op == wire.REPLY and m.seq == seq:
                return m
            self.put_aside(m)

    def put_aside(self, m: wire.Message) -> None:
        """Keep what came while something else was waited for."""
        if m.op != wire.REPLY:
            self.inbox.append(m)
        elif m.seq in self._unwanted:
            self._unwanted.remove(m.seq)
        else:
            self._outcomes.append(m)

    def post(
        self, token: bytes, opcode: int, body: bytes, *, system: bool = False, wanted: bool = True
    ) -> int:
        """Begin a call and go on; its number. `collect` brings the outcome, if it is `wanted`."""
        self._seq = seq = self._seq + 1
        op = wire.SYS if system else wire.CALL
        self.transmit(
            wire.encode(op, flags=wire.ASYNC, opcode=opcode, seq=seq, token=token, body=body)
        )
        if not wanted:
            self._unwanted.add(seq)
        return seq

    def collect(self) -> wire.Message:
        """The next outcome of a call that was begun with `post`: `seq` says which."""
        while not self._outcomes:
            self.put_aside(self.receive())
        return self._outcomes.popleft()

    def collect_all(self, numbers: list[int]) -> list[wire.Message]:
        """The outcomes of these posted calls, in this order."""
        found: dict[int, wire.Message] = {}
        others = []
        while len(found) < len(numbers):
            m = self.collect()
            if m.seq in numbers:
                found[m.seq] = m
            else:
                others.append(m)
        self._outcomes.extend(others)
        return [found[number] for number in numbers]

    def collected(self, number: int) -> wire.Message | None:
        """The outcome of this posted call if it is here already; without waiting."""
        found = next((m for m in self._outcomes if m.seq == number), None)
        if found is not None:
            self._outcomes.remove(found)
        return found

    def forget(self, number: int) -> None:
        """Nobody wants the outcome of this posted call any more, whenever it comes."""
        if self.collected(number) is None:
            self._unwanted.add(number)

    def send(
        self, token: bytes, opcode: int, body: bytes, caps: tuple[bytes, ...], system: bool = False
    ) -> None:
        """Send one-way. Whether anybody receives it is not told."""
        op = wire.SYS if system else wire.SEND
        self.transmit(wire.encode(op, opcode=opcode, token=token, caps=caps, body=body))

    def descriptors(self, tag: int) -> list[int]:
        """The descriptors announced as `tag`; the caller owns them."""
        while tag not in self._fds:
            data, fds, _, _ = socket.recv_fds(self._control, 8, 4)
            if not data:
                raise CallError("the kernel is gone")
            self._fds[int.from_bytes(data, "little")] = fds
        return self._fds.pop(tag)


def error_of(reply: wire.Message) -> CallError:
    """The exception that a refusing reply stands for."""
    kind = BY_CODE.get(reply.status, CallError)
    name = Code(reply.status).name if reply.status in CODES else f"status {reply.status}"
    try:
        text, detail = wire.unpack(reply.body)
    except (wire.Malformed, TypeError, ValueError):
        text, detail = "no reason was given", {}
    return kind(f"{name}: {text}", detail if isinstance(detail, dict) else {})
