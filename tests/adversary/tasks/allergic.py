"""allergic: a server that dies of certain requests, until it is cured. It remembers the cure."""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

import os
import signal

from ukernel.abi.interface import Interface, Lent, op, u32
from ukernel.lib.server import Server

NUT = b"nut"  # what begins so kills: the process crashes
TOFFEE = b"toffee"  # its jaws stick: it hangs
SLEEP = b"sleep"  # it waits in the handler for a signal that never comes
DISH = 7  # badge of the only dish


class Dish(Interface):
    """What a guest was served."""

    @op(1, idempotent=True)
    def taste(self, food: bytes) -> u32:
        """As `eat`."""


class Allergic(Interface):
    """Eats anything, once."""

    @op(1, idempotent=True)
    def eat(self, food: bytes) -> u32:
        """How many bytes that were; or the end of the process."""

    @op(2)
    def cure(self) -> None:
        """From now on nothing kills, in later lives neither."""

    @op(3, idempotent=True)
    def eat_lent(self, food: Lent) -> u32:
        """As `eat`."""

    @op(4)
    def order(self) -> Dish:
        """A dish of one's own."""


class Plate(Dish):
    def __init__(self, guest: AllergicServer) -> None:
        self.guest = guest

    def taste(self, food: bytes) -> int:
        return self.guest.eat(food)


class AllergicServer(Server, Allergic):
    def setup(self) -> None:
        self.kept = self.region("health", 4096, persistent=True).view

    def eat(self, food: bytes) -> int:
        if not self.kept[0]:
            self._suffer(food)
        return len(food)

    def _suffer(self, food: bytes) -> None:
        if food.startswith(NUT):
            os.kill(os.getpid(), signal.SIGSEGV)
        while food.startswith(TOFFEE):
            pass
        if food.startswith(SLEEP):
            signal.pause()

    def cure(self) -> None:
        self.kept[0] = 1

    def eat_lent(self, food: Lent) -> int:
        return self.eat(bytes(self.memory(food)))

    def order(self) -> Dish:
        dish = Plate(self)
        self.export(dish, DISH)
        return dish

    def restore(self, badge: int) -> Interface | None:
        dish = Plate(self)
        dish.badge = badge
        return dish


if __name__ == "__main__":
    AllergicServer.run()
