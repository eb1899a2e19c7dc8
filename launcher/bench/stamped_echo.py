"""stamped_echo: a server that notes when each call passed where. The server's code is `echo`; what
notes is around it, where the library hands a call on."""

from __future__ import annotations

import time
from collections.abc import Sequence

from launcher.bench.stamps import PAGE, PER_CALL, Stamps
from ukernel.lib.door import Door
from ukernel.lib.server import Server
from ukernel.lib.way import Caller, Way


class StampedEcho(Server, Stamps):
    def setup(self) -> None:
        self.stamps: list[int] = []
        self._noting = False
        transmit = self.connection.transmit

        def stamped(frame: bytes) -> None:
            self._packed()
            transmit(frame)

        self.connection.transmit = stamped  # type: ignore[method-assign]

    def echo(self, data: bytes) -> bytes:
        if self._noting:
            self.stamps += (self._came_ns, time.monotonic_ns(), time.monotonic_ns())
        return data

    def note(self, on: bool) -> None:
        self._noting = on

    def taken(self, start: int) -> list[int]:
        return self.stamps[start * PER_CALL : (start + PAGE) * PER_CALL]

    def serve_one(
        self, way: Way, caller: Caller, number: int, opcode: int, body: bytes, caps: Sequence[bytes]
    ) -> None:
        if self._noting:
            self._came_ns = time.monotonic_ns()
        super().serve_one(way, caller, number, opcode, body, caps)

    def admit(self, door: Door) -> None:
        super().admit(door)
        answer = door._answer

        def stamped(status: int, number: int, body: bytes) -> None:
            self._packed()
            answer(status, number, body)

        door._answer = stamped  # type: ignore[method-assign]

    def _packed(self) -> None:
        """A reply is about to leave; if it is an echo's, it is the fourth of its stamps."""
        if len(self.stamps) % PER_CALL:
            self.stamps.append(time.monotonic_ns())


if __name__ == "__main__":
    StampedEcho.run()
