"""http: one connection's side of HTTP/1.1 (RFC 9112), as bytes in and steps out. Pure.

    conversation.receive(data)               b"" at the end of what comes
    while (step := conversation.step()) ...
        Find(request)     look for it, then `answer` with what came of that
        Answer(reply)     `answer` with this
        Say(text)         send this, and take the next step
        Then.WAIT         nothing can be done before more is received
        Then.CLOSE        there will be nothing more
    conversation.answer(reply, date)         the bytes that come before a file's
    conversation.sent()                      all is sent: whether the conversation goes on

A client may send its next requests before it has the answer; they stay in the buffer until `sent`.
While an answer is being sent nothing need be received, so what is buffered has a bound.
"""

from __future__ import annotations

from enum import Enum, auto
from http import HTTPStatus
from typing import NamedTuple

import h11

from servers.httpd.replies import KNOWN, METHODS, Reply, Request, refusal
from servers.httpd.target import LONGEST, BadTarget, parse_target

MOST_HEAD = 16 * 1024  # bytes of a request without its body
MOST_BODY = 64 * 1024  # bytes of a body; nobody reads it
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Then(Enum):
    WAIT = auto()
    CLOSE = auto()


class Find(NamedTuple):
    request: Request


class Answer(NamedTuple):
    reply: Reply


class Say(NamedTuple):
    text: bytes


Step = Find | Answer | Say | Then


class Conversation:
    """What has been said on one connection."""

    def __init__(self) -> None:
        self._line = h11.Connection(h11.SERVER, MOST_HEAD)
        self._request: h11.Request | None = None
        self._body = 0  # bytes of it
        self._over = False  # after this answer

    def receive(self, data: bytes) -> None:
        """Bytes from the client; none: it sends no more."""
        self._line.receive_data(data)

    def step(self) -> Step:
        """What to do next. Not to be asked while an answer is being sent."""
        while True:
            try:
                event = self._line.next_event()
            except h11.RemoteProtocolError as error:
                return self._malformed(error)
            found = self._take(event)
            if found is not None:
                return found

    def _take(self, event: object) -> Step | None:
        match event:
            case h11.Request():
                self._request, self._body = event, 0
                return self._begun(event)
            case h11.Data(data=data):
                self._body += len(data)
                if self._body > MOST_BODY:
                    return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "nobody reads this")
            case h11.EndOfMessage():
                assert self._request is not None
                return self._judged(self._request)
            case h11.ConnectionClosed():
                return Then.CLOSE
            case h11.NEED_DATA | h11.PAUSED:
                return Then.WAIT
        return None

    def _begun(self, event: h11.Request) -> Step | None:
        """What can be said before the body is here."""
        if event.http_version[:2] != b"1.":
            why = "this server speaks HTTP/1.1"
            return self._refuse(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, why)
        if self._line.they_are_waiting_for_100_continue:
            if event.method.decode() not in METHODS:
                self._over = True  # the client need not send its body, so what comes is unknown
                return self._judged(event)
            self._line.send(h11.InformationalResponse(status_code=100, headers=[]))
            return Say(CONTINUE)
        return None

    def _judged(self, event: h11.Request) -> Step:
        """What to do about a request that is whole."""
        method = event.method.decode()
        if method not in METHODS:
            if method not in KNOWN:
                return Answer(refusal(HTTPStatus.NOT_IMPLEMENTED, f"no method {method}"))
            reply = refusal(HTTPStatus.METHOD_NOT_ALLOWED, "files can be read only")
            return Answer(reply.also("Allow", ", ".join(METHODS)))
        if len(event.target) > LONGEST:
            why = f"a target has at most {LONGEST} bytes"
            return Answer(refusal(HTTPStatus.REQUEST_URI_TOO_LONG, why))
        try:
            target = parse_target(event.target)
        except BadTarget as error:
            return Answer(refusal(HTTPStatus.BAD_REQUEST, str(error)))
        return Find(Request(method, target, _fields(event)))

    def _malformed(self, error: h11.RemoteProtocolError) -> Step:
        """What is no HTTP has one answer, and then the connection ends."""
        status = HTTPStatus(error.error_status_hint)
        unended = b"\n" not in self._line.trailing_data[0]  # not even the first line is here
        if status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE and unended:
            status = HTTPStatus.REQUEST_URI_TOO_LONG
        if self._line.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return Then.CLOSE
        return self._refuse(status, str(error))

    def _refuse(self, status: HTTPStatus, why: str) -> Answer:
        """The last answer."""
        self._over = True
        return Answer(refusal(status, why))

    def answer(self, reply: Reply, date: str) -> bytes:
        """The head of an answer, and its body if that is no file. `date`: RFC 9110 §5.6.7."""
        headers = [("Date", date), ("Server", "ukernel"), *reply.headers]
        if reply.status != HTTPStatus.NOT_MODIFIED:
            headers.append(("Content-Length", str(reply.length)))
        if self._over:
            headers.append(("Connection", "close"))
        status = HTTPStatus(reply.status)
        response = h11.Response(status_code=status, headers=headers, reason=status.phrase.encode())
        text = self._line.send(response) or b""
        if self._bodiless:
            self._line.send(h11.EndOfMessage())
            return text
        if reply.length:
            self._line.send_with_data_passthrough(h11.Data(data=_Counted(reply.length)))
        self._line.send(h11.EndOfMessage())
        return text + reply.body

    @property
    def _bodiless(self) -> bool:
        return self._request is not None and self._request.method == b"HEAD"

    def sent(self) -> bool:
        """The answer is with the network. Whether another request may come."""
        goes_on = self._line.our_state is h11.DONE and self._line.their_state is h11.DONE
        if self._over or not goes_on:
            return False
        self._line.start_next_cycle()
        self._request = None
        return True


class _Counted(bytes):
    """Stands for bytes that go another way; HTTP has to know only how many they are."""

    _length: int

    def __new__(cls, length: int) -> _Counted:
        made = super().__new__(cls)
        made._length = length
        return made

    def __len__(self) -> int:
        return self._length


def _fields(event: h11.Request) -> dict[str, str]:
    """Header fields by their names in small letters; one that came twice, as a list."""
    fields: dict[str, str] = {}
    for raw, value in event.headers:
        name, text = raw.decode("ascii"), value.decode("latin-1")
        fields[name] = f"{fields[name]}, {text}" if name in fields else text
    return fields
