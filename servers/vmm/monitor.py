"""monitor: keeps one machine going, across deaths: its loop, its snapshots, its frozen images.

The guest runs for a slice when the alarm says so. Before the server waits, it is copied if that is
due, and who waits for output is told. `setup` takes the same path in each life: it goes on from the
newest snapshot, or boots. The guest's time stands still while nobody runs it; so after a
death it goes back with all that is the guest's, and nothing in there sees a step. Its disk does not
go back: what it had written since the snapshot, it finds written.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from servers.vmm import snapshots, transcript
from servers.vmm.machine import BadMachine, Machine
from servers.vmm.runner import Runner
from servers.vmm.settings import BadSettings, Settings
from servers.vmm.snapshots import Snapshots
from servers.vmm.transcript import Transcript
from servers.vmm.wish import Wish, Wishes
from ukernel.abi.exits import NO_RESTART
from ukernel.abi.vm import OUTPUT_BYTES, OUTPUT_WAIT_MS, PAUSED, Output
from ukernel.lib.server import Server
from ukernel.lib.way import Pending

RETRY_NS = 10_000_000
STARVED_NS = 20_000_000
MARGIN_NS = 100_000_000  # before a caller's deadline
NS_PER_MS = 1_000_000
WAITERS = 8  # who wait for output: half of the window
TRANSCRIPT_AT = 64  # in the memory that is kept; wishes are before it


class Waiter(NamedTuple):
    """Who waits for what comes from a position on."""

    pending: Pending[Output]
    at: int
    until_ns: int


class Monitor(Server):
    """See servers.vmm.server for what it can be asked."""

    snapshots_taken = 0
    snapshot_pause_ns = 0
    snapshot_at_ns = 0
    restored_from_ms = 0

    def setup(self) -> None:
        self.settings = self._settings()
        kept = self.region("kept", TRANSCRIPT_AT + transcript.BYTES, persistent=True).view
        self.wishes, self.transcript = Wishes(kept), Transcript(kept[TRANSCRIPT_AT:])
        self.snapshots = self._kept_snapshots(self.settings.memory)
        self._waiters: deque[Waiter] = deque()
        self._errands: deque[Callable[[], None]] = deque()
        self._copied_slices = -1
        self._retry_at_ns = 0
        self.why = ""
        self.runner: Runner | None = None
        try:
            self.machine = Machine(self, self.settings, self.transcript.put, plugged=False)
        except BadMachine as error:
            self.why = str(error)
            self.say(self.why)
        else:
            self.runner = Runner(self.machine, self.settings.share, self.say)
            self._begin(self.runner)

    def _settings(self) -> Settings:
        try:
            return Settings.of(self.args)
        except BadSettings as error:
            print(f"{error} ({self.connection.info.origin})", file=sys.stderr)
            sys.exit(NO_RESTART)

    def _kept_snapshots(self, memory: int) -> Snapshots:
        size = snapshots.room(memory)
        regions = [self.region(f"snapshot-{n}", size, persistent=True) for n in range(2)]
        return Snapshots([region.view for region in regions], memory)

    def say(self, text: str) -> None:
        print(text, flush=True)

    # --- the beginning of a life ----------------------------------------------------------------

    def _begin(self, runner: Runner) -> None:
        wish = self.wishes.read()
        if wish is Wish.EMPTY or (wish is Wish.NONE and self.settings.empty):
            self.snapshots.clear()
            return
        if not self._go_on(runner):
            runner.boot()
        if runner.state == PAUSED and wish is not Wish.STAND:
            self.run_on(runner)

    def _go_on(self, runner: Runner) -> bool:
        """From the newest snapshot that there is."""
        for found in self.snapshots.found():
            self.machine.ram.view[:] = found.memory
            try:
                self.machine.restore(found.state)
            except BadMachine as error:
                self.say(f"a snapshot is of no use: {error}")
                continue
            runner.restored()
            self.snapshot_at_ns = found.taken_ns
            age_ns = time.monotonic_ns() - found.taken_ns
            self.restored_from_ms = max(1, age_ns // NS_PER_MS)
            return True
        return False

    def run_on(self, runner: Runner) -> None:
        """Let it run, and its frames come."""
        self.wishes.write(Wish.RUN)
        runner.resume()
        self.machine.plug(True)

    # --- the loop -------------------------------------------------------------------------------

    def alarmed(self) -> None:
        """The guest's turn: others in this process, as the driver of its disk, have theirs before
        anybody waits."""
        if self.runner is not None:
            self.busy = True  # who is asked by its devices may let the loop turn meanwhile
            self.runner.turn(time.monotonic_ns())
            self.busy = False

    def before_waiting(self) -> None:
        now_ns = time.monotonic_ns()
        runner, due_ns = self.runner, 0
        if self.alarm_ns and now_ns > self.alarm_ns + STARVED_NS:
            self.alarmed()  # requests come so fast that the loop never waits
        if runner is not None:
            self._copy_if_due(runner, now_ns)
            due_ns = self._look_after_devices(now_ns)
            dues = (runner.due_ns(now_ns), self._copy_due_ns(runner), due_ns)
            due_ns = min((due for due in dues if due), default=0)
        told_ns = self._tell_output(now_ns)
        self.alarm_ns = min((due for due in (due_ns, told_ns) if due), default=0)

    def _look_after_devices(self, now_ns: int) -> int:
        """Have done what waits for them; when to look again, 0: when something comes."""
        while self._errands and self.machine.idle:
            self._errands.popleft()()
        if self.machine.wants_retry and self._retry_at_ns and now_ns >= self._retry_at_ns:
            self._retry_at_ns = 0
            self.machine.retry()
        if self.machine.wants_retry:
            self._retry_at_ns = self._retry_at_ns or now_ns + RETRY_NS
        return self._retry_at_ns

    def when_idle(self, do: Callable[[], None]) -> None:
        """Now, or when its devices have done what they had begun."""
        self._errands.append(do)

    # --- snapshots ------------------------------------------------------------------------------

    def _copy_due_ns(self, runner: Runner) -> int:
        every_ns = self.settings.snapshot_every_ms * NS_PER_MS
        if not every_ns or not runner.settled or self._copied_slices == runner.slices:
            return 0
        return max(1, self.snapshot_at_ns + every_ns)

    def _copy_if_due(self, runner: Runner, now_ns: int) -> None:
        if 0 < self._copy_due_ns(runner) <= now_ns:
            self.copy(runner)

    def copy(self, runner: Runner) -> snapshots.Snapshot:
        """Take a snapshot: in one go, so it is of one moment."""
        begun_ns = time.monotonic_ns()
        taken = self.snapshots.write(self.machine.save(), self.machine.ram.view, begun_ns)
        self.snapshot_at_ns = begun_ns
        self.snapshot_pause_ns = time.monotonic_ns() - begun_ns
        self.snapshots_taken += 1
        self._copied_slices = runner.slices
        return taken

    def stopping(self) -> None:
        """An orderly end costs the guest nothing."""
        runner = self.runner
        if runner is not None and self.settings.snapshot_every_ms and runner.settled:
            self.copy(runner)

    # --- output ---------------------------------------------------------------------------------

    def show(self, at: int) -> Output:
        """What comes from a position on, now or in a while."""
        if self.transcript.end > at or len(self._waiters) >= WAITERS:
            return Output(*self.transcript.read(at, OUTPUT_BYTES))
        pending: Pending[Output] = self.pending()
        until_ns = time.monotonic_ns() + OUTPUT_WAIT_MS * NS_PER_MS
        if self.caller.deadline_ns:
            until_ns = min(until_ns, self.caller.deadline_ns - MARGIN_NS)
        self._waiters.append(Waiter(pending, at, until_ns))
        return pending.later

    def _tell_output(self, now_ns: int) -> int:
        """Answer those for whom there is some, or who have waited for long; when to look again."""
        end = self.transcript.end
        for waiter in [w for w in self._waiters if end > w.at or now_ns >= w.until_ns]:
            self._waiters.remove(waiter)
            waiter.pending.answer(Output(*self.transcript.read(waiter.at, OUTPUT_BYTES)))
        return min((waiter.until_ns for waiter in self._waiters), default=0)
