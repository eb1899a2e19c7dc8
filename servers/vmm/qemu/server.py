"""server: a virtual machine that QEMU runs, as an interface.

    linux: {run: servers.vmm.qemu, serves: vm, state: persistent, calls: [{parts: {badge: 1}}],
            args: {engine: qemu, image: vmlinuz, memory: 128MiB, disk: parts}}

`vms:` in a system file says the same in fewer words. Its life, across deaths, is in monitor.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from servers.vmm.keeper import NS_PER_MS, answer
from servers.vmm.qemu import commands
from servers.vmm.qemu.clock import Clock
from servers.vmm.qemu.monitor import BadState, Monitor, unpacked
from servers.vmm.qemu.qmp import Failed, Work
from ukernel.abi.vm import (
    EMPTY,
    FAILED,
    PAUSED,
    RUNNING,
    BadImage,
    ExitCount,
    Moments,
    VirtualMachine,
    VmFailed,
    VmStatus,
    WrongState,
)
from ukernel.lib.way import Pending

R = TypeVar("R")
T = TypeVar("T")


class Qemu(Monitor, VirtualMachine):
    # --- what it does ---------------------------------------------------------------------------

    def status(self) -> VmStatus:
        state, settings = self.guest, self.settings
        if state == FAILED and self.machine is None:
            return VmStatus(self.kind, FAILED, settings.memory, 0, 0, 0, [], 0, 0, 0, 0, 0, 0)
        machine = self.made
        disk, nic = machine.disk, machine.nic
        return VmStatus(
            engine=self.kind,
            state=state,
            memory=settings.memory,
            uptime_ms=self.clock.at(time.monotonic_ns()) // NS_PER_MS,
            slices=machine.slices,
            run_us=machine.cpu_ns // 1000,
            exits=self._exits(),
            faults=disk.errors if disk is not None else 0,
            resets=self.resets,
            snapshots=self.snapshots_taken,
            snapshot_age_ms=self.snapshot_age_ms,
            snapshot_pause_us=self.snapshot_pause_ns // 1000,
            restored_from_ms=self.restored_from_ms,
            disk_requests=disk.reads + disk.writes + disk.flushes if disk is not None else 0,
            frames_sent=nic.sent if nic is not None else 0,
            frames_received=nic.received if nic is not None else 0,
            moments=Moments(*self.moments),
        )

    def _exits(self) -> list[ExitCount]:
        """How often what is QEMU's is left for what is ours."""
        machine = self.made
        found = []
        if machine.disk is not None:
            disk = machine.disk
            found.append(ExitCount("block", disk.reads + disk.writes + disk.flushes))
        if machine.nic is not None:
            found.append(ExitCount("ethernet", machine.nic.sent + machine.nic.received))
        return found

    def pause(self) -> None:
        self.check(RUNNING, PAUSED)
        pending: Pending[None] = self.pending()
        self.stand()
        self.made.do(commands.stand, partial(self._stood, pending))
        return pending.later

    def _stood(self, pending: Pending[None], outcome: int | Failed) -> None:
        if not isinstance(outcome, Failed):
            self.clock.stop(outcome)
        elif self.guest != PAUSED or self.made.up:  # else the next QEMU stands still
            pending.fail(VmFailed(outcome.why))
            return
        pending.answer(None)

    def resume(self) -> None:
        self.check(RUNNING, PAUSED)
        self.melt()
        if self.guest == PAUSED:
            self.run_on()

    def enter(self, data: bytes) -> int:
        self.check(RUNNING, PAUSED)
        return self.made.feed(data) if self.begun else 0

    # --- going elsewhere ------------------------------------------------------------------------

    def save(self) -> int:
        self.check(RUNNING, PAUSED)
        if self.stands_in is None and not self.made.up:
            raise VmFailed("it is about to be reset")
        self.stand()
        if self.stands_in is not None:
            return self.freeze(self.stands_in)
        pending: Pending[int] = self.pending()
        copy = partial(commands.copy, keep=self.write, runs=False)
        self._ask(copy, pending, partial(self._stands_in, self.let_go))
        return pending.later

    def _stands_in(self, let_go: int, copied: commands.Copied) -> int:
        """Have an image of what was copied, if it stands since: it was let go so often then."""
        self.has_stood(copied)
        if let_go != self.let_go:
            raise WrongState("it was resumed meanwhile")
        self.stands_in = copied.kept
        return self.freeze(copied.kept)

    def start_loaded(self) -> None:
        self.check(EMPTY)
        return self.when_idle(self._thaw).later

    def _thaw(self, pending: Pending[None]) -> None:
        machine = self.made
        try:
            found = self.thaw()
            ran_ns, state = unpacked(found.state, self.kind)
        except BadImage as error:
            pending.fail(error)
            return
        except BadState as error:
            pending.fail(BadImage(str(error)))
            return

        def begun(outcome: Failed | None) -> None:
            if outcome is not None:
                machine.close()
                pending.fail(BadImage(f"QEMU does not go on from it: {outcome.why}"))
                return
            self.clock = Clock(ran_ns)
            machine.do(partial(commands.copy, keep=self.write, runs=False), copied)

        def copied(outcome: commands.Copied | Failed) -> None:
            """A death goes on from here. It does not run before that says so, or it might run here
            and where it came from."""
            if isinstance(outcome, Failed):
                machine.close()
                pending.fail(VmFailed(outcome.why))
                return
            self.transcript.adopt(found.end, found.tail)
            self.has_begun()
            self.run_on()
            pending.answer(None)

        try:
            machine.start(state, begun)
        except OSError as error:
            pending.fail(VmFailed(f"QEMU cannot be started: {error}"))

    def discard(self) -> None:
        if self.machine is None:
            raise VmFailed(self.why)
        self.empty()

    # --- what is asked of QEMU ------------------------------------------------------------------

    def _ask(self, work: Work[R], pending: Pending[T], done: Callable[[R], T]) -> None:
        """Answer with what `done` makes of it."""

        def told(outcome: R | Failed) -> None:
            if isinstance(outcome, Failed):
                pending.fail(VmFailed(outcome.why))
            else:
                answer(pending, partial(done, outcome))

        self.made.do(work, told)
