"""relay: passes a call on along capabilities that it was given while running."""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from ukernel.abi.interface import Interface, op, u32
from ukernel.lib.server import Server


class Relay(Interface):
    """A chain that the system file does not know of."""

    @op(1, idempotent=True)
    def go(self, hops: u32) -> u32:
        """Call the next one, `hops` times in all; how many were made."""


class Link(Interface):
    """What a relay is told, and what it does."""

    @op(1)
    def go(self, hops: u32) -> u32:
        """Call the next one, `hops` times in all; how many were made."""

    @op(2)
    def take(self, following: Relay) -> None:
        """From now on, that one is next."""


class RelayServer(Server, Link):
    following: Relay

    def take(self, following: Relay) -> None:
        self.following = following

    def go(self, hops: int) -> int:
        return self.following.go(hops - 1) + 1 if hops else 0


if __name__ == "__main__":
    RelayServer.run()
