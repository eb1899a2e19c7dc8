"""monitor: keeps one guest of QEMU going, across deaths: its own, and those of QEMU.

`setup` takes the same path in each life: a QEMU is started, stands still, becomes what the newest
snapshot has, or boots, and goes on. What is asked of QEMU is answered later: nothing here waits for
it, for it may wait for its disk, which is served here. A QEMU that has ended by itself is started
again, once a second at most: from the newest snapshot, unless the guest wanted to be reset.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from servers.vmm.keeper import LOADED, MADE, NS_PER_MS, Keeper
from servers.vmm.qemu import accel, commands, qmp
from servers.vmm.qemu.clock import Clock
from servers.vmm.qemu.machine import Machine
from servers.vmm.qemu.process import PROGRAM, REMEDY
from servers.vmm.qemu.qmp import Failed, Failure
from servers.vmm.settings import QEMU
from servers.vmm.snapshots import Snapshot, TooLarge
from servers.vmm.wish import Wish
from ukernel.abi import wire
from ukernel.abi.vm import EMPTY, FAILED, HALTED, PAUSED, RUNNING
from ukernel.lib.upstream import All, Patience

RETRY_NS = 10_000_000
RESET_EVERY_NS = 1_000_000_000
AT_ONCE = 1  # a time that is over
SWITCHED_OFF, RESET = "guest-shutdown", "guest-reset"  # why QEMU ends
ACCEL_AT = 8  # in the memory that is kept: the number in ACCELS of what runs it, once that is known
ACCELS = ("", accel.KVM, accel.TCG)


class BadState(Exception):
    """This is no state of a guest that could go on here; the text says why."""


class Monitor(Keeper):
    """See servers.vmm.qemu.server for what it can be asked."""

    engine = QEMU

    def setup(self) -> None:
        super().setup()
        self.guest = EMPTY  # the state of VmStatus
        self.kind = QEMU  # how VmStatus calls the engine
        self.clock = Clock()
        self.resets = 0
        self.stands_in: Snapshot | None = None  # of a guest that stands still since then
        self.let_go = 0  # how often it was let run
        self.begun = False  # QEMU is what it is to be; what is typed before is lost
        self._copying = False
        self._begun_at_ns = 0
        self._next_at_ns = self._last_reset_ns = 0  # when the next QEMU is due; 0: none is
        self._from: Sequence[Snapshot] = ()  # where it begins
        self._newest = self._tried = 0  # snapshots: when QEMU last died, and what followed it
        self.machine: Machine | None = None
        if qmp.MISSING:
            self.fail(f"the engine qemu is an extra, pip install ukernel[vm]: {qmp.MISSING}")
            return
        if shutil.which(PROGRAM) is None:
            self.fail(REMEDY)
            return
        chosen = self._chosen()
        self.kind = f"{QEMU}/{chosen}"
        self.machine = Machine(self, self.settings, chosen, self._ended)
        self._patience = Patience(All(self.machine.upstreams), RETRY_NS)
        self.come_to(MADE)
        self._begin()

    def _chosen(self) -> str:
        """What executes it: found out once, for all lives."""
        known = ACCELS[self.kept[ACCEL_AT]]
        found = known or accel.chosen(self.settings.accel, PROGRAM)
        self.kept[ACCEL_AT] = ACCELS.index(found)
        return found

    @property
    def made(self) -> Machine:
        assert self.machine is not None, "it has failed"
        return self.machine

    def condition(self) -> tuple[str, str]:
        return self.guest, self.why

    @property
    def guest_memory(self) -> memoryview:
        return self.made.ram.view

    @property
    def idle(self) -> bool:
        """Another QEMU may be started."""
        return self.made.idle

    @property
    def starting(self) -> bool:
        up = self.machine is not None and self.machine.up
        return super().starting or (self.guest == EMPTY and up)

    # --- beginnings -----------------------------------------------------------------------------

    def _begin(self) -> None:
        wish = self.wishes.read()
        if wish is Wish.EMPTY or (wish is Wish.NONE and self.settings.empty):
            self.snapshots.clear()
        elif wish is Wish.OFF:
            self.guest = HALTED
        else:
            self.guest = PAUSED if wish is Wish.STAND else RUNNING
            self.made.plug(self.guest == RUNNING)
            self._start(self.snapshots.found())

    def _start(self, found: Sequence[Snapshot]) -> None:
        """Go on from the first of these that is of use, or boot."""
        machine, state = self.made, None
        self.begun = False
        self.clock = Clock()
        if found:
            try:
                ran_ns, state = unpacked(found[0].state, self.kind)
            except BadState as bad:
                self._start_with_next(found, str(bad))
                return
            self.clock = Clock(ran_ns)
            machine.ram.view[:] = found[0].memory
        try:
            machine.start(state, lambda outcome: self._started(found, outcome))
        except OSError as error:
            self.fail(f"QEMU cannot be started: {error}")

    def _start_with_next(self, found: Sequence[Snapshot], why: str) -> None:
        self.say(f"a snapshot is of no use: {why}")
        self._from, self._next_at_ns = found[1:], AT_ONCE

    def _started(self, found: Sequence[Snapshot], outcome: Failed | None) -> None:
        if self.guest not in (RUNNING, PAUSED):
            return
        if outcome is not None:
            self.made.close()
            if found:
                self._start_with_next(found, outcome.why)
            else:
                self.fail(f"it does not begin: {outcome.why}; QEMU says more in the log")
            return
        self.stands_in = found[0] if found else None
        if found:
            self.goes_on_from(found[0])
        self.has_begun()
        if self.guest == RUNNING:
            self.run_on()

    def has_begun(self) -> None:
        self.begun = True
        self._begun_at_ns = time.monotonic_ns()
        self.come_to(LOADED)

    def run_on(self) -> None:
        """Let it run, and its frames come."""
        self.wishes.write(Wish.RUN)
        self.guest = RUNNING
        self.stands_in = None
        self.let_go += 1
        self.made.plug(True)
        if self.begun:
            self.ask(commands.go_on, self.clock.start)

    def stand(self) -> None:
        """It is to stand still, in the next life too."""
        self.wishes.write(Wish.STAND)
        self.guest = PAUSED
        self.made.plug(False)

    def ask(self, work: Any, done: Callable[[Any], None]) -> None:
        """Have QEMU do it; what goes wrong is for the log."""

        def told(outcome: Any) -> None:
            if isinstance(outcome, Failed):
                self.say(outcome.why)
            else:
                done(outcome)

        if self.made.up:
            self.made.do(work, told)

    # --- ends -----------------------------------------------------------------------------------

    def fail(self, why: str) -> None:
        self.guest, self.why = FAILED, why
        self.say(why)
        if self.machine is not None:
            self.machine.close()

    def _ended(self, status: int, reason: str) -> None:
        """QEMU has, by itself."""
        self.clock.stop(time.monotonic_ns())
        if self.guest not in (RUNNING, PAUSED) or not self.begun:
            return  # who has begun it was told
        self.begun = False
        if reason == SWITCHED_OFF:
            self.guest = HALTED
            self.say("the guest has switched itself off")
            if self.settings.snapshot_every_ms:
                self.wishes.write(Wish.OFF)
            return
        self.say("the guest is reset" if reason == RESET else f"QEMU has ended with {status}")
        self._from = self._untried() if reason != RESET else []
        self._next_at_ns = max(time.monotonic_ns(), self._last_reset_ns + RESET_EVERY_NS)
        self._last_reset_ns = self._next_at_ns
        self.resets += 1

    def _untried(self) -> list[Snapshot]:
        """Snapshots from which no QEMU has gone on only to die, the newest first."""
        found = self.snapshots.found()
        newest = found[0].generation if found else 0
        if newest == self._newest:
            found = [each for each in found if each.generation < self._tried]
        self._newest, self._tried = newest, found[0].generation if found else 0
        return found

    def _next_due_ns(self, now_ns: int) -> int:
        if not self._next_at_ns:
            return 0
        return max(self._next_at_ns, now_ns) if self.idle else 0

    def empty(self) -> None:
        """There is no guest any more; what its disk has begun comes to its end."""
        self.guest, self.begun, self._next_at_ns = EMPTY, False, 0
        self.made.close()
        self.made.plug(False)
        self.clock, self.stands_in = Clock(), None
        self.give_up()

    # --- the loop -------------------------------------------------------------------------------

    def before_waiting(self) -> None:
        now_ns = time.monotonic_ns()
        dues = [self.tell_output(now_ns)]
        if self.machine is not None:
            dues += self._look_after(self.machine, now_ns)
        self.alarm_ns = min((due for due in dues if due), default=0)

    def _look_after(self, machine: Machine, now_ns: int) -> list[int]:
        """Do what is due; when to look again, 0: when something comes."""
        self.do_errands()
        if 0 < self._next_due_ns(now_ns) <= now_ns:
            self._next_at_ns = 0
            self._start(self._from)
        if 0 < self._copy_due_ns() <= now_ns:
            self._copy()
        return [
            self._next_due_ns(now_ns),
            self._copy_due_ns(),
            machine.hold(now_ns),
            self._patience.look(now_ns),
        ]

    # --- snapshots ------------------------------------------------------------------------------

    def _copy_due_ns(self) -> int:
        every_ns = self.settings.snapshot_every_ms * NS_PER_MS
        if not every_ns or self._copying or self.guest != RUNNING or not self.begun:
            return 0
        return max(self.snapshot_at_ns, self._begun_at_ns) + every_ns

    def _copy(self) -> None:
        self._copying = True
        self.made.do(partial(commands.copy, keep=self.write, runs=True), self._copied)

    def _copied(self, outcome: commands.Copied | Failed) -> None:
        self._copying = False
        if isinstance(outcome, Failed):
            self._begun_at_ns = time.monotonic_ns()
            self.say(f"no snapshot: {outcome.why}")
            return
        self.has_stood(outcome)

    def has_stood(self, copied: commands.Copied) -> None:
        """It was copied, and goes on, or stands since."""
        self.clock.stop(copied.stood_ns)
        if copied.went_on_ns:
            self.clock.start(copied.went_on_ns)
            self.snapshot_pause_ns = copied.went_on_ns - copied.stood_ns

    def write(self, state: bytes, stood_ns: int) -> Snapshot:
        """Keep this of a guest that stands. Said in the thread of qmp.py, which nobody else does
        without it meanwhile."""
        ran_ns = self.clock.at(stood_ns)
        try:
            return self.keep(packed(self.kind, ran_ns, state), self.made.ram.view, stood_ns)
        except TooLarge as error:
            raise Failure(str(error)) from None

    # --- an orderly end -------------------------------------------------------------------------

    def notice(self, kind: int, body: Any) -> None:
        """An orderly end costs the guest nothing: it is copied first."""
        worth = self.begun and self.settings.snapshot_every_ms and self.stands_in is None
        if kind != wire.NOTICE_STOP or not worth:
            super().notice(kind, body)
            return
        leave = super().notice
        self.made.do(
            partial(commands.copy, keep=self.write, runs=False), lambda _: leave(kind, body)
        )

    def stopping(self) -> None:
        if self.machine is not None:
            self.machine.close()


def packed(kind: str, ran_ns: int, state: bytes) -> bytes:
    """All but the memory."""
    return wire.pack([kind, ran_ns, state])


def unpacked(data: bytes, kind: str) -> tuple[int, bytes]:
    """For how long it had run, and the state of its devices. Raises BadState."""
    try:
        found, ran_ns, state = wire.unpack(data)
    except (wire.Malformed, TypeError, ValueError) as error:
        raise BadState(f"this is no state of a machine: {error}") from None
    if found != kind:
        raise BadState(f"it ran on {found}, and this is {kind}")
    if type(ran_ns) is not int or type(state) is not bytes:
        raise BadState("this is no state of a machine")
    return ran_ns, state
