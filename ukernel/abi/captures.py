"""captures: how frames are noted in a file while a system runs, and what has passed its cards."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from ukernel.abi.errors import Answer
from ukernel.abi.faults import NoSuchDevice
from ukernel.abi.interface import Interface, op, u32, u64


class CaptureFailed(Answer):
    """The file cannot be written, or nothing is being captured; the text says which."""


class Captured(NamedTuple):
    """What is in the file of a capture that has ended."""

    path: str
    frames: u64
    octets: u64
    lost: u64  # not written: the host had no room


class CardRow(NamedTuple):
    """A network card and what has passed it."""

    device: str
    backend: str  # tap, userns, wire, switch
    mac: bytes
    mtu: u32
    sent: u64  # frames, as the driver cuts them
    received: u64
    bytes_sent: u64
    bytes_received: u64
    dropped: u64
    capture: str  # the file that they are noted in; empty: none


class Captures(Interface):
    """What the machine is asked about its network cards. Served under badge 0, which only the root
    task holds. A device that is no card is none: NoSuchDevice."""

    answers: ClassVar[tuple[type[Answer], ...]] = (NoSuchDevice, CaptureFailed)

    @op(110)
    def start_capture(self, device: str, path: str) -> None:
        """Begin the file `path` anew and note in it, as pcapng, all frames of this card. It takes
        the place of an earlier capture."""

    @op(111)
    def stop_capture(self, device: str) -> Captured:
        """End the capture; its file is whole."""

    @op(112, idempotent=True)
    def cards(self) -> list[CardRow]:
        """All network cards."""
