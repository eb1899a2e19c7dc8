"""cable: what a network card is plugged into, and what may stand between the two.

A frame goes as a virtio_net_hdr of 12 bytes and its parts, which are the driver's memory: they are
good until the call returns. A frame that comes is put where the card says, header first. Nothing
here raises, whatever the frame is: what cannot be carried is dropped and counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ukernel.lib.virtio.queue import Views

NONE = -1  # no frame waits


class Cable(Protocol):
    """What a card, or a stage before it, is plugged into.

    `arrived` is called when `receive` may have something, as long as it was listened for.
    """

    arrived: Callable[[], None]

    def accept(self, features: int) -> None:
        """What the card's driver takes, of the features of virtio-net; 0: there is none."""

    def listen(self, wanted: bool) -> None:
        """Whether to call `arrived`: the card has room."""

    def send(self, header: bytes, parts: Views) -> None:
        """Carry a frame away, or drop it."""

    def flush(self) -> None:
        """That was all for the moment: who gets the frames is to be told."""

    def receive(self, into: Views) -> int:
        """Put header and frame into `into`; how many bytes, NONE without a frame. What does not
        fit is dropped."""

    def drops(self) -> int:
        """Frames that were dropped so far."""


def nothing() -> None:
    """What is called when nobody listens."""


class Stage:
    """A cable on a cable: what is here passes everything. Derive from it what looks or meddles."""

    inner: Cable

    def __init__(self) -> None:
        self.arrived: Callable[[], None] = nothing

    def plug(self, inner: Cable) -> None:
        """From now on this one is behind it."""
        self.inner = inner
        inner.arrived = self.stirred

    def stirred(self) -> None:
        """The cable behind it may have something."""
        self.arrived()

    def accept(self, features: int) -> None:
        self.inner.accept(features)

    def listen(self, wanted: bool) -> None:
        self.inner.listen(wanted)

    def send(self, header: bytes, parts: Views) -> None:
        self.inner.send(header, parts)

    def flush(self) -> None:
        self.inner.flush()

    def receive(self, into: Views) -> int:
        return self.inner.receive(into)

    def drops(self) -> int:
        return self.inner.drops()
