"""handshakes: connections that peers begin, up to the third segment. Pure.

A handshake under way is a small record, at most `limits.half_open` of them for each listener; who
comes then gets a cookie and is forgotten. The sequence number of every SYN-ACK is a cookie, so a
handshake outlives its record too: what a peer takes for established when this process dies is
known to the next one, if the peer has timestamps, in which all that was agreed is kept.
"""

from __future__ import annotations

from servers.net.tcp.block import DEFAULT_MSS, LARGEST_WINDOW, Config, window_scale
from servers.net.tcp.cookies import (
    LIFETIME_US,
    OPTION_BITS,
    PLAIN,
    Cookies,
    Features,
    features,
    stamped,
)
from servers.net.tcp.deadlines import Deadlines
from servers.net.tcp.entries import Agreed, Handshake, Listener
from servers.net.tcp.isn import Isn
from servers.net.tcp.limits import Counters, Limits
from servers.net.tcp.nobody import Nobody, bare
from servers.net.tcp.quad import Quad
from servers.net.tcp.segment import (
    ACK,
    FIN,
    MASK,
    RST,
    SYN,
    Segment,
    diff,
    lt,
    pack_options,
    pack_timestamp,
)

FIRST_US = 1_000_000  # until a SYN-ACK is sent again (RFC 6298 §2), twice as long each time
BEYOND = 65_537  # how far a new connection's numbers are from the last of its predecessor


class Handshakes:
    """All that are under way. `window` is the size of the receive rings."""

    def __init__(
        self,
        config: Config,
        isn: Isn,
        cookies: Cookies,
        limits: Limits,
        nobody: Nobody,
        window: int,
    ) -> None:
        self._config = config
        self._isn = isn
        self._cookies = cookies
        self._limits = limits
        self._nobody = nobody
        self._counters: Counters = nobody.counters
        self._whole = window
        self._window = min(window, LARGEST_WINDOW)  # never scaled in a SYN
        self._scale = window_scale(window)
        self._under_way: dict[Quad, Handshake] = {}
        self._deadlines: Deadlines[Handshake] = Deadlines()

    def __len__(self) -> int:
        return len(self._under_way)

    def get(self, quad: Quad) -> Handshake | None:
        return self._under_way.get(quad)

    # --- the first segment, and the second ------------------------------------------------------

    def begin(self, listener: Listener, quad: Quad, syn: Segment, now: int, last: int = -1) -> None:
        """Answer a SYN. `last`: what a connection of this quad has used before, if one did."""
        self._counters.syns += 1
        crowded = len(listener.handshakes) >= self._limits.half_open
        agreed = self._agree(quad, syn, now, crowded)
        if crowded:
            listener.cookies_until = now + LIFETIME_US
            self._counters.cookies_sent += self._answer(quad, agreed, _stamp(syn), now)
            return
        if last >= 0 and not lt(last, agreed.iss):
            agreed = agreed._replace(iss=(last + BEYOND) & MASK)
        handshake = Handshake(listener, quad, agreed, _stamp(syn))
        listener.handshakes[quad] = self._under_way[quad] = handshake
        self._send(handshake, now)

    def _agree(self, quad: Quad, syn: Segment, now: int, crowded: bool) -> Agreed:
        """What both want; without timestamps a cookie has room for the MSS alone."""
        options = syn.options
        timestamps = self._config.timestamps and options.timestamp is not None
        found = Features(
            options.scale if self._config.scale else -1,
            options.sack_permitted and self._config.sack,
        )
        if crowded and not timestamps:
            found = Features()
        mss = options.mss or DEFAULT_MSS
        iss = self._cookies.issue(quad, syn.seq, mss, found.bits(), now)
        return Agreed(iss, syn.seq, mss, found, timestamps)

    def _send(self, handshake: Handshake, now: int) -> None:
        self._answer(handshake.quad, handshake.agreed, handshake.stamp, now)
        handshake.sent_at = now
        self._deadlines.set(handshake, now + (FIRST_US << handshake.repeats))

    def _answer(self, quad: Quad, agreed: Agreed, stamp: int, now: int) -> bool:
        """Send the SYN-ACK, with what was agreed in its timestamp."""
        scale = -1 if agreed.features.scale < 0 else self._scale
        stamps = None
        if agreed.timestamps:
            stamps = (stamped(self._clock(quad, now), agreed.features.bits()), stamp)
        options = pack_options(self._config.mss, scale, agreed.features.sack, stamps)
        ack = (agreed.irs + 1) & MASK
        return self._nobody.send(quad, bare(SYN | ACK, agreed.iss, ack, self._window, options))

    def _clock(self, quad: Quad, now: int) -> int:
        return (now // 1000 + self._isn.timestamp_offset(quad)) & MASK

    # --- the third segment ----------------------------------------------------------------------

    def arrived(self, handshake: Handshake, segment: Segment, now: int) -> bool:
        """It is the third one of this handshake, and the connection is established. Anything else
        is dealt with (RFC 9293 §3.10.7.4, SYN-RECEIVED; RFC 5961)."""
        agreed = handshake.agreed
        ahead = diff(segment.seq, (agreed.irs + 1) & MASK)
        if segment.flags & RST:
            if ahead == 0:
                self._counters.handshakes_reset += 1
                self.finish(handshake)
            elif 0 < ahead < self._window:
                self._challenge(handshake, now)
        elif segment.flags & SYN and ahead == -1:
            self._answer(handshake.quad, agreed, handshake.stamp, now)
        elif segment.flags & SYN or not 0 <= ahead < self._window or _stale(handshake, segment):
            self._challenge(handshake, now)
        elif segment.flags & ACK and segment.ack != (agreed.iss + 1) & MASK:
            self._nobody.reset(handshake.quad, segment, now)
        else:
            return bool(segment.flags & ACK)
        return False

    def recognise(
        self, listener: Listener, quad: Quad, segment: Segment, now: int
    ) -> Agreed | None:
        """What was agreed in a handshake that nobody remembers, if this is its third segment.
        Anything else is refused, but what seems to have overtaken the third segment only dropped:
        it comes again."""
        if listener.cookies_until <= now:
            self._nobody.reset(quad, segment, now)
            return None
        stamps = segment.options.timestamp if self._config.timestamps else None
        bits = stamps[1] & OPTION_BITS if stamps else PLAIN
        irs, iss = (segment.seq - 1) & MASK, (segment.ack - 1) & MASK
        mss = self._cookies.check(quad, irs, iss, bits, now)
        if mss:
            return Agreed(iss, irs, mss, features(bits), stamps is not None)
        self._counters.cookies_refused += 1
        overtook = segment.payload or segment.flags & FIN
        if not overtook or not self._cookies.recent(quad, iss, now):
            self._nobody.reset(quad, segment, now)
        return None

    def _challenge(self, handshake: Handshake, now: int) -> None:
        quad, agreed = handshake.quad, handshake.agreed
        shift = 0 if agreed.features.scale < 0 else self._scale
        window = min(self._whole >> shift, LARGEST_WINDOW)
        options = b""
        if agreed.timestamps:
            options = pack_timestamp(self._clock(quad, now), handshake.stamp)
        seq, ack = (agreed.iss + 1) & MASK, (agreed.irs + 1) & MASK
        self._nobody.challenge(quad, bare(ACK, seq, ack, window, options), now)

    # --- their end ------------------------------------------------------------------------------

    def finish(self, handshake: Handshake) -> None:
        """It has led to a connection, or never will."""
        del handshake.listener.handshakes[handshake.quad]
        del self._under_way[handshake.quad]
        self._deadlines.set(handshake, 0)

    def forget(self, listener: Listener) -> None:
        """Nobody listens any more."""
        for handshake in list(listener.handshakes.values()):
            self.finish(handshake)

    @property
    def deadline(self) -> int:
        return self._deadlines.next

    def tick(self, now: int) -> None:
        """Send again what was not answered, but not for ever."""
        for handshake in self._deadlines.due(now):
            if handshake.repeats < self._limits.repeats:
                handshake.repeats += 1
                self._send(handshake, now)
            else:
                self._counters.handshakes_expired += 1
                self.finish(handshake)

    def repeat(self, now: int) -> None:
        """Send everything again: what was sent has probably been lost."""
        for handshake in self._under_way.values():
            handshake.sent_at = now
            self._answer(handshake.quad, handshake.agreed, handshake.stamp, now)


def _stamp(segment: Segment) -> int:
    return segment.options.timestamp[0] if segment.options.timestamp else 0


def _stale(handshake: Handshake, segment: Segment) -> bool:
    """By its timestamp it is older than the SYN, or it has none (RFC 7323 §3.2, §5.3)."""
    if not handshake.agreed.timestamps:
        return False
    return segment.options.timestamp is None or lt(_stamp(segment), handshake.stamp)
