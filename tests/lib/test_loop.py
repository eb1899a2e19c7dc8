"""loop: whoever keeps a channel busy keeps nobody from being heard."""

from __future__ import annotations

import os
from collections import deque
from types import SimpleNamespace
from typing import Any, cast

from ukernel.lib.channel import Spin
from ukernel.lib.loop import MOST_TURNS, Loop
from ukernel.lib.server import MOST_MESSAGES, Server


class Flood:
    """One end of a channel by which there is always something."""

    spin = Spin(0)
    ready = True

    def sleep(self) -> None:
        pass

    wake = sleep

    def nudge(self) -> bool:
        return True


class Busy:
    """A server that has a door like that."""

    busy = False
    running = True
    puts_off = False
    watched = frozenset[int]()

    def __init__(self, fd: int) -> None:
        self.doors = [Flood()]
        self.returns: list[Any] = []
        self.alarm_ns = 1  # long ago
        self.turns = 0
        self.heard_at = self.alarmed_at = 0
        self.connection = SimpleNamespace(
            fd=fd, stirred=False, inbox=(), finished=(), stir=self.heard
        )

    def handle_all(self) -> None:
        self.turns += 1

    def heard(self) -> None:
        self.heard_at = self.turns

    def alarmed(self) -> None:
        self.alarmed_at = self.turns

    def tell_doors(self) -> None:
        pass


def test_the_kernel_and_alarms_are_heard_in_a_flood() -> None:
    line = os.eventfd(1)
    try:
        loop, member = Loop(), Busy(line)
        loop.join(cast(Server, member))
        while not (member.heard_at and member.alarmed_at):
            loop.turn()
            assert member.turns <= MOST_TURNS
    finally:
        os.close(line)


def test_messages_without_end_leave_a_turn_to_others() -> None:
    """Whoever answers to each brings the next."""
    handled: list[int] = []
    line = SimpleNamespace(stirred=True, inbox=deque(), poll_notice=lambda: len(handled))
    member = SimpleNamespace(
        connection=line, running=True, doors=(), _begins=False, _handle=handled.append
    )
    Server.handle_all(cast(Server, member))
    assert len(handled) == MOST_MESSAGES
