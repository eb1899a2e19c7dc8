"""connections: those that have a slot, and what follows from each of their steps. Pure."""

from __future__ import annotations

from typing import NamedTuple

from servers.net.tcp.connection import Config, Connection, Outgoing, State
from servers.net.tcp.deadlines import Deadlines
from servers.net.tcp.entries import Entry, Listener, Slots, Stored
from servers.net.tcp.limits import Counters, Limits
from servers.net.tcp.nobody import Nobody
from servers.net.tcp.quad import Quad
from servers.net.tcp.timewait import Past, TimeWait

OVER = (State.CLOSED, State.TIME_WAIT)  # no segment is for it any more


class Sending(NamedTuple):
    """A segment to be sent; what has a payload has an entry."""

    quad: Quad
    outgoing: Outgoing
    entry: Entry | None


class Connections:
    """A connection is in the table until it is over; it keeps its slot until nobody holds it
    either. What changed is dirty until it is taken to be stored."""

    def __init__(self, config: Config, slots: Slots, limits: Limits) -> None:
        self.counters = Counters()
        self.time_waits = TimeWait(config.time_wait, limits.time_waits)
        self._config = config
        self._slots = slots
        self._nobody = Nobody(limits, self.counters)
        self._entries: dict[Quad, Entry] = {}
        self._deadlines: Deadlines[Entry] = Deadlines()
        self._dirty: dict[Entry, None] = {}
        self._sending: dict[Entry, None] = {}
        self._last: list[Sending] = []  # of those whose slots were given back

    @property
    def entries(self) -> list[Entry]:
        """Those of connections that are not over."""
        return list(self._entries.values())

    def add(self, quad: Quad, holder: int) -> Entry | None:
        """A new connection of this client, if there is a slot for it."""
        place = self._slots.take(holder)
        if place is None:
            self.counters.slots_missing += 1
            return None
        send, receive, handle = place
        entry = Entry(quad, Connection(self._config, send, receive), handle)
        entry.connection.challenges = self._nobody.challenges
        self._entries[quad] = entry
        return entry

    def touched(self, entry: Entry, now: int) -> None:
        """Something was done with `entry.connection`."""
        connection = entry.connection
        if entry.gone:
            return
        if connection.changed:
            self._dirty[entry] = None
        if connection.out:
            self._sending[entry] = None
        if connection.state in OVER:
            self._over(entry, now)
        else:
            self._deadlines.set(entry, connection.deadline)

    def release(self, entry: Entry, now: int) -> None:
        """Nobody holds the socket any more: send what is queued, then close; or break off if
        something that has come was not read (RFC 9293 §3.6.1)."""
        if entry.released:
            return
        entry.released = True
        self._dirty[entry] = None
        if entry.tabled:
            entry.connection.close(now)
        self.touched(entry, now)

    def _over(self, entry: Entry, now: int) -> None:
        """The quad is free, and the slot too unless somebody holds it."""
        if entry.tabled:
            entry.tabled = False
            del self._entries[entry.quad]
            self._deadlines.set(entry, 0)
            self.counters.broken += entry.connection.error is not None
            if entry.connection.state is State.TIME_WAIT:
                self.time_waits.add(Past(entry.quad, entry.connection.residue()), now)
        if entry.listener is not None:
            entry.listener.waiting.remove(entry)
            entry.listener = None
            entry.released = True
        if entry.released:
            self._give_back(entry)

    def _give_back(self, entry: Entry) -> None:
        """The rings are somebody else's from now on: only what has no payload is still sent."""
        out = entry.connection.out
        self._last += [Sending(entry.quad, each, None) for each in out if not each.length]
        out.clear()
        self._dirty.pop(entry, None)
        self._sending.pop(entry, None)
        entry.gone = True
        self._slots.give_back(entry.handle)

    # --- time -----------------------------------------------------------------------------------

    @property
    def deadline(self) -> int:
        """When `tick` has something to do; 0: never."""
        found = (self._deadlines.next, self.time_waits.deadline)
        return min((each for each in found if each), default=0)

    def tick(self, now: int) -> None:
        """Do what is due."""
        for entry in self._deadlines.due(now):
            entry.connection.tick(now)
            self.touched(entry, now)
        self.time_waits.tick(now)

    # --- commit and send ------------------------------------------------------------------------

    def take_dirty(self) -> list[Entry]:
        """Those whose records are to be stored."""
        found = list(self._dirty)
        self._dirty.clear()
        for entry in found:
            entry.connection.changed = False
        return found

    def take_past(self) -> list[tuple[int, bytes]]:
        """Records of TIME-WAIT that are to be stored, by number."""
        found = list(self.time_waits.changed.items())
        self.time_waits.changed.clear()
        return found

    def take_out(self) -> list[Sending]:
        """What is to be sent. Only when everything dirty has been stored."""
        found, self._last = self._last, []
        found += [Sending(quad, outgoing, None) for quad, outgoing in self._nobody.out]
        self._nobody.out.clear()
        for entry in self._sending:
            found += [Sending(entry.quad, each, entry) for each in entry.connection.out]
            entry.connection.out.clear()
        self._sending.clear()
        return found

    # --- another life ---------------------------------------------------------------------------

    def revive(self, stored: Stored, listener: Listener | None, now: int) -> Entry:
        """Go on with a connection of an earlier life, which may be over. `listener`: where it
        waits if it does."""
        connection = Connection.restore(self._config, stored.send, stored.receive, stored.data, now)
        connection.challenges = self._nobody.challenges
        entry = Entry(stored.quad, connection, stored.handle)
        entry.user, entry.released = stored.user, stored.released
        self._place(entry, now)
        if stored.waiting:
            self._wait(entry, listener, now)
        elif entry.released and entry.tabled:
            connection.close(now)  # who held it may have gone when there was nobody to be told
        self.touched(entry, now)
        return entry

    def _place(self, entry: Entry, now: int) -> None:
        """Into the table, if it is not over and no later connection has its quad."""
        quad, connection = entry.quad, entry.connection
        taken = quad in self._entries
        if connection.state not in OVER and not taken:
            self._entries[quad] = entry
            self.time_waits.remove(quad)
            return
        entry.tabled = False
        if connection.state is State.TIME_WAIT and not taken and not self.time_waits.get(quad):
            self.time_waits.add(Past(quad, connection.residue()), now)
        if connection.state not in OVER:
            connection.abort(now)
        connection.out.clear()

    def _wait(self, entry: Entry, listener: Listener | None, now: int) -> None:
        if listener is None:
            entry.released = True
            entry.connection.abort(now)
        else:
            entry.listener = listener
            listener.waiting.append(entry)
