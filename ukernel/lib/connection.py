"""connection: a task's one line to the kernel. One thread, one socket, one call at a time.

While a call waits for its reply, requests and notices that arrive are put aside in `inbox` for
the server loop. Descriptors come over the inherited control socket, announced by a tag.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from typing import Protocol as Shape

import zmq
from zmq.backend import Socket

from ukernel.abi import wire
from ukernel.abi.errors import BY_CODE, Answer, CallError, Code, Denied, Protocol
from ukernel.abi.recorder import SIZE as RECORDER_BYTES
from ukernel.abi.recorder import Recorder
from ukernel.abi.syscalls import Boot
from ukernel.abi.tally import BEGUN, Callee, Tally
from ukernel.lib.mapping import map_shared

if TYPE_CHECKING:
    from ukernel.lib.link import Link

CODES = frozenset(Code)
FDS_ROOM = socket.CMSG_LEN(4 * 4)  # for four; `socket.recv_fds` would not heed flags
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
    window: int = 8  # requests of one channel that it may have at once
    channels: dict[str, int] = field(default_factory=dict)  # of its callees: ns to spin
    mischief: str = ""  # how it is to misbehave, see `mischief`
    module: str = ""  # its program
    beside: dict[str, str] = field(default_factory=dict)  # of its callees, those in this process
    badges: dict[str, int] = field(default_factory=dict)  # of its callees: the object it may call

    def dump(self) -> str:
        return json.dumps(self.__dict__)


def task_info() -> TaskInfo:
    """Who this process is; ends it with a hint when nobody said."""
    return _playing[-1] if _playing else task_infos()[0]


def play(info: TaskInfo) -> None:
    """From here on, a program that asks is told that it is this task."""
    _playing[:] = [info]


def task_infos() -> list[TaskInfo]:
    """All that live in this process, see `household`."""
    told = os.environ.get(ENVIRONMENT)
    if told is None:
        module = getattr(sys.modules.get("__main__"), "__spec__", None)
        name = module.name if module is not None else "your.module"
        sys.exit(f"{name}: a task is started by a system file (run: {name}); see `ukernel up`")
    infos = json.loads(told)
    return [TaskInfo(**info) for info in (infos if isinstance(infos, list) else [infos])]


_playing: list[TaskInfo] = []  # of several tasks in this process, the one whose program is started


@dataclass
class Stats:
    """What became of the calls that stubs made."""

    ok: int = 0
    retried: int = 0
    unknown: int = 0
    failed: int = 0


class Meanwhile(Shape):
    """Waits for the outcome of a call by its number; of one that was begun, of whom and what."""

    def __call__(self, number: int, callee: Callee = ..., opcode: int = ...) -> wire.Message: ...


class Outcome(NamedTuple):
    """What a reply says, whichever way it came."""

    status: int
    body: bytes
    caps: tuple[bytes, ...] = ()


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

    def __init__(self, info: TaskInfo, beside: Connection | None = None) -> None:
        """`beside` is another one of this process, whose ZeroMQ context it shares."""
        self.info = info
        self.stats = Stats()
        self.inbox: deque[wire.Message] = deque()
        self._outcomes: deque[wire.Message] = deque()
        self._unwanted: set[int] = set()
        self._tellers: dict[int, Callable[[], None]] = {}  # of posted calls: see `tell`
        self.finished: deque[Callable[[], None]] = deque()  # tellers whose call has its outcome
        self._told = 0  # the last system call whose outcome nobody wants
        self.links: dict[bytes, Link] = {}  # of capabilities whose calls may go by a channel
        self.meanwhile: Meanwhile | None = None  # waits while others work
        self._control = socket.socket(fileno=info.control_fd)
        self._fds: dict[int, list[int]] = {}
        self._seq = 0
        page = _page(info.recorder_fd)
        self.recorder, self.tally = Recorder(page), Tally(page)
        boot = Boot(*wire.unpack(self._control.recv(4096)))
        shared: zmq.Context[Any] | None = beside._context if beside is not None else None
        line = _prepared.pop(boot.address, None) or _connect(boot.address, shared)
        self._context: zmq.Context[Any] = line[0]
        self.socket = line[1]
        self.fd: int = self.socket.get(zmq.FD)  # tells of news only while not `stirred`
        self.stirred = True  # ZeroMQ has been used since it last had nothing for us
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
        return self._next()

    def _next(self) -> wire.Message | None:
        try:
            m = wire.decode(self.socket.recv(zmq.DONTWAIT))
        except zmq.Again:
            self.stirred = False
            return None
        return m if isinstance(m, wire.Message) else None

    def stir(self) -> None:
        """There may be something to take in."""
        self.stirred = True

    def look(self) -> None:
        """Take in what has come while something else is waited for. A ping is answered: who waits
        for another is not hung."""
        while (m := self._next()) is not None:
            self._sort(m)

    def _sort(self, m: wire.Message) -> None:
        if m.op == wire.NOTICE and m.opcode == wire.NOTICE_PING:
            self.transmit(wire.encode(wire.RECV, token=self.named["self"]))
        else:
            self.put_aside(m)

    def gone(self, token: bytes) -> None:
        """This capability is no more, or has another token."""
        if link := self.links.pop(token, None):
            link.drop()
        for other in self.links.values():
            other.unregister(token)

    def revoking(self) -> None:
        """Capabilities that are lent may be among what is revoked: they are looked at anew."""
        for link in self.links.values():
            link.unregister_all()

    def leave(self) -> None:
        """Close it because the task ends. What the kernel has been told it has answered then: an
        answer that finds nobody would mean that the task does not read, and be its death."""
        while self._told in self._unwanted:
            self._sort(self.receive())
        self.close()

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
        self.stirred = True

    def receive(self) -> wire.Message:
        """The next message from the kernel, waiting for it."""
        m = wire.decode(self.socket.recv())
        self.stirred = True
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
        if self.meanwhile is not None and not system:
            return self.meanwhile(seq)
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
            if m.seq in self._tellers:
                self.finished.append(self._tellers.pop(m.seq))

    def post(
        self,
        token: bytes,
        opcode: int,
        body: bytes,
        caps: tuple[bytes, ...] = (),
        deadline_ns: int = 0,
        *,
        system: bool = False,
        wanted: bool = True,
    ) -> int:
        """Begin a call and go on; its number. `collect` brings the outcome, if it is `wanted`."""
        self._seq = seq = self._seq + 1
        op = wire.SYS if system else wire.CALL
        self.transmit(
            wire.encode(
                op,
                flags=wire.ASYNC,
                opcode=opcode,
                seq=seq,
                deadline_ns=deadline_ns,
                token=token,
                caps=caps,
                body=body,
            )
        )
        if not wanted:
            self._unwanted.add(seq)
            self._told = seq if system else self._told
        return seq

    def collect(self) -> wire.Message:
        """The next outcome of a call that was begun with `post`: `seq` says which."""
        while not self._outcomes:
            self._sort(self.receive())
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

    def awaited(self, number: int, callee: Callee, opcode: int) -> wire.Message:
        """The outcome of this posted call; that it is waited for can be seen meanwhile."""
        found = self.collected(number)
        if found is not None:
            return found
        self.tally.waits(callee, opcode, BEGUN, time.monotonic_ns())
        try:
            while (m := self.receive()).op != wire.REPLY or m.seq != number:
                self._sort(m)
            return m
        finally:
            self.tally.over()

    def collected(self, number: int) -> wire.Message | None:
        """The outcome of this posted call if it is here already; without waiting."""
        found = next((m for m in self._outcomes if m.seq == number), None)
        if found is not None:
            self._outcomes.remove(found)
        return found

    def tell(self, number: int, teller: Callable[[], None]) -> None:
        """Put `teller` among what is `finished` when this posted call has its outcome."""
        if any(m.seq == number for m in self._outcomes):
            self.finished.append(teller)
        else:
            self._tellers[number] = teller

    def forget(self, number: int) -> None:
        """Nobody wants the outcome of this posted call any more, whenever it comes."""
        self._tellers.pop(number, None)
        if self.collected(number) is None:
            self._unwanted.add(number)

    def send(
        self, token: bytes, opcode: int, body: bytes, caps: tuple[bytes, ...], system: bool = False
    ) -> None:
        """Send one-way. Whether anybody receives it is not told."""
        op = wire.SYS if system else wire.SEND
        self.transmit(wire.encode(op, opcode=opcode, token=token, caps=caps, body=body))

    def descriptors(self, tag: int, wait: bool = True) -> list[int]:
        """The descriptors announced as `tag`; the caller owns them. Who was told of them by
        another task does not `wait`: either they are here, or it lied (BlockingIOError)."""
        while tag not in self._fds:
            flags = 0 if wait else socket.MSG_DONTWAIT
            data, ancillary, _, _ = self._control.recvmsg(8, FDS_ROOM, flags)
            if not data:
                raise CallError("the kernel is gone")
            fds = b"".join(payload for _, _, payload in ancillary)
            self._fds[int.from_bytes(data, "little")] = memoryview(fds).cast("i").tolist()
        return self._fds.pop(tag)


def _page(fd: int) -> memoryview:
    """The one that the launcher gave; a task that nobody supervises has one of its own."""
    if fd < 0:
        return memoryview(bytearray(RECORDER_BYTES))
    page = map_shared(fd, RECORDER_BYTES, writable=True)
    os.close(fd)
    return page


def refusal(error: Answer | CallError) -> tuple[int, bytes]:
    """Status and body of the reply that says why there is no result."""
    if isinstance(error, Answer):
        return Code.ANSWER, wire.pack([type(error).__name__, str(error)])
    return error.code, wire.pack([str(error), error.detail])


def error_of(reply: wire.Message | Outcome) -> CallError:
    """The exception that a refusing reply stands for."""
    kind = BY_CODE.get(reply.status, CallError)
    name = Code(reply.status).name if reply.status in CODES else f"status {reply.status}"
    try:
        text, detail = wire.unpack(reply.body)
    except (wire.Malformed, TypeError, ValueError):
        text, detail = "no reason was given", {}
    return kind(f"{name}: {text}", detail if isinstance(detail, dict) else {})
