"""monitor: keeps one machine going, across deaths: its loop, and when it is copied.

The guest runs for a slice when the alarm says so. Before the server waits, it is copied if that is
due, and who waits for output is told. `setup` takes the same path in each life: it goes on from the
newest snapshot, or boots. The guest's time stands still while nobody runs it; so after a
death it goes back with all that is the guest's, and nothing in there sees a step. Its disk does not
go back: what it had written since the snapshot, it finds written.
"""

from __future__ import annotations

import time

from servers.vmm.keeper import LOADED, MADE, NS_PER_MS, Keeper
from servers.vmm.machine import BadMachine, Machine
from servers.vmm.runner import Runner
from servers.vmm.snapshots import Snapshot
from servers.vmm.wish import Wish
from ukernel.abi.vm import PAUSED
from ukernel.lib.upstream import All, Patience

RETRY_NS = 10_000_000
STARVED_NS = 20_000_000


class Monitor(Keeper):
    """See servers.vmm.server for what it can be asked."""

    def setup(self) -> None:
        super().setup()
        self._copied_slices = -1
        self.runner: Runner | None = None
        try:
            self.machine = Machine(self, self.settings, self.show, plugged=False)
        except BadMachine as error:
            self.why = str(error)
            self.say(self.why)
        else:
            self.come_to(MADE)
            self._patience = Patience(All(self.machine.upstreams), RETRY_NS)
            self.runner = Runner(self.machine, self.settings.share, self.say)
            self._begin(self.runner)

    # --- the beginning of a life ----------------------------------------------------------------

    def _begin(self, runner: Runner) -> None:
        wish = self.wishes.read()
        if wish is Wish.EMPTY or (wish is Wish.NONE and self.settings.empty):
            self.snapshots.clear()
            return
        if not self._go_on(runner):
            runner.boot()
        self.come_to(LOADED)
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
            self.goes_on_from(found)
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
        told_ns = self.tell_output(now_ns)
        self.alarm_ns = min((due for due in (due_ns, told_ns) if due), default=0)

    def _look_after_devices(self, now_ns: int) -> int:
        """Have done what waits for them; when to look again, 0: when something comes."""
        self.do_errands()
        return self._patience.look(now_ns)

    @property
    def idle(self) -> bool:
        return self.machine.idle

    # --- snapshots ------------------------------------------------------------------------------

    def _copy_due_ns(self, runner: Runner) -> int:
        every_ns = self.settings.snapshot_every_ms * NS_PER_MS
        if not every_ns or not runner.settled or self._copied_slices == runner.slices:
            return 0
        return max(1, self.snapshot_at_ns + every_ns)

    def _copy_if_due(self, runner: Runner, now_ns: int) -> None:
        if 0 < self._copy_due_ns(runner) <= now_ns:
            self.copy(runner)

    def copy(self, runner: Runner) -> Snapshot:
        """Take a snapshot now."""
        begun_ns = time.monotonic_ns()
        taken = self.keep(self.machine.save(), self.machine.ram.view, begun_ns)
        self.snapshot_pause_ns = time.monotonic_ns() - begun_ns
        self._copied_slices = runner.slices
        return taken

    def stopping(self) -> None:
        """An orderly end costs the guest nothing."""
        runner = self.runner
        if runner is not None and self.settings.snapshot_every_ms and runner.whole:
            self.copy(runner)
