"""shell: the kernel's only I/O. Frames become events, effects become system calls of Linux.

One ROUTER socket, one loop, one blocking receive. Nothing here decides anything, and nothing
here waits for a task: a send that cannot be taken at once makes its receiver a stranger.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import gc
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import zmq
from zmq.backend import Socket

from ukernel.abi import wire
from ukernel.abi.syscalls import Boot
from ukernel.broker import effects, lives
from ukernel.broker.state import State
from ukernel.broker.step import LOW_TOKENS, step

TICK_MS = 5  # how late a deadline may be seen
SEND_QUEUE = 1024  # messages that a task may leave unread before it is cut off


class Kernel:
    """The state, the socket and the descriptors; `run` does not return."""

    def __init__(self, address: str, control: socket.socket, root_pid: int) -> None:
        self.address = address
        self.state = State()
        self.controls: dict[int, socket.socket] = {}
        self.descriptors: dict[int, int] = {}
        self.context = zmq.Context()
        self.socket = self._bind(address)
        self._refill()
        root = lives.boot(self.state, root_pid, time.monotonic_ns())
        self.controls[root.client] = control
        self._boot_record(effects.BootRecord(root.client, root.secret, root.slot.name, 1))

    def _bind(self, address: str) -> Any:
        made = Socket(self.context, zmq.ROUTER)
        made.set(zmq.ROUTER_MANDATORY, 1)  # an unknown or full receiver is an error, not silence
        made.set(zmq.MAXMSGSIZE, wire.MAX_FRAME)
        made.set(zmq.SNDHWM, SEND_QUEUE)
        made.set(zmq.RCVTIMEO, TICK_MS)
        made.set(zmq.LINGER, 0)
        made.bind(address)
        return made

    def run(self) -> None:
        gc.collect()
        gc.freeze()
        gc.disable()  # reference counts suffice: what refers in a circle is unlinked by `caps`
        state, receive, clock = self.state, self.receive, time.monotonic_ns
        tick = clock()
        while True:
            event = receive()
            now = clock()
            if event is not None:
                self.do(step(state, event))
                if len(state.tokens) < LOW_TOKENS:
                    self._refill()
            if now - tick > TICK_MS * 1_000_000:
                tick = now
                self.do(step(state, effects.Tick(now)))

    def receive(self) -> effects.Event | None:
        """The next message as an event; None when there is none within a tick."""
        recv = self.socket.recv
        try:
            rid = recv()
        except zmq.Again:
            return None
        pid = 0
        if rid in self.state.bound:
            frame = recv()
        else:
            whole = recv(0, False)
            frame, pid = whole.bytes, _peer_pid(whole)
        now = time.monotonic_ns()
        if self.socket.get(zmq.RCVMORE):
            while self.socket.get(zmq.RCVMORE):
                recv()
            return effects.Refused(now, rid, "a message of more than one frame")
        if rid[:1] != b"\0":
            return effects.Refused(now, rid, "a routing id of its own choice")
        return effects.Arrived(now, rid, frame, pid)

    def do(self, todo: list[effects.Effect]) -> None:
        """Carry the effects out in order; one that cannot be ends the list, as it says."""
        for effect in todo:
            if type(effect) is effects.Send:
                self._send(effect)
                continue
            try:
                DO[type(effect)](self, effect)
            except OSError:
                if isinstance(effect, effects.Make | effects.MakeControl):
                    self._send(effect.otherwise)
                    self.do(step(self.state, effects.MakeFailed(effect.number)))
                    return
                self.state.count(f"failed_{type(effect).__name__.lower()}")

    def _send(self, effect: effects.Send) -> None:
        try:
            self.socket.send(effect.rid, SNDMORE)
            self.socket.send(effect.frame, zmq.DONTWAIT)
        except zmq.ZMQError:
            self.do(step(self.state, effects.Undeliverable(effect.rid)))

    def _refill(self) -> None:
        size = wire.TOKEN_SIZE
        random = os.urandom(size * LOW_TOKENS * 4)
        tokens = [random[at : at + size] for at in range(0, len(random), size)]
        self.do(step(self.state, effects.Refill(tokens)))

    # --- descriptors ----------------------------------------------------------------------------

    def _make(self, e: effects.Make) -> None:
        if e.size == 0:
            self.descriptors[e.number] = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            return
        made = os.memfd_create(f"ukernel-{e.number}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.descriptors[e.number] = made
        os.posix_fallocate(made, 0, e.size)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(made, fcntl.F_ADD_SEALS, seals)  # nobody can cut it under a mapping

    def _make_control(self, e: effects.MakeControl) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self.controls[e.number] = ours
        with theirs:
            _pass(self.controls[e.root], e.tag, [theirs.fileno()])

    def _pass(self, e: effects.Pass) -> None:
        fds = [self.descriptors[number] for number in e.numbers]
        if not e.read_only:
            _pass(self.controls[e.control], e.tag, fds)
            return
        with contextlib.ExitStack() as stack:
            for at, fd in enumerate(fds):  # a second open file: only that can be read-only
                fds[at] = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, fds[at])
            _pass(self.controls[e.control], e.tag, fds)

    def _close(self, e: effects.Close) -> None:
        if e.number in self.controls:
            self.controls.pop(e.number).close()
        elif e.number in self.descriptors:
            os.close(self.descriptors.pop(e.number))

    def _boot_record(self, e: effects.BootRecord) -> None:
        record = wire.pack(Boot(self.address, e.secret, e.slot, e.life))
        self.controls[e.control].send(record, socket.MSG_DONTWAIT)

    def _raise(self, e: effects.Raise) -> None:
        with contextlib.suppress(BlockingIOError):  # it is in that state already
            fd = self.descriptors[e.number]
            os.eventfd_write(fd, 1) if e.readable else os.eventfd_read(fd)

    def _schedule(self, e: effects.Schedule) -> None:
        if e.cores:
            os.sched_setaffinity(e.pid, e.cores)
        if e.fifo:
            top = os.sched_get_priority_max(os.SCHED_FIFO)
            level = max(1, e.priority * top // 256)
            os.sched_setscheduler(e.pid, os.SCHED_FIFO, os.sched_param(level))

    def _signal(self, e: effects.Signal) -> None:
        os.kill(e.pid, signal.Signals(e.signal))


SNDMORE = zmq.SNDMORE | zmq.DONTWAIT

DO: dict[type, Callable[[Kernel, Any], None]] = {
    effects.Make: Kernel._make,
    effects.MakeControl: Kernel._make_control,
    effects.Pass: Kernel._pass,
    effects.Close: Kernel._close,
    effects.BootRecord: Kernel._boot_record,
    effects.Raise: Kernel._raise,
    effects.Schedule: Kernel._schedule,
    effects.Signal: Kernel._signal,
}


def _peer_pid(frame: zmq.Frame) -> int:
    """The process behind a connection as Linux knows it (SO_PEERCRED): `host:uid:gid:pid`."""
    with contextlib.suppress(zmq.ZMQError, ValueError):
        _, uid, _, pid = str(frame.get("Peer-Address")).rsplit(":", 3)
        return int(pid) if int(uid) == os.getuid() else 0
    return 0


def _pass(control: socket.socket, tag: int, fds: list[int]) -> None:
    rights = array.array("i", fds)
    message = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
    control.sendmsg([tag.to_bytes(8, "little")], message, socket.MSG_DONTWAIT)
