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
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from launcher.frames import MAX_REQUEST, BadFrame, Inflow, dump
from launcher.requests import Held, Later, Refusal, perform
from launcher.rundir import CONTROL
from launcher.system import System
from ukernel.abi.errors import CallError

CREDENTIALS = struct.Struct("<iII")  # struct ucred: pid, uid, gid
MAX_PEERS = 64  # connections at once; the one that has been idle longest makes room


class Peer:
    """One client's connection. `busy` from its request until its answer is written."""

    def __init__(self, line: socket.socket) -> None:
        self.socket = line
        self.inflow = Inflow(MAX_REQUEST)
        self.outflow = bytearray()
        self.busy = False
        self.later: Later | None = None
        self.held: Held | None = None  # goes on until it says `end`, or is gone


class Control:
    """Serves requests about one system. `stop_requested` is for whoever pumps it to act upon."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.stop_requested = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._peers: list[Peer] = []
        self._todo: deque[tuple[Peer, Any]] = deque()
        self._farewell: list[Peer] = []  # asked for the end
        self._serving = self._working = False

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Be there for clients inside the context. Afterwards nothing is begun any more."""
        path, selector = str(self.system.run.path / CONTROL), self.system.selector
        self._listener.setblocking(False)
        self._listener.bind(path)
        os.chmod(path, 0o600)
        self._listener.listen(MAX_PEERS)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self.system.after_events.append(self._after_events)
        self._serving = True
        try:
            yield
        finally:
            self._serving = False
            self.system.after_events.remove(self._after_events)
            for line in [self._listener, *(peer.socket for peer in self._peers)]:
                selector.unregister(line)

    def close(self) -> None:
        """Let the clients go, except those that wait for `down`.

        Their streams end with this process, by Linux's hand: then nothing at all is left.
        """
        self._listener.close()
        for peer in self._peers:
            peer.inflow.close()
            if peer in self._farewell:
                peer.socket.detach()
            else:
                peer.socket.close()

    # --- connections ----------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            line, _ = self._listener.accept()
        except OSError:  # it has gone again, or no descriptors are left
            return
        if uid_of(line) != os.getuid() or not self._make_room():
            line.close()
            return
        line.setblocking(False)
        peer = Peer(line)
        self._peers.append(peer)
        self._watch(peer, selectors.EVENT_READ)

    def _make_room(self) -> bool:
        if len(self._peers) < MAX_PEERS:
            return True
        idle = next((peer for peer in self._peers if not peer.busy), None)
        if idle is not None:
            self._drop(idle)
        return idle is not None

    def _watch(self, peer: Peer, events: int) -> None:
        selector = self.system.selector
        if peer.socket in selector.get_map():
            selector.modify(peer.socket, events, lambda: self._progress(peer))
        else:
            selector.register(peer.socket, events, lambda: self._progress(peer))

    def _progress(self, peer: Peer) -> None:
        """Write what there is to write, read what there is to read, find its next request."""
        if peer not in self._peers:
            return  # dropped by an event of the same batch
        try:
            if peer.outflow:
                self._write(peer)
            if not peer.inflow.receive(peer.socket):
                self._drop(peer)
                return
        except BlockingIOError:
            pass
        except (OSError, BadFrame):
            self._drop(peer)
            return
        self._next_request(peer)

    def _next_request(self, peer: Peer) -> None:
        if peer.busy:
            return
        try:
            request = peer.inflow.take()
        except BadFrame:
            self._drop(peer)
            return
        if request is not None:
            peer.busy = True
            self._todo.append((peer, request))

    def _write(self, peer: Peer) -> None:
        """Write as much of the answer as fits. Raises OSError when nobody is there."""
        with contextlib.suppress(BlockingIOError):
            while peer.outflow:
                del peer.outflow[: peer.socket.send(peer.outflow)]
        writing = selectors.EVENT_WRITE if peer.outflow else 0
        self._watch(peer, selectors.EVENT_READ | writing)
        peer.busy = bool(peer.outflow)

    def _drop(self, peer: Peer) -> None:
        self.system.selector.unregister(peer.socket)
        self._peers.remove(peer)
        peer.inflow.close()
        peer.socket.close()
        if peer.later is not None:
            peer.later.abandon()
        if peer.held is not None:
            peer.held.end().abandon()

    # --- requests -------------------------------------------------------------------------------

    def _after_events(self) -> None:
        """Do what was asked and tell what has had its outcome.

        A request may pump the system itself: then this is called again, from within, and leaves
        the work to the call above it.
        """
        if self._working:
            return
        self._working = True
        try:
            while self._todo:
                self._begin(*self._todo.popleft())
            for peer in [p for p in self._peers if p.later is not None]:
                self._settle(peer)
        finally:
            self._working = False

    def _begin(self, peer: Peer, request: Any) -> None:
        if peer not in self._peers:
            return
        fds = peer.inflow.take_fds()
        try:
            outcome = self._tried(lambda: self._perform(peer, request, fds))
        finally:
            for fd in fds:
                os.close(fd)
        if outcome == {"ok": "down"}:
            self.stop_requested = True
            self._farewell.append(peer)
        elif isinstance(outcome, Later):
            peer.later = outcome
        else:
            self._answer(peer, outcome)

    def _perform(self, peer: Peer, request: Any, fds: list[int]) -> Any:
        if request == ["end"] and peer.held is not None:
            held, peer.held = peer.held, None
            return held.end()
        return perform(self.system, request, fds)

    def _settle(self, peer: Peer) -> None:
        assert peer.later is not None
        outcome = self._tried(peer.later.outcome)
        if outcome != {"ok": None}:
            peer.later = None
            self._answer(peer, self._kept(peer, outcome))

    def _kept(self, peer: Peer, outcome: Any) -> Any:
        """The answer; what goes on with it is now this client's, instead of what did before."""
        held = outcome.get("ok")
        if not isinstance(held, Held):
            return outcome
        if peer.held is not None:
            peer.held.end().abandon()
        peer.held = held
        return {"ok": held.answer}

    def _tried(self, do: Callable[[], Any]) -> Any:
        """The answer that comes of it, or a Later."""
        try:
            value = do()
        except (Refusal, LookupError) as error:
            return {"error": str(error.args[0]), "code": 2}
        except CallError as error:
            return {"error": str(error), "code": 1}
        return value if isinstance(value, Later) else {"ok": value}

    def _answer(self, peer: Peer, answer: Any) -> None:
        if peer not in self._peers or not self._serving:
            return  # it went away while its request pumped the system
        peer.outflow += dump(answer)
        try:
            self._write(peer)
        except OSError:
            self._drop(peer)
            return
        self._next_request(peer)


def uid_of(line: socket.socket) -> int:
    """The user at the other end, as the kernel of the host saw it at connect."""
    raw = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    uid: int = CREDENTIALS.unpack(raw)[1]
    return uid
