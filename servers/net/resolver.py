"""resolver: from names to addresses: questions to servers, again and elsewhere, and a cache. Pure.

Each lookup asks with an identification and from a port of its own, which are random and come in
(RFC 5452 §9.2). The servers are asked in turn, each at most three times, for a second each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from servers.net.malformed import Malformed
from ukernel.abi.network import NoSuchName

if TYPE_CHECKING:
    from servers.net import dns

SECOND = 1_000_000
PATIENCE_US = SECOND
ROUNDS = 3
MOST_SERVERS = 2
MOST_CACHED = 256
MOST_TTL_S = 3600
NO_SUCH_NAME_TTL_S = 10
MOST_CHAIN = 8  # aliases that had to be asked for one by one
MOST_LOOKUPS = 64  # under way


class Query(NamedTuple):
    """A datagram to be sent to port 53 of a server."""

    server: int
    port: int  # ours
    data: bytes


class Resolved(NamedTuple):
    """How a lookup ended."""

    name: str
    port: int  # ours, that it used; 0: none
    addresses: tuple[str, ...]  # empty: there is none
    why: str = ""  # there is none


class _Cached(NamedTuple):
    addresses: tuple[str, ...]
    why: str
    until: int


class _Lookup:
    def __init__(self, name: str, ident: int, port: int) -> None:
        self.name = name
        self.asked = name  # or what it is an alias of
        self.aliases = 0
        self.ttl = MOST_TTL_S
        self.ident = ident
        self.port = port
        self.tries = 0
        self.server = 0
        self.deadline = 0
        self.why = "no name server answers"


class Resolver:
    """All lookups of a host. `out` and `done` are for the caller, who takes and clears them."""

    def __init__(self, servers: Sequence[int]) -> None:
        self.servers = tuple(servers[:MOST_SERVERS])
        self.out: list[Query] = []
        self.done: list[Resolved] = []
        self.deadline = 0
        self._lookups: dict[int, _Lookup] = {}  # by port
        self._cache: dict[str, _Cached] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._lookups)

    def cached(self, name: str, now: int) -> Resolved | None:
        """What is known without asking."""
        found = self._cache.get(_key(name))
        if found is None or now >= found.until:
            return None
        return Resolved(name, 0, found.addresses, found.why)

    def resolve(self, name: str, ident: int, port: int, now: int) -> None:
        """Look a name up, from a port of ours that no other lookup has; it ends in `done`."""
        known = self.cached(name, now)
        if known is not None:
            self.done.append(known._replace(port=port))
        elif not self.servers or len(self._lookups) >= MOST_LOOKUPS or port in self._lookups:
            self.done.append(Resolved(name, port, (), "no name server can be asked"))
        else:
            lookup = self._lookups[port] = _Lookup(name, ident, port)
            self._ask(lookup, now)

    def arrived(self, server: int, port: int, data: bytes, now: int) -> None:
        """A datagram has come from port 53 of `server` to `port`. What does not answer the
        question is as good as nothing: the right answer may still come."""
        lookup = self._lookups.get(port)
        if lookup is None or server != lookup.server:
            return
        from servers.net import dns  # noqa: PLC0415 (as in _ask)

        try:
            said = dns.read(data, lookup.ident, lookup.asked)
        except Malformed:
            return
        except NoSuchName as error:
            lookup.ttl = NO_SUCH_NAME_TTL_S
            self._end(lookup, (), str(error), now)
        except dns.NotAnswered as error:
            lookup.why = str(error)
            self._ask(lookup, now)
        else:
            self._said(lookup, said, now)

    def tick(self, now: int) -> None:
        """Ask again what has not been answered in time."""
        for lookup in [each for each in self._lookups.values() if each.deadline <= now]:
            self._ask(lookup, now)
        self._set_deadline()

    def _said(self, lookup: _Lookup, said: dns.Answer, now: int) -> None:
        lookup.ttl = min(lookup.ttl, said.ttl)
        if said.addresses:
            self._end(lookup, tuple(said.addresses), "", now)
            return
        lookup.asked = said.alias
        lookup.aliases += 1
        lookup.tries = 0
        if lookup.aliases > MOST_CHAIN:
            self._fail(lookup, f"the aliases of {lookup.name} do not end")
        else:
            self._ask(lookup, now)

    def _ask(self, lookup: _Lookup, now: int) -> None:
        """The next server, if it is not enough."""
        from servers.net import dns  # noqa: PLC0415 (60 ms that a new life need not wait for)

        if lookup.tries >= ROUNDS * len(self.servers):
            self._fail(lookup, lookup.why)
            return
        lookup.server = self.servers[lookup.tries % len(self.servers)]
        lookup.tries += 1
        lookup.deadline = now + PATIENCE_US
        try:
            data = dns.query(lookup.asked, lookup.ident)
        except NoSuchName as error:
            self._fail(lookup, str(error))
            return
        self.out.append(Query(lookup.server, lookup.port, data))
        self._set_deadline()

    def _fail(self, lookup: _Lookup, why: str) -> None:
        """Nothing that should be remembered."""
        del self._lookups[lookup.port]
        self._set_deadline()
        self.done.append(Resolved(lookup.name, lookup.port, (), why))

    def _end(self, lookup: _Lookup, addresses: tuple[str, ...], why: str, now: int) -> None:
        del self._lookups[lookup.port]
        self._set_deadline()
        key = _key(lookup.name)
        self._cache.pop(key, None)
        if len(self._cache) >= MOST_CACHED:
            del self._cache[next(iter(self._cache))]
        self._cache[key] = _Cached(addresses, why, now + lookup.ttl * SECOND)
        self.done.append(Resolved(lookup.name, lookup.port, addresses, why))

    def _set_deadline(self) -> None:
        self.deadline = min((each.deadline for each in self._lookups.values()), default=0)


def _key(name: str) -> str:
    return name.lower().rstrip(".")
