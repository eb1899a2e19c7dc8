"""visitor: what a client receives, over a connection that takes as much and when it likes."""

from __future__ import annotations

import random

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servers.httpd.files import Site
from servers.httpd.sending import PIECE, REGION, WINDOWS, FileChanged, Pieces
from servers.httpd.shelf import FRESH_NS, MOST, Shelf
from servers.httpd.visitor import Tools, Visitor
from tests.servers.httpd.network import FakeFs, FakeStream, Memory, region
from ukernel.abi.network import READABLE, WRITABLE, ConnectionReset
from ukernel.lib.sockets import TcpStream, Window

LARGE = random.Random(1).randbytes(2 * PIECE + 777)
FILES = {
    "/www/index.html": b"<p>home</p>",
    "/www/small": b"small file",
    "/www/empty": b"",
    "/www/exact": LARGE[:PIECE],
    "/www/large": LARGE,
    "/www/dir/a&b": b"1",
    "/www/dir/sub/x": b"2",
    "/secret": b"secret",
}


class House:
    """A server's memory and site, and visitors to it."""

    def __init__(self) -> None:
        self.memory: Memory = {}
        self.fs = FakeFs(self.memory, dict(FILES))
        self.pieces = Pieces(region(self.memory, REGION))
        self.scratch = Window(region(self.memory, 4096), 0, 4096)
        self.now = self.count = 0
        shelf = Shelf(self.fs.stub, lambda: self.now)
        site = Site(self.fs.stub, shelf, "/www", "index.html", self.pieces)
        self.tools = Tools(site, shelf, self.pieces, lambda: "now", lambda *said: None)

    def visitor(self) -> tuple[Visitor, FakeStream]:
        self.count += 1
        stream = FakeStream(self.memory)
        return Visitor(self.count, TcpStream(stream.stub, self.scratch), self.tools), stream


def ask(*targets: str, method: str = "GET", **fields: str) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return "".join(f"{method} {t} HTTP/1.1\r\nHost: h\r\n{lines}\r\n" for t in targets).encode()


def answers(text: bytes, count: int, method: str = "GET") -> list[tuple[int, bytes]]:
    """Statuses and bodies, as a client understands them; all of `text` is used up."""
    found = []
    client = h11.Connection(h11.CLIENT)
    if text:
        client.receive_data(text)
    for number in range(count):
        client.send(h11.Request(method=method, target="/", headers=[("Host", "h")]))
        client.send(h11.EndOfMessage())
        head, body = client.next_event(), b""
        assert isinstance(head, h11.Response)
        while isinstance(event := client.next_event(), h11.Data):
            body += event.data
        assert isinstance(event, h11.EndOfMessage)
        found.append((head.status_code, body))
        if number + 1 < count:
            client.start_next_cycle()
    assert client.trailing_data[0] == b""
    return found


def serve(visitor: Visitor, stream: FakeStream, text: bytes) -> bytes:
    """All that is sent for `text`, by a network that has much room."""
    before = len(stream.taken)
    stream.arrived += text
    visitor.told(READABLE | WRITABLE)
    while not visitor.idle:
        visitor.told(WRITABLE)
    return bytes(stream.taken[before:])


@pytest.mark.parametrize(
    ("target", "status", "body"),
    [
        ("/small", 200, b"small file"),
        ("/", 200, b"<p>home</p>"),
        ("/index.html?query", 200, b"<p>home</p>"),
        ("/empty", 200, b""),
        ("/exact", 200, LARGE[:PIECE]),
        ("/large", 200, LARGE),
        ("/dir/sub/x", 200, b"2"),
        ("/dir", 301, None),
        ("/dir/", 200, None),
        ("/nothing", 404, None),
        ("/nothing/", 404, None),
        ("/../secret", 400, None),
        ("/%2e%2e/secret", 400, None),
        ("/..%2fsecret", 400, None),
    ],
)
def test_a_file_is_served(target: str, status: int, body: bytes | None) -> None:
    visitor, stream = House().visitor()
    ((found, content),) = answers(serve(visitor, stream, ask(target)), 1)
    assert found == status
    assert content == body if body is not None else b"secret" not in content
    assert not visitor.over


def test_a_directory_is_listed() -> None:
    visitor, stream = House().visitor()
    ((_, content),) = answers(serve(visitor, stream, ask("/dir/")), 1)
    assert b'href="./a%26b"' in content
    assert b'href="./sub/"' in content


def test_a_head_has_no_body() -> None:
    visitor, stream = House().visitor()
    text = serve(visitor, stream, ask("/small", "/large", "/nothing", method="HEAD"))
    assert [status for status, _ in answers(text, 3, "HEAD")] == [200, 200, 404]
    assert b"Content-Length: %d" % len(LARGE) in text


def test_a_small_file_is_read_once_and_sent_at_once() -> None:
    house = House()
    visitor, stream = house.visitor()
    stream.arrived = ask("/small")
    visitor.told(READABLE | WRITABLE)
    assert house.fs.reads == 1
    assert visitor.idle


def test_its_tag_is_of_its_bytes() -> None:
    house = House()
    visitor, stream = house.visitor()
    text = serve(visitor, stream, ask("/small"))
    tag = text.split(b"ETag: ")[1].split(b"\r\n")[0].decode()
    assert b" 304 " in serve(visitor, stream, ask("/small", **{"If-None-Match": tag}))
    house.fs.files["/www/small"] = b"small fila"  # as somebody may write into it
    assert b" 200 " in serve(visitor, stream, ask("/small", **{"If-None-Match": tag}))


def test_nothing_is_received_while_an_answer_is_sent() -> None:
    visitor, stream = House().visitor()
    stream.room, stream.arrived = 10, ask("/small")
    visitor.told(READABLE | WRITABLE)
    stream.arrived += ask("/small") * 3
    visitor.told(READABLE)
    assert visitor.stream.received == len(ask("/small"))
    stream.room = 1 << 40
    while not visitor.idle:
        visitor.told(WRITABLE)
    assert len(answers(bytes(stream.taken), 4)) == 4


@settings(max_examples=25, deadline=None)
@given(
    targets=st.lists(st.sampled_from(["/small", "/large", "/", "/no", "/dir/"]), max_size=4),
    rooms=st.lists(st.integers(1, 2 * PIECE), min_size=1, max_size=8),
    cuts=st.lists(st.integers(5, 60), min_size=1, max_size=6),
)
def test_every_pace_brings_the_same(targets: list[str], rooms: list[int], cuts: list[int]) -> None:
    """However requests come in pieces and answers are taken in pieces, and whoever takes the
    windows meanwhile."""
    house = House()
    visitor, stream = house.visitor()
    asked, turn, rooms = ask(*targets), 0, [*rooms, PIECE]
    while len(stream.arrived) < len(asked) or not visitor.idle:
        stream.room = rooms[turn % len(rooms)]
        visitor.told(WRITABLE)
        if len(stream.arrived) < len(asked):
            end = len(stream.arrived) + cuts[turn % len(cuts)]
            stream.arrived = asked[:end]
            visitor.told(READABLE)
        for other in range(1000, 1000 + WINDOWS * (turn % 2)):
            house.pieces.read(other, house.fs.open("/www/small", 0), 0)
        turn += 1
    expected = {"/small": b"small file", "/large": LARGE, "/": b"<p>home</p>"}
    for target, (_, body) in zip(targets, answers(bytes(stream.taken), len(targets)), strict=True):
        assert body == expected.get(target, body)


def test_who_takes_everything_lets_others_have_their_turn() -> None:
    house = House()
    house.fs.files["/www/large"] = LARGE * 8
    visitor, stream = house.visitor()
    stream.arrived = ask("/large")
    visitor.told(READABLE)
    assert 0 < len(stream.taken) < len(LARGE) * 8
    while visitor.eager:
        visitor.go_on()
    assert answers(bytes(stream.taken), 1) == [(200, LARGE * 8)]


def test_who_has_no_room_is_left_alone() -> None:
    visitor, stream = House().visitor()
    stream.room, stream.arrived = 0, ask("/large")
    visitor.told(READABLE)
    assert not visitor.eager
    assert not stream.taken
    stream.room = 1 << 30
    visitor.told(WRITABLE)
    assert answers(bytes(stream.taken), 1) == [(200, LARGE)]


def test_a_range_of_a_large_file() -> None:
    visitor, stream = House().visitor()
    text = serve(visitor, stream, ask("/large", Range="bytes=-200000"))
    assert answers(text, 1) == [(206, LARGE[-200000:])]


def test_after_the_last_answer_the_client_is_heard_out() -> None:
    visitor, stream = House().visitor()
    serve(visitor, stream, ask("/small", Connection="close"))
    assert stream.did == ["shutdown"]
    stream.arrived += b"whatever"
    visitor.told(READABLE)
    assert not visitor.over
    stream.ended = True
    visitor.told(READABLE)
    assert visitor.over


def test_a_client_that_stops_sending_still_gets_its_answer() -> None:
    visitor, stream = House().visitor()
    stream.arrived, stream.ended = ask("/small"), True
    visitor.told(READABLE | WRITABLE)
    assert answers(bytes(stream.taken), 1) == [(200, b"small file")]
    visitor.told(READABLE)
    assert visitor.over


def test_a_file_that_shrinks_is_not_made_up() -> None:
    house = House()
    visitor, stream = house.visitor()
    stream.room, stream.arrived = PIECE, ask("/large")
    visitor.told(READABLE)
    house.fs.files["/www/large"] = LARGE[:10]
    stream.room = 1 << 20
    with pytest.raises(FileChanged):
        visitor.told(WRITABLE)


def test_a_broken_connection_is_the_callers_business() -> None:
    visitor, stream = House().visitor()
    stream.arrived, stream.did = ask("/large"), ["reset"]
    with pytest.raises(ConnectionReset):
        visitor.told(READABLE | WRITABLE)


def test_many_slow_readers_share_the_windows() -> None:
    house = House()
    crowd = [house.visitor() for _ in range(3 * WINDOWS)]
    for visitor, stream in crowd:
        stream.room, stream.arrived = 1000, ask("/large")
        visitor.told(READABLE | WRITABLE)
    while slow := [(visitor, stream) for visitor, stream in crowd if not visitor.idle]:
        for visitor, stream in slow:
            stream.room = 100_000
            visitor.told(WRITABLE)
    assert all(answers(bytes(stream.taken), 1) == [(200, LARGE)] for _, stream in crowd)


def test_a_file_is_opened_once_in_a_while() -> None:
    house = House()
    crowd = [house.visitor() for _ in range(3)]
    for now in (0, FRESH_NS - 1):
        house.now = now
        for visitor, stream in crowd:
            serve(visitor, stream, ask("/small", "/small"))
        assert house.fs.opened == ["/www/small"]
    house.now = FRESH_NS
    serve(*crowd[0], ask("/small"))
    assert house.fs.opened == ["/www/small"] * 2


def test_a_file_that_is_removed_or_replaced_is_not_taken_for_another() -> None:
    house = House()
    visitor, stream = house.visitor()
    serve(visitor, stream, ask("/small"))
    house.fs.replace("/www/small", b"another")
    assert answers(serve(visitor, stream, ask("/small")), 1) == [(200, b"another")]
    house.fs.replace("/www/small", None)
    assert b" 404 " in serve(visitor, stream, ask("/small"))


def test_files_that_nobody_reads_are_closed() -> None:
    house = House()
    shelf = house.tools.shelf
    for number in range(2 * MOST):
        house.fs.files[f"/{number}"] = b""
        shelf.give_back(shelf.take(f"/{number}"))
    used = shelf.take("/1")
    assert len(shelf._held) <= MOST + 1
    house.now = FRESH_NS
    shelf.tidy()
    assert not shelf._held
    shelf.give_back(used)
