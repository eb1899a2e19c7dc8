"""dns: questions for the addresses of a name, and their answers, by dnspython. Pure.

Nothing of the answer is believed but what follows from the question (RFC 5452 §9).
"""

from __future__ import annotations

from typing import NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from servers.net.malformed import Malformed
from ukernel.abi.network import NoSuchName

PORT = 53
PAYLOAD_BYTES = 1232  # that an answer may have (RFC 6891 §6.2.5, DNS Flag Day 2020)
MOST_ALIASES = 16
MOST_ADDRESSES = 64


class NotAnswered(Exception):
    """This server cannot or will not say; another one might."""


class Answer(NamedTuple):
    """What a server says: addresses, or else another name to ask for."""

    addresses: list[str]
    alias: str  # the end of a chain of CNAMEs of which the address is not in the answer
    ttl: int  # seconds


def query(name: str, ident: int) -> bytes:
    """A question for the IPv4 addresses of a name. Raises NoSuchName if it cannot be one."""
    message = dns.message.make_query(
        _name(name), dns.rdatatype.A, use_edns=0, payload=PAYLOAD_BYTES, id=ident
    )
    return message.to_wire()


def answer(data: bytes, ident: int, name: str) -> list[str]:
    """The addresses in an answer that has all of them. Raises as `read` does, and NoSuchName if
    only an alias is in it."""
    said = read(data, ident, name)
    if not said.addresses:
        raise NoSuchName(f"{name} is another name of {said.alias}, of which the address is missing")
    return said.addresses


def read(data: bytes, ident: int, name: str) -> Answer:
    """Of bytes that came. Raises Malformed if they do not answer this question, NoSuchName if the
    name has no address, NotAnswered if the answer is cut off or a refusal."""
    asked = _name(name)
    message = _parse(data)
    question = dns.rrset.RRset(asked, dns.rdataclass.IN, dns.rdatatype.A)
    if message.id != ident or not message.flags & dns.flags.QR or message.question != [question]:
        raise Malformed("no answer to this DNS question")
    if message.flags & dns.flags.TC:
        raise NotAnswered(f"the answer for {name} is longer than a datagram")
    if message.rcode() == dns.rcode.NXDOMAIN:
        raise NoSuchName(f"there is no {name}")
    if message.rcode() != dns.rcode.NOERROR:
        raise NotAnswered(f"the server says {dns.rcode.to_text(message.rcode())} to {name}")
    return _follow(message, asked, name)


def _follow(message: dns.message.Message, asked: dns.name.Name, name: str) -> Answer:
    """Along the aliases in the answer."""
    at, ttl = asked, 1 << 31
    for _ in range(MOST_ALIASES):
        found = message.get_rrset(message.answer, at, dns.rdataclass.IN, dns.rdatatype.A)
        if found:
            addresses = [record.address for record in found][:MOST_ADDRESSES]
            return Answer(addresses, "", min(ttl, found.ttl))
        alias = message.get_rrset(message.answer, at, dns.rdataclass.IN, dns.rdatatype.CNAME)
        if not alias:
            break
        at, ttl = alias[0].target, min(ttl, alias.ttl)
    else:
        raise NotAnswered(f"the aliases of {name} do not end")
    if at == asked:
        raise NoSuchName(f"{name} has no IPv4 address")
    return Answer([], at.to_text(omit_final_dot=True), ttl)


def _parse(data: bytes) -> dns.message.Message:
    try:
        return dns.message.from_wire(data)
    except (dns.exception.DNSException, ValueError) as error:
        raise Malformed("not a DNS message") from error


def _name(name: str) -> dns.name.Name:
    try:
        found = dns.name.from_text(name)
    except (dns.exception.DNSException, ValueError) as error:
        raise NoSuchName(f"{name!r} is not a host name") from error
    if found == dns.name.root:
        raise NoSuchName(f"{name!r} is not the name of a host")
    return found
