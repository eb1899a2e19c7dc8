"""http: what a client may say, in any pieces, and what it gets; no network, no files."""

from __future__ import annotations

from http import HTTPStatus

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servers.httpd.http import MOST_BODY, MOST_HEAD, Answer, Conversation, Find, Say, Then
from servers.httpd.ranges import Span
from servers.httpd.replies import Document, Reply, Request, document, media_type, moved
from servers.httpd.target import Target

DATE = "Thu, 26 Nov 2026 03:00:00 GMT"
GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
FILE = Document(1000, '"tag"', "text/plain")
UNTAGGED = Document(1000, "", "text/plain")


def said(text: bytes, *, end: bool = False) -> tuple[Conversation, object]:
    """A conversation after these bytes, and its first step."""
    conversation = Conversation()
    conversation.receive(text)
    if end:
        conversation.receive(b"")
    return conversation, conversation.step()


def status_of(step: object) -> int:
    assert isinstance(step, Answer), step
    return step.reply.status.value


def request(**fields: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return Request("GET", Target(("a",), False), named)


def head_of(text: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, fields and body of an answer."""
    head, _, body = text.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body


# --- requests -----------------------------------------------------------------------------------


def test_a_request_is_found_when_it_is_whole() -> None:
    conversation = Conversation()
    for at in range(len(GET) - 1):
        conversation.receive(GET[at : at + 1])
        assert conversation.step() is Then.WAIT
    conversation.receive(GET[-1:])
    step = conversation.step()
    assert isinstance(step, Find)
    assert step.request == Request("GET", Target(("a",), False), {"host": "h"})


def test_requests_that_come_at_once_are_answered_in_their_order() -> None:
    conversation, step = said(b"".join(GET.replace(b"/a", b"/%d" % n) for n in range(5)))
    for number in range(5):
        assert isinstance(step, Find)
        assert step.request.target.parts == (str(number),)
        conversation.answer(Reply(HTTPStatus.OK, body=b"x"), DATE)
        assert conversation.sent()
        step = conversation.step()
    assert step is Then.WAIT
    conversation.receive(b"")
    assert conversation.step() is Then.CLOSE


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\n\r\n", 400),
        (b"GET /.. HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\nHost: h\r\nBad\0: x\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 405),
        (b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n", 405),
        (b"BREW /a HTTP/1.1\r\nHost: h\r\n\r\n", 501),
        (b"GET /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET /a HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /%s HTTP/1.1\r\nHost: h\r\n\r\n" % (b"a" * 5000), 414),
        (b"GET /%s" % (b"a" * (MOST_HEAD + 1)), 414),
        (b"GET /a HTTP/1.1\r\nHost: h\r\nX: %s" % (b"x" * MOST_HEAD), 431),
        (GET[:-2] + b"Content-Length: 999999\r\n\r\n" + bytes(MOST_BODY + 1), 413),
    ],
)  # fmt: skip
def test_what_is_refused(text: bytes, status: int) -> None:
    conversation, step = said(text)
    assert status_of(step) == status
    assert isinstance(step, Answer)
    found, fields, body = head_of(conversation.answer(step.reply, DATE))
    assert found == status
    assert fields["Content-Length"] == str(len(body))
    assert ("Allow" in fields) == (status == 405)
    ends = status in (400, 413, 414, 431, 501, 505) and fields.get("Connection") == "close"
    assert conversation.sent() != ends


def test_a_client_that_leaves() -> None:
    assert said(b"", end=True)[1] is Then.CLOSE
    assert status_of(said(b"GET /a HT", end=True)[1]) == 400


def test_a_body_is_let_pass() -> None:
    text = GET.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n")
    conversation, step = said(text + b"hel")
    assert step is Then.WAIT
    conversation.receive(b"lo" + GET)
    for _ in range(2):
        assert isinstance(conversation.step(), Find)
        conversation.answer(Reply(HTTPStatus.OK), DATE)
        assert conversation.sent()


EXPECT = b"GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"


def test_who_asks_before_it_sends_a_body_is_told_to_go_on() -> None:
    conversation, step = said(EXPECT)
    assert isinstance(step, Say)
    assert head_of(step.text)[0] == 100
    assert conversation.step() is Then.WAIT
    conversation.receive(b"ok")
    assert isinstance(conversation.step(), Find)


def test_or_that_it_need_not() -> None:
    conversation, step = said(EXPECT.replace(b"GET", b"PUT"))
    assert status_of(step) == 405
    assert isinstance(step, Answer)
    assert b"Connection: close" in conversation.answer(step.reply, DATE)
    assert not conversation.sent()


@pytest.mark.parametrize(
    "text", [b"GET /a HTTP/1.0\r\n\r\n", GET[:-2] + b"Connection: close\r\n\r\n"]
)
def test_a_connection_ends_when_the_client_says_so(text: bytes) -> None:
    conversation, step = said(text)
    assert isinstance(step, Find)
    assert b"onnection: close" in conversation.answer(Reply(HTTPStatus.OK, body=b"x"), DATE)
    assert not conversation.sent()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=40) | st.sampled_from([GET, EXPECT, b"\r\n", b""]), max_size=8))
def test_no_bytes_make_it_fall(pieces: list[bytes]) -> None:
    conversation = Conversation()
    for piece in pieces:
        conversation.receive(piece)
        step = conversation.step()
        if step is Then.CLOSE:
            return
        if isinstance(step, Find | Answer):
            reply = step.reply if isinstance(step, Answer) else Reply(HTTPStatus.OK, body=b"x")
            conversation.answer(reply, DATE)
            if not conversation.sent():
                return
        if not piece:
            return


# --- answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_a_client_understands_an_answer(method: bytes) -> None:
    conversation, _ = said(GET.replace(b"GET", method))
    text = conversation.answer(Reply(HTTPStatus.OK, (("X-Y", "z"),), b"hello"), DATE)
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/a", headers=[("Host", "h")]))
    client.send(h11.EndOfMessage())
    client.receive_data(text)
    head = client.next_event()
    assert isinstance(head, h11.Response)
    assert (b"content-length", b"5") in head.headers
    assert (b"date", DATE.encode()) in head.headers
    body = client.next_event()
    if method == b"GET":
        assert isinstance(body, h11.Data)
        assert body.data == b"hello"
        body = client.next_event()
    assert isinstance(body, h11.EndOfMessage)


def test_the_bytes_of_a_file_go_another_way() -> None:
    conversation, _ = said(GET)
    reply = Reply(HTTPStatus.OK, span=Span(10, 1 << 33))
    status, fields, body = head_of(conversation.answer(reply, DATE))
    assert (status, fields["Content-Length"], body) == (200, str((1 << 33) - 10), b"")
    assert conversation.sent()


@pytest.mark.parametrize(
    ("fields", "status", "span"),
    [
        ({}, 200, Span(0, 1000)),
        ({"range": "bytes=0-9"}, 206, Span(0, 10)),
        ({"range": "bytes=-1"}, 206, Span(999, 1000)),
        ({"range": "bytes=0-1,5-6"}, 200, Span(0, 1000)),
        ({"range": "nonsense"}, 200, Span(0, 1000)),
        ({"range": "bytes=1000-"}, 416, None),
        ({"range": "bytes=0-9", "if_range": '"tag"'}, 206, Span(0, 10)),
        ({"range": "bytes=0-9", "if_range": '"old"'}, 200, Span(0, 1000)),
        ({"range": "bytes=0-9", "if_range": 'W/"tag"'}, 200, Span(0, 1000)),
        ({"range": "bytes=0-9", "if_range": DATE}, 200, Span(0, 1000)),
        ({"if_none_match": '"x", W/"tag"'}, 304, None),
        ({"if_none_match": "*"}, 304, None),
        ({"if_none_match": '"x"'}, 200, Span(0, 1000)),
        ({"if_match": '"tag"'}, 200, Span(0, 1000)),
        ({"if_match": 'W/"tag"'}, 412, None),
        ({"if_match": '"x"', "if_none_match": '"tag"'}, 412, None),
        ({"if_modified_since": DATE}, 200, Span(0, 1000)),
    ],
)
def test_conditions_and_ranges(fields: dict[str, str], status: int, span: Span | None) -> None:
    reply = document(request(**fields), FILE)
    assert (reply.status, reply.span) == (status, span)
    headers = dict(reply.headers)
    if status == 206:
        assert span is not None
        assert headers["Content-Range"] == f"bytes {span.start}-{span.end - 1}/1000"
    if status == 416:
        assert headers["Content-Range"] == "bytes */1000"
    if status in (200, 206, 304):
        assert headers["ETag"] == '"tag"'


def test_a_file_without_a_tag() -> None:
    assert document(request(if_none_match='"tag"'), UNTAGGED).status == 200
    assert document(request(if_range='""', range="bytes=0-9"), UNTAGGED).status == 200
    assert "ETag" not in dict(document(request(), UNTAGGED).headers)
    head = request(range="bytes=0-9")._replace(method="HEAD")
    assert document(head, UNTAGGED).status == 200  # §14.2: ranges are for GET


def test_what_else_is_said() -> None:
    assert dict(moved(Target(("a b",), False)).headers)["Location"] == "/a%20b/"
    assert media_type("/x/a.html") == "text/html; charset=utf-8"
    assert media_type("a.tar.gz") == "application/gzip"
    assert media_type("a.unknown") == media_type("a") == "application/octet-stream"
    assert media_type("a.png") == "image/png"


def test_nothing_is_said_of_a_body_that_must_not_be() -> None:
    conversation, _ = said(GET)
    text = conversation.answer(Reply(HTTPStatus.NOT_MODIFIED, (("ETag", '"t"'),)), DATE)
    assert "Content-Length" not in head_of(text)[1]
    assert conversation.sent()
