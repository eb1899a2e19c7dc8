"""runner: when a machine's processor runs: in slices, as its share allows, unless it waits.

    while True: wait until due_ns(now), or until something has come; turn(now)

A guest that waits for an interrupt (WFI) sleeps until a line rises or its timer is due. One that
cannot go on is reset, as a real machine by its watchdog, though not more often than now and then.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from servers.vmm import finisher
from servers.vmm.engine import Exit, Kind
from servers.vmm.machine import BadMachine, Machine
from servers.vmm.share import Share
from ukernel.abi.vm import EMPTY, FAILED, HALTED, PAUSED, RUNNING

SLICE_NS = 3_000_000  # so long a request may have to wait
RESET_EVERY_NS = 1_000_000_000
AWAKE = -1


class Runner:
    """`tell` gets a line about what the guest has come to."""

    def __init__(self, machine: Machine, percent: int, tell: Callable[[str], None]) -> None:
        self.machine = machine
        self.state = EMPTY
        self.why = ""  # it has failed
        self.exits: Counter[Kind] = Counter()
        self.run_ns = 0
        self.faults = 0  # that it could not be told of
        self.resets = 0
        self._share = Share(percent, time.monotonic_ns())
        self._tell = tell
        self._seen = AWAKE  # lines that were high already when it began to wait
        self._reset_at_ns = self._last_reset_ns = 0

    @property
    def slices(self) -> int:
        """How often the guest has run."""
        return self.exits.total()

    @property
    def settled(self) -> bool:
        """There is something worth a snapshot, now and again."""
        return self.state in (RUNNING, HALTED) and not self._reset_at_ns

    @property
    def whole(self) -> bool:
        """There is a guest that can go on, and it is in no state between two others."""
        return self.state in (RUNNING, PAUSED) and not self._reset_at_ns

    @property
    def wrongs(self) -> dict[str, int]:
        """What the guest did wrong, by where: the rest of it is the machine's."""
        return {**self.machine.wrongs, "processor": self.faults}

    # --- for the monitor ------------------------------------------------------------------------

    def boot(self) -> None:
        """Begin with its program, and pause."""
        try:
            self.machine.boot()
        except BadMachine as error:
            self.fail(str(error))
        else:
            self.machine.board.pause()
            self.state = PAUSED

    def restored(self) -> None:
        """The machine is what it was, and stands."""
        halted = self.machine.board.halted
        self._reset_at_ns = 0
        self.state = PAUSED
        if halted:
            self._halted(halted)

    def resume(self) -> None:
        self._seen = AWAKE
        self.state = RUNNING
        self.machine.board.resume()

    def pause(self) -> None:
        self.state = PAUSED
        self.machine.board.pause()

    def empty(self) -> None:
        """There is no guest any more; what its devices have begun comes to its end."""
        self.machine.board.reset()
        self.machine.board.pause()
        self._reset_at_ns = 0
        self.state = EMPTY

    def fail(self, why: str) -> None:
        self.machine.board.pause()
        self.state, self.why = FAILED, why
        self._tell(why)

    # --- time -----------------------------------------------------------------------------------

    def due_ns(self, now_ns: int) -> int:
        """When `turn` has something to do, on CLOCK_MONOTONIC; 0: not until something comes."""
        if self.state != RUNNING:
            return 0
        if self._reset_at_ns:
            return max(self._reset_at_ns, now_ns) if self.machine.idle else 0
        if any(window.device.backlog for window in self.machine.windows):
            return now_ns
        if self._seen != AWAKE:
            soon = self.machine.board.poll()
            lines = self.machine.board.lines
            if not lines & ~self._seen:
                self._seen &= lines
                return now_ns + soon if soon is not None else 0
            self._seen = AWAKE
        return self._share.ready_ns(now_ns)

    def turn(self, now_ns: int) -> None:
        """Do what is due, if anything is."""
        if not 0 < self.due_ns(now_ns) <= now_ns:
            return
        if self._reset_at_ns:
            self._reset(now_ns)
            return
        self.machine.board.work()
        budget_ns = min(self._share.budget_ns(now_ns), SLICE_NS)
        if budget_ns > 0 and self._seen == AWAKE:
            self._slice(budget_ns)

    def _slice(self, budget_ns: int) -> None:
        begun_ns = time.thread_time_ns()
        found = self.machine.engine.run(max(1, budget_ns // 1000))
        used_ns = time.thread_time_ns() - begun_ns
        self._share.spent(used_ns)
        self.run_ns += used_ns
        self.exits[found.kind] += 1
        self._left(found)

    def _left(self, found: Exit) -> None:
        match found.kind:
            case Kind.WFI:
                self._seen = self.machine.board.lines
            case Kind.FAULT:
                self.faults += 1
                self._to_be_reset(f"the guest cannot go on: {found.detail}")
            case Kind.HALT if found.detail == finisher.RESTART:
                self._to_be_reset("the guest wants to be reset")
            case Kind.HALT:
                self._halted(found.detail)

    # --- ends -----------------------------------------------------------------------------------

    def _halted(self, detail: str) -> None:
        self.machine.board.pause()
        self.state = HALTED
        self._tell(f"the guest has switched itself off: {detail}")

    def _to_be_reset(self, why: str) -> None:
        self.machine.board.reset()  # its devices have to come to an end
        self._reset_at_ns = max(1, self._last_reset_ns + RESET_EVERY_NS)
        wrongs = [f"{where} {times}" for where, times in self.wrongs.items() if times]
        self._tell(f"{why}; what it did wrong so far: {', '.join(wrongs) or 'nothing'}")

    def _reset(self, now_ns: int) -> None:
        self._last_reset_ns, self._reset_at_ns = now_ns, 0
        self.resets += 1
        self.boot()
        if self.state == PAUSED:
            self.resume()
