"""monitor: serves `vm` without a processor: its guest is a few bytes.

args: memory, engine, empty as of a monitor; `trouble` is what it dies of or refuses.
"""

from __future__ import annotations

import os
import time

from tests.launcher.monitors import Guest
from ukernel.abi.interface import Lent
from ukernel.abi.vm import Output, VirtualMachine, VmFailed, VmStatus
from ukernel.lib.server import Server
from ukernel.lib.way import Pending

WAIT_NS = 100_000_000  # for something to be shown; a monitor waits a second


class Monitor(Server, VirtualMachine):
    def setup(self) -> None:
        size = int(self.args["memory"])
        content = bytes(range(251)) * (size // 251) + b"the end"
        empty = bool(self.args.get("empty"))
        self.guest = Guest("unicorn", size, None if empty else content)
        self.trouble = str(self.args.get("trouble", ""))
        self.waiting: list[tuple[int, Pending[Output]]] = []

    def status(self) -> VmStatus:
        return self.guest.status()

    def pause(self) -> None:
        self.guest.pause()

    def resume(self) -> None:
        self.guest.resume()

    def output(self, at: int) -> Output:
        if len(self.guest.shown) > at:
            return self.guest.output(at)
        pending: Pending[Output] = self.pending()
        self.waiting.append((at, pending))
        self.alarm_ns = time.monotonic_ns() + WAIT_NS
        return pending.later

    def enter(self, data: bytes) -> int:
        taken = self.guest.enter(data)
        self.alarmed()
        return taken

    def alarmed(self) -> None:
        waiting, self.waiting = self.waiting, []
        for at, pending in waiting:
            pending.answer(self.guest.output(at))

    def save(self) -> int:
        return self.guest.save()

    def image(self, offset: int, into: Lent) -> int:
        return self.guest.image(offset, self.memory(into, write=True))

    def make_room(self) -> None:
        self.guest.make_room()

    def load(self, offset: int, data: Lent) -> None:
        if self.trouble == "dies" and offset:
            os._exit(1)
        self.guest.load(offset, self.memory(data))

    def start_loaded(self) -> None:
        if self.trouble == "fails":
            raise VmFailed("no processor")
        self.guest.start_loaded()

    def discard(self) -> None:
        self.guest.discard()


if __name__ == "__main__":
    Monitor.run()
