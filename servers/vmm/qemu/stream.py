"""stream: a connected socket in the loop of a server: nothing here waits.

What does not fit into the socket stays in a queue, whose length its owner looks at. `listen(False)`
lets the other end wait: nothing is read. A server watches what is readable; this is watched by way
of an epoll of its own, which is readable when the socket can do what is wanted of it.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Protocol

from ukernel.lib.upstream import Loop

READ_BYTES = 256 << 10  # at once
SEND_PIECES = 64  # at once
GONE = "the other end has gone"
ENDED = select.EPOLLHUP | select.EPOLLERR


class Host(Loop, Protocol):
    """The server in whose loop this lives."""

    def watch(self, fd: int, ready: Callable[[], None]) -> None: ...
    def unwatch(self, fd: int) -> None: ...


Bytes = bytes | bytearray | memoryview


class Outgoing:
    """Bytes to be sent, and who is told when they are."""

    __slots__ = ("data", "sent")

    def __init__(self, data: memoryview, sent: Callable[[], None] | None) -> None:
        self.data = data
        self.sent = sent


class Stream:
    """`came` gets what has come, in memory that is used again. `gone` is called once, from the
    loop, with the reason why the other end is no more."""

    def __init__(
        self,
        host: Host,
        sock: socket.socket,
        came: Callable[[memoryview], None],
        gone: Callable[[str], None],
    ) -> None:
        self._host = host
        self._socket = sock
        self._came = came
        self._gone = gone
        self._queue: deque[Outgoing] = deque()
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._listens = True
        self._failed = ""
        self._flushing = False
        self._wanted: int = select.EPOLLIN
        sock.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(sock, self._wanted)
        self.closed = False
        host.watch(self._epoll.fileno(), self._ready)

    @property
    def waiting(self) -> int:
        """Pieces that are not sent yet."""
        return len(self._queue)

    def send(self, *pieces: Bytes, sent: Callable[[], None] | None = None) -> None:
        """One after the other; `sent` is called when the last of them is with the socket, or when
        it will never be. It may be called before this returns."""
        *first, last = pieces
        self._queue.extend(Outgoing(memoryview(data), None) for data in first)
        self._queue.append(Outgoing(memoryview(last), sent))
        self._flush()

    def listen(self, listens: bool) -> None:
        """Whether to read what comes."""
        self._listens = listens
        self._want()

    def finish(self) -> None:
        """Take what the other end, which is dead, has said last."""
        with contextlib.suppress(OSError):  # there is no more, or it has ended with an error
            while not self.closed and (length := self._socket.recv_into(self._buffer)):
                self._came(self._buffer[:length])

    def close(self) -> None:
        """Hang up. What was not sent never will be."""
        if self.closed:
            return
        self.closed = True
        self._host.unwatch(self._epoll.fileno())
        self._epoll.close()
        self._socket.close()
        self._drop()

    def _ready(self) -> None:
        for _, events in self._epoll.poll(0):
            if events & select.EPOLLOUT:
                self._flush()
            if self._failed or (events & ENDED and not self._listens):
                self._end(self._failed or GONE)
            elif self._listens and events & (select.EPOLLIN | ENDED):
                self._read()

    def _read(self) -> None:
        try:
            length = self._socket.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(f"{GONE}: {error.strerror}")
            return
        if length:
            self._came(self._buffer[:length])
        else:
            self._end(GONE)

    def _flush(self) -> None:
        """Send what the socket takes. An error shows in the loop, not to who sends. Who is told of
        what is sent may send more: that is queued, and sent here."""
        if self._flushing:
            return
        self._flushing = True
        while self._queue and not self._failed and not self.closed:
            pieces = [piece.data for piece in islice(self._queue, SEND_PIECES)]
            try:
                length = self._socket.sendmsg(pieces)
            except BlockingIOError:
                break
            except OSError as error:
                self._failed = f"{GONE}: {error.strerror}"
            else:
                for sent in self._advance(length):
                    sent()
        self._flushing = False
        if self._failed:
            self._drop()
        self._want()

    def _advance(self, length: int) -> list[Callable[[], None]]:
        """So many bytes more are sent; who is to be told."""
        told = []
        while self._queue and length >= len(self._queue[0].data):
            piece = self._queue.popleft()
            length -= len(piece.data)
            if piece.sent is not None:
                told.append(piece.sent)
        if length:
            self._queue[0].data = self._queue[0].data[length:]
        return told

    def _drop(self) -> None:
        queue, self._queue = self._queue, deque()
        for piece in queue:
            if piece.sent is not None:
                piece.sent()

    def _want(self) -> None:
        """An end is always told; a failure is, since the socket can be written to then."""
        wanted = select.EPOLLIN if self._listens else 0
        wanted |= select.EPOLLOUT if self._queue or self._failed else 0
        if wanted != self._wanted and not self.closed:
            self._wanted = wanted
            self._epoll.modify(self._socket, wanted)

    def _end(self, why: str) -> None:
        if not self.closed:
            self.close()
            self._gone(why)
