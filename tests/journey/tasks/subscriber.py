"""subscriber: an application that prints what notifications bring it."""

from __future__ import annotations

from tests.journey.tasks.board import Board
from ukernel.lib.server import Server
from ukernel.lib.stub import connect

BITS = 0b100


class Subscriber(Server):
    def setup(self) -> None:
        self.news = self.notification(self.heard)
        connect(Board, "board").subscribe(self.news.signaller(BITS))

    def heard(self, bits: int) -> None:
        print(f"bits {bits:#b}", flush=True)


if __name__ == "__main__":
    Subscriber.run()
