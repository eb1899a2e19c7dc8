"""DNS: questions, answers of every kind, and a resolver that asks again and elsewhere."""

from __future__ import annotations

import random
from contextlib import suppress

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from servers.net import dns as ours
from servers.net import resolver
from servers.net.malformed import Malformed
from servers.net.resolver import Query, Resolved, Resolver
from ukernel.abi.network import NoSuchName

SECOND = 1_000_000
NAME = "www.example.org"
FIRST, SECOND_SERVER = 1, 2


def reply(query: bytes, *records: str, rcode: int = 0, flags: int = 0) -> bytes:
    """What a server answers: records as in a zone file."""
    message = dns.message.make_response(dns.message.from_wire(query))
    for record in records:
        name, ttl, kind, value = record.split(maxsplit=3)
        message.answer.append(dns.rrset.from_text(name, int(ttl), "IN", kind, value))
    message.flags |= flags
    message.set_rcode(dns.rcode.Rcode(rcode))
    return message.to_wire()


def test_a_question() -> None:
    message = dns.message.from_wire(ours.query(NAME, 0x1234))
    assert (message.id, message.payload) == (0x1234, ours.PAYLOAD_BYTES)
    assert message.question[0].to_text() == "www.example.org. IN A"
    assert message.flags & dns.flags.RD


@pytest.mark.parametrize("name", ["", ".", "a..b", "x" * 64, ".".join(["x" * 60] * 5), "\\"])
def test_no_host_name(name: str) -> None:
    with pytest.raises(NoSuchName):
        ours.query(name, 1)


def test_addresses() -> None:
    data = reply(
        ours.query(NAME, 7), "www.example.org. 60 A 192.0.2.1", "WWW.example.org. 30 A 192.0.2.2"
    )
    assert sorted(ours.answer(data, 7, NAME)) == ["192.0.2.1", "192.0.2.2"]
    assert ours.read(data, 7, NAME.upper()).ttl == 30


def test_a_chain_of_aliases() -> None:
    data = reply(
        ours.query(NAME, 7),
        "b.example. 50 A 192.0.2.1",
        "a.example. 20 CNAME b.example.",
        "www.example.org. 90 CNAME a.example.",
    )
    assert ours.read(data, 7, NAME) == (["192.0.2.1"], "", 20)


def test_an_alias_without_its_address() -> None:
    data = reply(ours.query(NAME, 7), "www.example.org. 90 CNAME a.example.")
    assert ours.read(data, 7, NAME) == ([], "a.example", 90)
    with pytest.raises(NoSuchName, match=r"a\.example"):
        ours.answer(data, 7, NAME)


def test_an_address_that_was_not_asked_for_is_not_believed() -> None:
    data = reply(ours.query(NAME, 7), "www.example.com. 60 A 192.0.2.66")
    with pytest.raises(NoSuchName, match="no IPv4 address"):
        ours.answer(data, 7, NAME)


def test_aliases_in_a_circle() -> None:
    data = reply(
        ours.query(NAME, 7),
        "www.example.org. 90 CNAME a.example.",
        "a.example. 90 CNAME www.example.org.",
    )
    with pytest.raises(ours.NotAnswered):
        ours.answer(data, 7, NAME)


@pytest.mark.parametrize(
    ("rcode", "flags", "error"),
    [
        (dns.rcode.NXDOMAIN, 0, NoSuchName),
        (dns.rcode.SERVFAIL, 0, ours.NotAnswered),
        (dns.rcode.REFUSED, 0, ours.NotAnswered),
        (0, dns.flags.TC, ours.NotAnswered),
    ],
)
def test_no_answer(rcode: int, flags: int, error: type[Exception]) -> None:
    data = reply(ours.query(NAME, 7), rcode=rcode, flags=flags)
    with pytest.raises(error):
        ours.answer(data, 7, NAME)


def test_what_does_not_belong_to_the_question() -> None:
    query = ours.query(NAME, 7)
    for data in (
        b"",
        query,
        reply(ours.query(NAME, 8)),
        reply(ours.query("example.org", 7)),
        reply(query)[:20],
        reply(query) + b"x",
    ):
        with pytest.raises(Malformed):
            ours.answer(data, 7, NAME)


def test_bytes_of_any_kind_are_answers_or_malformed() -> None:
    dice = random.Random(5)
    good = reply(ours.query(NAME, 7), "www.example.org. 9 CNAME b.c.", "b.c. 9 A 192.0.2.1")
    for _ in range(400):
        data = bytearray(good[: dice.choice([len(good), dice.randrange(len(good))])])
        for _ in range(min(len(data), dice.randrange(4))):
            data[dice.randrange(2 % len(data), len(data))] = dice.randrange(256)
        with suppress(Malformed, NoSuchName, ours.NotAnswered):
            ours.read(bytes(data), 7, NAME)


# The resolver.


def start(servers: tuple[int, ...] = (FIRST, SECOND_SERVER)) -> tuple[Resolver, Query]:
    names = Resolver(servers)
    names.resolve(NAME, 7, 5000, 0)
    return names, names.out.pop()


def test_a_lookup_and_then_from_memory() -> None:
    names, query = start()
    assert (query.server, query.port) == (FIRST, 5000)
    assert names.deadline == SECOND
    names.arrived(FIRST, 5000, reply(query.data, f"{NAME}. 60 A 192.0.2.1"), 10)
    assert names.done == [Resolved(NAME, 5000, ("192.0.2.1",))]
    assert (names.deadline, len(names)) == (0, 0)
    names.resolve(NAME.upper() + ".", 8, 5001, 59 * SECOND)
    assert names.done[1].addresses == ("192.0.2.1",)
    assert not names.out
    names.resolve(NAME, 8, 5001, 61 * SECOND)
    assert len(names.out) == 1


def test_every_server_is_asked_three_times() -> None:
    names, query = start()
    servers = [query.server]
    for second in range(1, 6):
        assert names.deadline == second * SECOND
        names.tick(second * SECOND)
        servers.append(names.out.pop().server)
    assert servers == [FIRST, SECOND_SERVER] * 3
    names.tick(6 * SECOND)
    assert names.done == [Resolved(NAME, 5000, (), "no name server answers")]
    assert names.deadline == 0
    assert names.cached(NAME, 6 * SECOND) is None


def test_a_server_that_cannot_say_is_followed_by_the_other_at_once() -> None:
    names, query = start()
    names.arrived(FIRST, 5000, reply(query.data, rcode=dns.rcode.SERVFAIL), 1)
    assert names.out.pop().server == SECOND_SERVER


def test_cut_off_by_all_is_an_error() -> None:
    names, query = start((FIRST,))
    for _ in range(3):
        names.arrived(FIRST, 5000, reply(query.data, flags=dns.flags.TC), 1)
    assert "longer than a datagram" in names.done[0].why


def test_no_such_name_is_remembered_for_a_while() -> None:
    names, query = start()
    names.arrived(FIRST, 5000, reply(query.data, rcode=dns.rcode.NXDOMAIN), 0)
    assert names.done == [Resolved(NAME, 5000, (), f"there is no {NAME}")]
    assert names.cached(NAME, 9 * SECOND) is not None
    assert names.cached(NAME, 10 * SECOND) is None


def test_the_wrong_server_port_or_identification_changes_nothing() -> None:
    names, query = start()
    good = reply(query.data, f"{NAME}. 60 A 192.0.2.1")
    names.arrived(SECOND_SERVER, 5000, good, 1)
    names.arrived(FIRST, 5001, good, 1)
    names.arrived(FIRST, 5000, b"\0\0" + good[2:], 1)
    assert len(names) == 1
    assert not names.done
    assert not names.out


def test_aliases_are_followed_by_asking() -> None:
    names, query = start()
    names.arrived(FIRST, 5000, reply(query.data, f"{NAME}. 9 CNAME a.example."), 1)
    query = names.out.pop()
    names.arrived(FIRST, 5000, reply(query.data, "a.example. 60 A 192.0.2.1"), 1)
    assert names.done == [Resolved(NAME, 5000, ("192.0.2.1",))]
    assert names.cached(NAME, 8 * SECOND) is not None
    assert names.cached(NAME, 10 * SECOND) is None


def test_aliases_without_end() -> None:
    names, query = start()
    for number in range(resolver.MOST_CHAIN + 1):
        name = dns.message.from_wire(query.data).question[0].name
        names.arrived(FIRST, 5000, reply(query.data, f"{name} 9 CNAME a{number}.example."), 1)
        query = names.out.pop() if names.out else query
    assert "do not end" in names.done[0].why


@pytest.mark.parametrize("name", ["", "a..b"])
def test_a_name_that_is_none(name: str) -> None:
    names = Resolver((FIRST,))
    names.resolve(name, 7, 5000, 0)
    assert not names.done[0].addresses
    assert (len(names), names.deadline) == (0, 0)


def test_without_servers_or_with_too_many_lookups() -> None:
    names = Resolver(())
    names.resolve(NAME, 7, 5000, 0)
    assert names.done[0].why == "no name server can be asked"
    names = Resolver((FIRST,))
    for number in range(resolver.MOST_LOOKUPS + 1):
        names.resolve(f"a{number}.example", 7, 5000 + number, 0)
    assert len(names.done) == 1


def test_memory_is_bounded() -> None:
    names = Resolver((FIRST,))
    for number in range(resolver.MOST_CACHED + 1):
        name = f"a{number}.example"
        names.resolve(name, 7, 5000, 0)
        data = reply(names.out.pop().data, f"{name}. 999999 A 192.0.2.1")
        names.arrived(FIRST, 5000, data, 0)
    assert names.cached("a0.example", 0) is None
    assert names.cached("a1.example", (resolver.MOST_TTL_S - 1) * SECOND) is not None
    assert names.cached("a1.example", resolver.MOST_TTL_S * SECOND) is None
