"""exchange: one request for a file and its answer (RFC 9112), the client's side. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import h11

from servers.wget.url import Url

REDIRECTS = (301, 302, 303, 307, 308)
AGENT = "ukernel-wget"


class BadAnswer(Exception):
    """What the server said is no HTTP, or not all of it; the text says what is wrong."""


class Exchange:
    """The state of it. `status` is 0 until the head of the answer is here."""

    def __init__(self, url: Url) -> None:
        self.status = 0
        self.reason = ""
        self.location = ""
        self.length = -1  # bytes of the body, when the server has said how many
        self.done = False
        self._came = 0
        self._line = h11.Connection(h11.CLIENT)
        headers = [
            ("Host", url.authority),
            ("User-Agent", AGENT),
            ("Accept", "*/*"),
            ("Connection", "close"),
        ]
        request = h11.Request(method="GET", target=url.target, headers=headers)
        self.request = (self._line.send(request) or b"") + (
            self._line.send(h11.EndOfMessage()) or b""
        )

    @property
    def redirects(self) -> bool:
        return self.status in REDIRECTS and bool(self.location)

    def receive(self, data: bytes) -> Iterator[bytes]:
        """Bytes from the server, none at the end of them: the pieces of the body in them. Raises
        BadAnswer."""
        self._line.receive_data(data)
        while not self.done:
            try:
                event = self._line.next_event()
            except h11.RemoteProtocolError as error:
                raise BadAnswer(self._why(error, data)) from None
            match event:
                case h11.Response():
                    self._head(event)
                case h11.Data(data=piece):
                    self._came += len(piece)
                    yield bytes(piece)
                case h11.EndOfMessage():
                    self.done = True
                case h11.NEED_DATA:
                    return
                case h11.ConnectionClosed() | h11.PAUSED:
                    raise BadAnswer("the server has closed the connection without an answer")

    def _head(self, response: h11.Response) -> None:
        self.status = response.status_code
        self.reason = response.reason.decode("latin-1")
        for name, value in response.headers:
            if name == b"location":
                self.location = value.decode("latin-1")
            elif name == b"content-length":
                self.length = int(value)

    def _why(self, error: h11.RemoteProtocolError, data: bytes) -> str:
        if data:
            return f"the server does not speak HTTP: {error}"
        if not self.status:
            return "the server has closed the connection without an answer"
        if self.length >= 0:
            return f"the connection ended after {self._came} of {self.length} bytes"
        return f"the connection ended after {self._came} bytes, in the middle of the file"
