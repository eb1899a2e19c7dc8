"""shell: the kernel's only I/O. Frames become events, effects become system calls of Linux.

One ROUTER socket, one loop, one blocking receive. It decides nothing and waits for no task.
"""

import array
import contextlib
import ctypes
import fcntl
import gc
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import zmq
from zmq.backend import Socket

from ukernel.abi import wire
from ukernel.abi.syscalls import Boot
from ukernel.broker import effects, lives
from ukernel.broker.state import TRACE_LENGTH, State
from ukernel.broker.step import LOW_TOKENS, step

TICK_MS = 5  # how late a deadline may be seen
PR_SET_PDEATHSIG = 1
OPTIONS = {
    zmq.ROUTER_MANDATORY: 1,  # an unknown or full receiver is an error, not silence
    zmq.MAXMSGSIZE: wire.MAX_FRAME,
    zmq.SNDHWM: 1024,  # messages that a task may leave unread before it is cut off
    zmq.RCVTIMEO: TICK_MS,
    zmq.HANDSHAKE_IVL: 1000,  # ms for a connection to say what it is: a silent one costs a file
    zmq.LINGER: 0,
}


class Kernel:
    """The state, the socket and the descriptors; `run` does not return."""

    def __init__(self, address: str, control: socket.socket, root_pid: int, trace: bool) -> None:
        self.address = address
        self.state = State(trace=deque(maxlen=TRACE_LENGTH if trace else 0))
        self.root = control
        self.controls: dict[int, socket.socket] = {}
        self.descriptors: dict[int, list[int]] = {}
        self.context = zmq.Context()  # its thread never preempts us: a burst leaves as one
        self.context.set(zmq.THREAD_SCHED_POLICY, os.SCHED_BATCH)
        self.socket: Any = Socket(self.context, zmq.ROUTER)
        for option, value in OPTIONS.items():
            self.socket.set(option, value)
        self.socket.bind(address)
        self._refill()
        root = lives.boot(self.state, root_pid, time.monotonic_ns())
        self.controls[root.client] = control
        self._bootrecord(effects.BootRecord(root.client, root.secret, root.slot.name))

    def run(self) -> None:
        gc.freeze()
        gc.disable()  # reference counts suffice: what refers in a circle is unlinked by `caps`
        state, tick = self.state, 0
        while True:
            event = self.receive()
            self.do(step(state, event))
            if len(state.tokens) < LOW_TOKENS:
                self._refill()
            state.counters["events"] += 1  # and how long each has kept us from the next:
            state.counters["busy_ns"] += time.monotonic_ns() - event.now
            if event.now - tick > TICK_MS * 1_000_000:
                tick = event.now
                self.do(step(state, effects.Tick(tick)))

    def receive(self) -> effects.Arrived | effects.Tick:
        """The next message; or that none came within a tick."""
        recv = self.socket.recv
        try:
            rid = recv()
        except zmq.Again:
            return effects.Tick(time.monotonic_ns())
        whole = recv(0, False)
        frame = b"" if whole.more else whole.bytes  # more than one frame is no message
        while whole.more:
            whole = recv(0, False)
        pid = 0 if rid in self.state.bound else _peer_pid(whole)
        return effects.Arrived(time.monotonic_ns(), rid, frame, pid)

    def do(self, todo: list[effects.Effect]) -> None:
        """Carry the effects out in order; one that cannot be ends the list, as it says."""
        for effect in todo:
            if type(effect) is effects.Send:  # nearly always
                self._send(effect)
                continue
            try:
                DO[type(effect)](self, effect)
            except (OSError, KeyError, ValueError, OverflowError):
                if isinstance(effect, effects.Make | effects.MakeControl):
                    self._send(effect.otherwise)
                    self.do(step(self.state, effects.MakeFailed(effect.number)))
                    return
                self.state.counters[f"failed_{type(effect).__name__.lower()}"] += 1

    def _send(self, effect: effects.Send) -> None:
        try:
            self.socket.send(effect.rid, SNDMORE)
            self.socket.send(effect.frame, DONTWAIT)
        except zmq.ZMQError:
            self.do(step(self.state, effects.Undeliverable(effect.rid)))

    def _refill(self) -> None:
        tokens = [os.urandom(wire.TOKEN_SIZE) for _ in range(LOW_TOKENS)]
        self.do(step(self.state, effects.Refill(tokens)))

    def _make(self, e: effects.Make) -> None:
        made = self.descriptors[e.number] = []  # what there is when Linux refuses is closed again
        for size in e.sizes:
            if size <= 0:
                made.append(os.eventfd(-size, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
                continue
            made.append(os.memfd_create(f"ukernel-{e.number}", MEMFD))
            os.posix_fallocate(made[-1], 0, size)
            fcntl.fcntl(made[-1], fcntl.F_ADD_SEALS, SEALS)

    def _makecontrol(self, e: effects.MakeControl) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self.controls[e.number] = ours
        with theirs:
            _pass(self.root, e.tag, [theirs.fileno()])

    def _pass(self, e: effects.Pass) -> None:
        fds = list(self.descriptors[e.number])
        with contextlib.ExitStack() as stack:
            for at in range(e.read_only):  # a second open file: only that can be read-only
                fds[at] = stack.enter_context(open(f"/proc/self/fd/{fds[at]}", "rb")).fileno()
            _pass(self.controls[e.control], e.tag, fds)

    def _close(self, e: effects.Close) -> None:
        if e.number in self.controls:
            self.controls.pop(e.number).close()
        for fd in self.descriptors.pop(e.number, ()):
            os.close(fd)

    def _bootrecord(self, e: effects.BootRecord) -> None:
        record = wire.pack(Boot(self.address, e.secret, e.slot))
        self.controls[e.control].send(record, socket.MSG_DONTWAIT)

    def _raise(self, e: effects.Raise) -> None:
        (fd,), look = self.descriptors[e.number], select.poll()
        look.register(fd)
        now = dict(look.poll(0)).get(fd, 0)
        if now & (select.POLLOUT if e.readable else select.POLLIN):  # its holder can make it block
            os.eventfd_write(fd, 1) if e.readable else os.eventfd_read(fd)

    def _shut(self, e: effects.Shut) -> None:
        match self.descriptors[e.number]:
            case [page, _, *bells]:  # else Linux has refused one of them
                os.pwrite(page, b"\1", 0)
                for bell in bells:
                    os.eventfd_write(bell, 0)  # which cannot block, see lib.bell


MEMFD = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL  # of what others have mapped
DONTWAIT = int(zmq.DONTWAIT)
SNDMORE = int(zmq.SNDMORE) | DONTWAIT

DO: dict[type, Callable[[Kernel, Any], None]] = {
    kind: getattr(Kernel, f"_{kind.__name__.lower()}") for kind in get_args(effects.Effect)
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


def main() -> None:
    """The kernel of the system in a directory; its root task is on the other end of a socket."""
    directory, control = Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the launcher, which stops us last
    lock = os.open(directory / "kernel.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"ukernel.broker: another kernel serves {directory}; stop it with `ukernel down`")
    Kernel(f"ipc://{directory}/kernel", control, os.getppid(), "untraced" not in sys.argv).run()
