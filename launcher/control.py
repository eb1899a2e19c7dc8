"""control: the running system's socket, `RUN_DIR/control`: what `ukernel ps`, `kill`, ... ask.

Served between the events of `System.pump` and never waited for: a client that sends nothing, half
a request or rubbish, or reads no answer, costs its own connection. Requests are done one after
the other. Who may connect: this user, as Linux says (the directory is 0700, the socket 0600, and
SO_PEERCRED is looked at).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from launcher.frames import MAX_REQUEST, BadFrame, Inflow, dump
from launcher.process import describe
from launcher.rundir import CONTROL
from launcher.system import MACHINE, System, Task
from ukernel.abi import syscalls

CREDENTIALS = struct.Struct("<iII")  # struct ucred: pid, uid, gid
MAX_PEERS = 64  # connections at once; the one that has been idle longest makes room
SIGNALS = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGSTOP, signal.SIGCONT})


class Refusal(Exception):
    """The request cannot be done; the client is told and exits with status 2."""


@dataclass(eq=False)
class Peer:
    """One client's connection."""

    socket: socket.socket
    inflow: Inflow = field(default_factory=lambda: Inflow(MAX_REQUEST))
    outflow: bytearray = field(default_factory=bytearray)
    poll: Callable[[], Any] | None = None  # the outcome of its request, None while there is none
    leave: Callable[[], None] = lambda: None  # what to undo when it goes before the outcome
    registered: bool = True

    @property
    def idle(self) -> bool:
        return self.poll is None and not self.outflow


class Request(NamedTuple):
    """How a request is spelled and done; `handler` returns the answer or sets `peer.poll`."""

    handler: Callable[..., Any]
    kinds: tuple[type, ...]


class Control:
    """Serves requests about one system. `stop_requested` is for whoever pumps it to act upon."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.stop_requested = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._peers: list[Peer] = []
        self._todo: deque[tuple[Peer, Any]] = deque()
        self._working = False

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Be there for clients inside the context."""
        path, selector = str(self.system.run.path / CONTROL), self.system.selector
        self._listener.setblocking(False)
        self._listener.bind(path)
        os.chmod(path, 0o600)
        self._listener.listen(MAX_PEERS)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self.system.after_events.append(self._after_events)
        try:
            yield
        finally:
            self.system.after_events.remove(self._after_events)
            selector.unregister(self._listener)
            for peer in self._peers:
                selector.unregister(peer.socket)
                peer.registered = False

    def close(self) -> None:
        """Let the clients go. The end of the stream tells those that wait for `down`: done."""
        self._listener.close()
        for peer in list(self._peers):
            self._drop(peer)

    # --- connections ----------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            line, _ = self._listener.accept()
        except OSError:  # it has gone again, or no descriptors are left
            return
        peer = Peer(line)
        if uid_of(line) != os.getuid() or not self._room():
            line.close()
            return
        line.setblocking(False)
        self._peers.append(peer)
        self.system.selector.register(
            line, selectors.EVENT_READ | selectors.EVENT_WRITE, lambda: self._progress(peer)
        )

    def _room(self) -> bool:
        if len(self._peers) < MAX_PEERS:
            return True
        longest_idle = next((p for p in self._peers if p.idle), None)
        if longest_idle is not None:
            self._drop(longest_idle)
        return longest_idle is not None

    def _progress(self, peer: Peer) -> None:
        """Write what there is to write, read what there is to read."""
        if peer not in self._peers:
            return
        try:
            self._flush(peer)
            if not peer.inflow.receive(peer.socket):
                self._drop(peer)
                return
            self._take(peer)
        except BlockingIOError:
            return
        except (OSError, BadFrame):
            self._drop(peer)

    def _take(self, peer: Peer) -> None:
        """Its next request, once the answer to the one before is on its way."""
        if peer.idle and (request := peer.inflow.take()) is not None:
            self._todo.append((peer, request))

    def _flush(self, peer: Peer) -> None:
        with contextlib.suppress(BlockingIOError):
            while peer.outflow:
                del peer.outflow[: peer.socket.send(peer.outflow)]
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if peer.outflow else 0)
        if peer.registered:
            key = self.system.selector.get_key(peer.socket)
            self.system.selector.modify(peer.socket, events, key.data)

    def _drop(self, peer: Peer) -> None:
        if peer.registered:
            self.system.selector.unregister(peer.socket)
        self._peers.remove(peer)
        peer.inflow.close()
        peer.socket.close()
        leave, peer.leave = peer.leave, lambda: None
        leave()

    # --- requests -------------------------------------------------------------------------------

    def _after_events(self) -> None:
        """Do what was asked, tell what has had its outcome. Not entered again from within."""
        if self._working:
            return
        self._working = True
        try:
            while self._todo:
                peer, request = self._todo.popleft()
                if peer in self._peers:
                    self._answer(peer, lambda p=peer, r=request: self._do(p, r))
            for peer in list(self._peers):
                if peer.poll is not None:
                    self._answer(peer, peer.poll)
        finally:
            self._working = False

    def _answer(self, peer: Peer, outcome: Callable[[], Any]) -> None:
        try:
            value = outcome()
            if value is None:
                return
            answer = {"ok": value}
        except (Refusal, LookupError) as refusal:
            answer = {"error": str(refusal.args[0]), "code": 2}
        peer.poll, peer.leave = None, lambda: None
        peer.outflow += dump(answer)
        try:
            self._flush(peer)
            self._take(peer)
        except (OSError, BadFrame):
            self._drop(peer)

    def _do(self, peer: Peer, request: Any) -> Any:
        match request:
            case [str(name), *args] if name in REQUESTS:
                handler, kinds = REQUESTS[name]
                if [type(a) for a in args] != list(kinds):
                    raise Refusal(f"{name} takes {len(kinds)} arguments of other types")
                return handler(self, peer, *args)
        raise Refusal(f"no such request; there are {', '.join(REQUESTS)}")

    def info(self, peer: Peer) -> Any:
        system = self.system
        servers = system.file.manifest.servers
        return {
            "system": system.name,
            "config": str(system.file.path.absolute()),
            "launcher": os.getpid(),
            "kernel": system.kernel.process.pid if system.kernel else 0,
            "boot_ms": system.boot_ms,
            "serves": {n: s.serves for n, s in servers.items() if s.serves},
            "devices": list(system.file.manifest.hardware),
            "demand": {n: list(s.calls) for n, s in servers.items() if s.start == "demand"},
        }

    def ps(self, peer: Peer) -> Any:
        rows = []
        for slot in self.system.slots().values():
            task = self.system.tasks.get(slot.name)
            rows.append({**slot._asdict(), "restarts": task.restarts if task else 0})
        return rows

    def kill(self, peer: Peer, name: str, signo: int) -> Any:
        if signo not in SIGNALS:
            raise Refusal(f"signal {signo} is not one of {', '.join(sorted(s.name for s in SIGNALS))}")
        self.system.signal(name, signo)
        return {"life": self.system.tasks[name].life}

    def restart(self, peer: Peer, name: str) -> Any:
        task = self._restartable(name)
        self.system.restart(name)

        def ready() -> Any:
            if task.state in (syscalls.FAILED, syscalls.STOPPED):
                how = describe(task.status) if task.status is not None else task.state
                raise Refusal(f"{name} did not come up ({how}): see `ukernel logs {name}`")
            return {"life": task.life} if task.state == syscalls.READY else None

        peer.poll = ready
        return ready()

    def _restartable(self, name: str) -> Task:
        task = self.system.task(name)
        if name == MACHINE:
            raise Refusal("the machine cannot be restarted alone: take the system down and up again")
        if task.spec is not None and task.spec.start == "demand":
            raise Refusal(f"{name} is a command (start: demand): it runs when it is asked to")
        return task

    def caps(self, peer: Peer) -> Any:
        return [row._asdict() for row in self.system.caps()]

    def kstat(self, peer: Peer) -> Any:
        return dict(self.system.control().counters())

    def trace(self, peer: Peer, start: int) -> Any:
        """At most one page of the kernel's; who wants more asks again."""
        rows = self.system.control().trace(max(0, start))
        return [[v.hex() if isinstance(v, bytes) else v for v in row] for row in rows]

    def run(self, peer: Peer, name: str, argv: list[str], directory: str) -> Any:
        fds = peer.inflow.take_fds()
        try:
            if len(fds) != 3 or not all(type(word) is str for word in argv):
                raise Refusal("run takes a list of words and three descriptors")
            task = self.system.run_task(name, argv, (fds[0], fds[1], fds[2]), directory)
        finally:
            for fd in fds:
                os.close(fd)
        process = task.process

        def ended() -> Any:
            return None if process is None or process.status is None else {"status": process.status}

        peer.poll, peer.leave = ended, lambda: self._abandoned(task, process)
        return None

    def _abandoned(self, task: Task, process: Any) -> None:
        """Nobody waits for the command any more: Ctrl-C."""
        if process is not None and process is task.process:
            process.send(signal.SIGKILL)

    def down(self, peer: Peer) -> Any:
        """Answered by the end of the stream, when nothing is left."""
        self.stop_requested = True
        peer.poll = lambda: None


REQUESTS = {
    "info": Request(Control.info, ()),
    "ps": Request(Control.ps, ()),
    "kill": Request(Control.kill, (str, int)),
    "restart": Request(Control.restart, (str,)),
    "caps": Request(Control.caps, ()),
    "kstat": Request(Control.kstat, ()),
    "trace": Request(Control.trace, (int,)),
    "run": Request(Control.run, (str, list, str)),
    "down": Request(Control.down, ()),
}


def uid_of(line: socket.socket) -> int:
    """The user at the other end, as the kernel of the host saw it at connect."""
    raw = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    uid: int = CREDENTIALS.unpack(raw)[1]
    return uid
