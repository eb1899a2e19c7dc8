"""stamps: the echo service of the hop attribution, which notes when a call passed where."""

from __future__ import annotations

from ukernel.abi.interface import Interface, op, u32, u64

PER_CALL = 4  # came, begun, ended, packed: CLOCK_MONOTONIC nanoseconds
PAGE = 2000  # calls in one answer
BLOCK = 300  # calls without notes, then as many with them, and so on: the host's moods hit both


class Stamps(Interface):
    """Gives back what it gets, and remembers when."""

    @op(1, idempotent=True)
    def echo(self, data: bytes) -> bytes:
        """The same bytes."""

    @op(3, idempotent=True)
    def note(self, on: bool) -> None:
        """Whether to remember the echoes that come now."""

    @op(2, idempotent=True)
    def taken(self, start: u32) -> list[u64]:
        """Of up to 2000 echoes from number `start`: when the request was here, when the method was
        entered, when it was left, and when the reply was packed; one after the other."""
