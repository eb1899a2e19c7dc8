"""monitors: virtual machines that are no more than a few bytes, for what is asked of monitors, and
memory for these to go through."""

from __future__ import annotations

from ukernel.abi.interface import Lent
from ukernel.abi.vm import (
    EMPTY,
    OUTPUT_BYTES,
    PAUSED,
    RUNNING,
    BadImage,
    ExitCount,
    Output,
    VmStatus,
    WrongState,
)

LENT, SHOWN = b"lent", b"shown"  # tokens


class Memory:
    """`ukernel.lib.memory.Region` without a kernel."""

    def __init__(self, size: int) -> None:
        self.view = memoryview(bytearray(size))

    def lend(self, offset: int, length: int) -> Lent:
        return Lent(LENT, offset, length)

    def show(self, offset: int, length: int) -> Lent:
        return Lent(SHOWN, offset, length)

    def seen(self, lent: Lent) -> memoryview:
        """As who is called has it."""
        view = self.view if lent.token == LENT else self.view.toreadonly()
        assert lent.offset + lent.length <= len(view)
        return view[lent.offset : lent.offset + lent.length]


class Guest:
    """What a monitor does with its guest, whose memory is `content`."""

    def __init__(self, engine: str, memory: int, content: bytes | None) -> None:
        self.engine, self.memory, self.content = engine, memory, content
        self.state = EMPTY if content is None else RUNNING
        self.shown = b"hello\r\n" if content is not None else b""
        self.saved: bytes | None = None
        self.loaded = bytearray()

    def status(self) -> VmStatus:
        exits = [ExitCount("slice", 7), ExitCount("wfi", 3)]
        return VmStatus(
            self.engine, self.state, self.memory, 1500, 7, 250_000, exits, 2, 1, 4, 300, 1250, 0
        )

    def pause(self) -> None:
        self._must_be(RUNNING, PAUSED)
        self.state = PAUSED

    def resume(self) -> None:
        self._must_be(RUNNING, PAUSED)
        self.state = RUNNING

    def output(self, at: int) -> Output:
        return Output(at, self.shown[at : at + OUTPUT_BYTES])

    def enter(self, data: bytes) -> int:
        taken = data[:5]
        self.shown += taken
        return len(taken)

    def save(self) -> int:
        self.pause()
        self.saved = self.content
        return len(self.saved or b"")

    def image(self, offset: int, into: memoryview) -> int:
        if self.saved is None:
            raise WrongState("nothing was saved")
        piece = self.saved[offset : offset + len(into)]
        into[: len(piece)] = piece
        return len(piece)

    def make_room(self) -> None:
        self._must_be(EMPTY)

    def load(self, offset: int, data: memoryview) -> None:
        self._must_be(EMPTY)
        if offset == 0:
            self.loaded.clear()
        if offset > len(self.loaded):
            raise BadImage(f"a piece at {offset} after {len(self.loaded)} bytes")
        self.loaded[offset : offset + len(data)] = data

    def start_loaded(self) -> None:
        self._must_be(EMPTY)
        if not self.loaded:
            raise BadImage("nothing was loaded")
        self.content, self.state = bytes(self.loaded), RUNNING
        self.loaded.clear()

    def discard(self) -> None:
        self.content = self.saved = None
        self.loaded.clear()
        self.state = EMPTY

    def _must_be(self, *states: str) -> None:
        if self.state not in states:
            raise WrongState(f"it is {self.state}")
