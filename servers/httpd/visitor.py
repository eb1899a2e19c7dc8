"""visitor: one connection of a client, and as much of it as can be done without waiting.

It receives when there is something to receive, and sends when there is room; `told` says so. One
answer at a time: nothing is received while one is being sent, so a visitor costs a bounded amount
of memory. After the last answer it hears the client out: to close a connection with bytes that
nobody has received would break off the answer too (RFC 9112 §9.6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from servers.httpd.files import Found, Site
from servers.httpd.http import Answer, Conversation, Find, Say, Then
from servers.httpd.ranges import Span
from servers.httpd.replies import Reply, Request
from servers.httpd.sending import Pieces, Sending
from servers.httpd.shelf import Held, Shelf
from ukernel.abi.network import READABLE, WRITABLE
from ukernel.lib.sockets import TcpStream

NOTHING = Span(0, 0)
TURNS = 4  # sends in a row


class Tools(NamedTuple):
    """What all visitors share."""

    site: Site
    shelf: Shelf
    pieces: Pieces
    date: Callable[[], str]
    log: Callable[[TcpStream, Request | None, Reply], None]


class Visitor:
    """The client behind the tag `tag`."""

    def __init__(self, tag: int, stream: TcpStream, tools: Tools) -> None:
        self.tag = tag
        self.stream = stream
        self.over = False  # there is nothing more to do
        self.progress = 0  # counts what moves it on: requests, and bytes that were taken
        self._tools = tools
        self._conversation = Conversation()
        self._sending: Sending | None = None
        self._answers = False  # what is being sent is an answer, and not only a word before one
        self._held: Held | None = None
        self._readable, self._writable = False, True
        self._hears_out = False

    @property
    def idle(self) -> bool:
        """Whether it waits for the client to ask."""
        return self._sending is None

    def told(self, events: int) -> None:
        """The connection has become readable, writable, or both."""
        self._readable |= bool(events & READABLE)
        self._writable |= bool(events & WRITABLE)
        self.go_on()

    @property
    def eager(self) -> bool:
        """Whether it could go on at once."""
        return self._sending is not None and self._writable and not self.over

    def go_on(self) -> None:
        """What can be done now. Others want a turn too, so no more than some pieces are sent."""
        turns = TURNS
        while not self.over:
            if self._sending is not None:
                if not self._writable or not turns:
                    return
                self._send(self._sending)
                turns -= 1
            elif self._hears_out or not self._speak():
                if not self._readable:
                    return
                self._receive()

    def _receive(self) -> None:
        self._readable = False
        data = self.stream.recv()
        if not self._hears_out:
            self._conversation.receive(bytes(data))
        elif not data:
            self.over = True

    def _speak(self) -> bool:
        """The next step of the conversation; whether there was one without receiving more."""
        match self._conversation.step():
            case Then.WAIT:
                return False
            case Then.CLOSE:
                self.over = True
            case Say(text):
                self._sending, self._answers = Sending(self.tag, text, None, NOTHING), False
            case Answer(reply):
                self._answer(None, Found(reply))
            case Find(request):
                self._answer(request, self._tools.site.find(self.tag, request))
        return True

    def _answer(self, request: Request | None, found: Found) -> None:
        reply, self._held = found
        self.progress += 1
        self._tools.log(self.stream, request, reply)
        text = self._conversation.answer(reply, self._tools.date())
        file, span = None, NOTHING
        if self._held is not None and reply.span is not None:
            file, span = self._held.file, reply.span
        self._sending, self._answers = Sending(self.tag, text, file, span), True

    def _send(self, sending: Sending) -> None:
        before = self.stream.sent
        self._writable = sending.push(self.stream, self._tools.pieces)
        self.progress += self.stream.sent - before
        if sending.done:
            self._sending = None
            self._let_go_of_file()
            if self._answers and not self._conversation.sent():
                self.stream.shutdown()
                self._hears_out = True

    def _let_go_of_file(self) -> None:
        self._tools.pieces.let_go(self.tag)
        if self._held is not None:
            self._tools.shelf.give_back(self._held)
            self._held = None

    def close(self) -> None:
        """Let go of everything."""
        self._let_go_of_file()
        self.stream.close()
