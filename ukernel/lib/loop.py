"""loop: one thread, and all that it waits for: messages, channels, descriptors, alarms.

A turn handles what is here; only when that is nothing does it wait. Whoever keeps channels busy
keeps nobody from being heard: descriptors and alarms are looked at once in so many turns anyway. A
member that is in the middle of a call is left alone until that call is over: what comes for it
stays where it is.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ukernel.lib.bell import RUNG, fence

if TYPE_CHECKING:
    from ukernel.lib.channel import Channel, Spin
    from ukernel.lib.door import Door
    from ukernel.lib.server import Server

    End = Door | Channel  # of a channel: the server's or the client's

MAX_WAIT_S = 3600.0  # of one wait
MOST_EVENTS = 16  # of one wait; the others come with the next
MOST_TURNS = 64  # without a look at descriptors and alarms
AT_ONCE = 1  # a time that is over
NOTHING: tuple[Any, None] = (None, None)


class Loop:
    """The waiting of one process, for the servers in it."""

    shared = False  # by several: whose code runs is to be known

    def __init__(self) -> None:
        self.members: list[Server] = []
        self._epoll = select.epoll()
        self._ready: dict[int, tuple[Server, Callable[[], None] | None]] = {}
        self._how: dict[int, int] = {}  # levels or edges
        self._muted: set[int] = set()  # readable, of members that are busy
        self._stirs = 0
        self._turns = 0  # since descriptors were looked at

    def join(self, member: Server) -> None:
        """Take turns for this server too."""
        self.members.append(member)
        self.watch(member, member.connection.fd, member.connection.stir)

    def watch(
        self, member: Server, fd: int, ready: Callable[[], None] | None, how: int = select.EPOLLIN
    ) -> None:
        """Call `ready` whenever `fd` is readable, or as epoll(7) has it for `how`."""
        self._ready[fd] = member, ready
        self._how[fd] = how
        self._epoll.register(fd, how)

    def unwatch(self, fd: int) -> None:
        """Stop watching `fd`, which is still open."""
        del self._ready[fd], self._how[fd]
        self._muted.discard(fd)
        self._epoll.unregister(fd)

    def watch_end(self, member: Server, end: End) -> None:
        """Wake up when it rings: what has come there shows in the turn that follows."""
        self.watch(member, end.bell, None, RUNG)

    def turn(self, until_ns: int = 0) -> None:
        """Handle what is here, and wait until there is something, but not beyond `until_ns` on
        CLOCK_MONOTONIC (0: for ever)."""
        before = self._stirs
        for member in self.members:
            if not member.busy:
                if self.shared:
                    self.enter(member)
                member.handle_all()
                if member.puts_off and member.running:
                    member.before_waiting()
        self._turns += 1
        if self._stirs == before and not self._anything_left():
            self._wait(until_ns)
        if self._turns >= MOST_TURNS:
            self._sleep(AT_ONCE)

    def stir(self) -> None:
        """Something has happened for a member whose turn it was already, or that waits within it:
        do not wait before there is another turn."""
        self._stirs += 1

    def _anything_left(self) -> bool:
        """Whether something has come for a member while it, or another, was at work."""
        for member in self.members:
            if not member.busy:
                line = member.connection
                if line.stirred or line.inbox or line.finished or not member.running:
                    return True
        return False

    def enter(self, member: Server) -> None:
        """The code of this member runs next."""

    def _wait(self, until_ns: int) -> None:
        members = self.members
        ends: list[End] = [*members[0].doors, *members[0].returns]
        if len(members) > 1:
            ends = []
            for member in members:
                if not member.busy:
                    ends += member.doors
                    ends += member.returns
        if not ends:
            self._sleep(until_ns)
            return
        if self._spin(ends):
            return
        for end in ends:
            end.sleep()
        fence()
        some = False
        for end in ends:
            some |= end.nudge()
        if not some:
            self._sleep(until_ns)
        for end in ends:
            end.wake()

    def _spin(self, ends: list[End]) -> bool:
        """Look for what comes for a moment; whether there is something."""
        spin = ends[0].spin if len(ends) == 1 else max((e.spin for e in ends), key=_looks)
        if not spin.most or self._distracted:
            return False
        for _ in range(spin.looks // len(ends)):
            for end in ends:
                if end.ready:
                    spin.waited(in_vain=False)
                    return True
        spin.waited(in_vain=True)
        return False

    @property
    def _distracted(self) -> bool:
        """Who waits for descriptors as well, as drivers do, would not see them while it spins."""
        return any(len(m.watched) > 0 or m.alarm_ns for m in self.members)

    def _sleep(self, until_ns: int) -> None:
        self._turns = 0
        for member in self.members:
            member.tell_doors()
        for fd, _ in self._epoll.poll(self._patience_s(until_ns), MOST_EVENTS):
            member, ready = self._ready.get(fd, NOTHING)
            if ready is None:  # a door rang; or an earlier one has ended this
                continue
            if not member.busy:
                self.enter(member)
                ready()
            elif fd == member.connection.fd:
                member.connection.look()  # it may wait for an answer; the rest stays in its inbox
            else:
                self._mute(fd)
        for member in self.members:
            due_ns = 0 if member.busy else member.alarm_ns
            if due_ns and time.monotonic_ns() >= due_ns:
                member.alarm_ns = 0
                self.enter(member)
                member.alarmed()

    def _patience_s(self, until_ns: int) -> float | None:
        due_ns = until_ns
        for member in self.members:
            if member.alarm_ns and not member.busy:
                due_ns = min(due_ns or member.alarm_ns, member.alarm_ns)
        if not due_ns:
            return None
        return min(max(0, due_ns - time.monotonic_ns()) / 1e9, MAX_WAIT_S)

    def _mute(self, fd: int) -> None:
        """It would be told again and again what it cannot take now."""
        self._epoll.modify(fd, 0)
        self._muted.add(fd)

    def unmute(self) -> None:
        """Some call is over: who was in the middle of it may be told again."""
        for fd in self._muted:
            self._epoll.modify(fd, self._how[fd])
        self._muted.clear()


def _looks(spin: Spin) -> int:
    return spin.looks
