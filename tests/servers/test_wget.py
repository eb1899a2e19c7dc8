"""wget: URLs, and an answer in any pieces; what is no HTTP is said to be none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servers.wget.exchange import BadAnswer, Exchange
from servers.wget.url import BadUrl, Url, parse_url, redirected

URL = Url("h", 80, "/a")
BODY = bytes(range(256)) * 5
COUNTED = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n500\r\n" + BODY + b"\r\n0\r\n\r\n"
UNTIL_THE_END = b"HTTP/1.0 200 OK\r\n\r\n" + BODY


@pytest.mark.parametrize(
    ("text", "url", "name"),
    [
        ("http://h/a", Url("h", 80, "/a"), "a"),
        ("h:8080/a/b?c=d", Url("h", 8080, "/a/b?c=d"), "b"),
        ("http://10.77.0.2", Url("10.77.0.2", 80, "/"), "index.html"),
        ("HTTP://H/a b/%20c", Url("h", 80, "/a%20b/%20c"), " c"),
        ("http://h/ä#part", Url("h", 80, "/%C3%A4"), "ä"),
        ("http://h/a/%2e%2e", Url("h", 80, "/a/%2e%2e"), "index.html"),
    ],
)
def test_a_url(text: str, url: Url, name: str) -> None:
    found = parse_url(text)
    assert (found, found.name) == (url, name)
    assert parse_url(str(found)) == found


@pytest.mark.parametrize(
    "text", ["https://h/", "http://", "http:///a", "http://h:x/", "http://h:99999/", "http://u@h/"]
)
def test_no_url(text: str) -> None:
    with pytest.raises(BadUrl):
        parse_url(text)


def test_a_redirection() -> None:
    assert redirected(Url("h", 81, "/a/b"), "c") == Url("h", 81, "/a/c")
    assert redirected(URL, "/x?y") == Url("h", 80, "/x?y")
    assert redirected(URL, "http://other:9/x") == Url("other", 9, "/x")
    with pytest.raises(BadUrl):
        redirected(URL, "ftp://h/")


def test_a_request() -> None:
    text = Exchange(Url("h", 81, "/a?b")).request
    assert text.startswith(b"GET /a?b HTTP/1.1\r\nHost: h:81\r\n")
    assert text.endswith(b"\r\n\r\n")


@settings(max_examples=60, deadline=None)
@given(
    text=st.sampled_from([COUNTED, CHUNKED, UNTIL_THE_END]),
    cuts=st.lists(st.integers(1, 400), min_size=1, max_size=8),
)
def test_an_answer_in_pieces(text: bytes, cuts: list[int]) -> None:
    exchange, body, at, turn = Exchange(URL), b"", 0, 0
    while at < len(text):
        end = at + cuts[turn % len(cuts)]
        body += b"".join(exchange.receive(text[at:end]))
        at, turn = end, turn + 1
    if not exchange.done:
        body += b"".join(exchange.receive(b""))
    assert (exchange.status, exchange.done, body) == (200, True, BODY)


def test_a_redirection_is_seen_with_its_head() -> None:
    exchange = Exchange(URL)
    list(exchange.receive(b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 9\r\n\r\n"))
    assert (exchange.redirects, exchange.location, exchange.reason) == (True, "/b", "Found")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "without an answer"),
        (b"HTTP/1.1 200", "without an answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "does not speak HTTP"),
        (COUNTED[:-1], f"after {len(BODY) - 1} of {len(BODY)} bytes"),
        (CHUNKED[:-9], "in the middle of the file"),
    ],
)
def test_what_is_not_all(text: bytes, why: str) -> None:
    exchange = Exchange(URL)
    with pytest.raises(BadAnswer, match=why):  # noqa: PT012
        if text:
            list(exchange.receive(text))
        list(exchange.receive(b""))
