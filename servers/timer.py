"""timer: the clock driver. Sleepers wait in the order in which they are to wake.

The clock is the truth, the interrupt a hint: one that does not come is not waited for.
"""

from __future__ import annotations

import time
from heapq import heappop, heappush

from ukernel.abi.services import Timer
from ukernel.abi.timer import TIMER_ARM, TIMER_FIRED, TIMER_MAGIC, TimerReg
from ukernel.lib.driver import LOOK_NS
from ukernel.lib.server import Server
from ukernel.lib.virtqueue import DeviceError
from ukernel.lib.way import Pending


class TimerDriver(Server, Timer):
    def setup(self) -> None:
        self.dev = self.device()
        if (magic := self.dev.load(TimerReg.MAGIC)) != TIMER_MAGIC:
            raise DeviceError(f"no timer: magic {magic:#x}")
        self.sleepers: list[tuple[int, int, Pending[int]]] = []
        self.count = 0
        self.watch_interrupt(self.dev, self.interrupted)

    def now(self) -> int:
        low = self.dev.load(TimerReg.NOW_LO)  # latches the upper half
        return low | self.dev.load(TimerReg.NOW_HI) << 32

    def sleep_until(self, when: int) -> int:
        now = self.now()
        if when <= now:
            return now
        pending: Pending[int] = self.pending()
        self.count += 1
        heappush(self.sleepers, (when, self.count, pending))
        if self.sleepers[0][0] == when:
            self._arm(when, now)
        return pending.later

    def _arm(self, when: int, now: int) -> None:
        self.dev.store(TimerReg.COMPARE_LO, when & 0xFFFF_FFFF)
        self.dev.store(TimerReg.COMPARE_HI, when >> 32)
        self.dev.store(TimerReg.CONTROL, TIMER_ARM)
        self.alarm_ns = time.monotonic_ns() + max(0, when - now) + LOOK_NS

    def alarmed(self) -> None:
        self.interrupted()

    def interrupted(self) -> None:
        self.alarm_ns = 0
        self.dev.store(TimerReg.STATUS, TIMER_FIRED)
        now = self.now()
        while self.sleepers and self.sleepers[0][0] <= now:
            heappop(self.sleepers)[2].answer(now)
        if self.sleepers:
            self._arm(self.sleepers[0][0], now)


if __name__ == "__main__":
    TimerDriver.run()
