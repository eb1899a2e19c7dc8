"""server: a virtual machine as an interface. Its life, across deaths, is in monitor.py.

    vm-a: {run: servers.vmm, serves: vm, state: persistent, calls: [{parts: {badge: 1}}],
           args: {image: heartbeat, memory: 4MiB, share: 40, disk: parts, snapshot_every_ms: 500}}

`vms:` in a system file says the same in fewer words.
"""

from __future__ import annotations

from servers.vmm.keeper import NS_PER_MS, answer
from servers.vmm.machine import BadMachine
from servers.vmm.monitor import Monitor
from servers.vmm.runner import Runner
from servers.vmm.wish import Wish
from ukernel.abi.vm import (
    EMPTY,
    FAILED,
    PAUSED,
    RUNNING,
    BadImage,
    ExitCount,
    FaultCount,
    Moments,
    VirtualMachine,
    VmFailed,
    VmStatus,
)
from ukernel.lib.way import Pending


class Vmm(Monitor, VirtualMachine):
    # --- what it does ---------------------------------------------------------------------------

    def status(self) -> VmStatus:
        runner, settings = self.runner, self.settings
        if runner is None:
            return VmStatus(settings.engine, FAILED, settings.memory, 0, 0, 0, [], 0, 0, 0, 0, 0, 0)
        return VmStatus(
            engine=settings.engine,
            state=runner.state,
            memory=settings.memory,
            uptime_ms=self.machine.board.now_ns() // NS_PER_MS,
            slices=runner.slices,
            run_us=runner.run_ns // 1000,
            exits=self._exits(runner),
            faults=sum(runner.wrongs.values()),
            resets=runner.resets,
            snapshots=self.snapshots_taken,
            snapshot_age_ms=self.snapshot_age_ms,
            snapshot_pause_us=self.snapshot_pause_ns // 1000,
            restored_from_ms=self.restored_from_ms,
            disk_requests=self.machine.disk.finished if self.machine.disk is not None else 0,
            frames_sent=self.machine.nic.sent if self.machine.nic is not None else 0,
            frames_received=self.machine.nic.received if self.machine.nic is not None else 0,
            moments=Moments(*self.moments),
            faults_by=[FaultCount(*wrong) for wrong in runner.wrongs.items()],
        )

    def _exits(self, runner: Runner) -> list[ExitCount]:
        found = [ExitCount(kind.value, times) for kind, times in runner.exits.items()]
        return sorted([*found, ExitCount("device", self.machine.board.accesses)])

    def pause(self) -> None:
        runner = self._in(RUNNING, PAUSED)
        self.wishes.write(Wish.STAND)
        runner.pause()
        self.machine.plug(False)

    def resume(self) -> None:
        runner = self._in(RUNNING, PAUSED)
        self.melt()
        if runner.state == PAUSED:
            self.run_on(runner)

    def enter(self, data: bytes) -> int:
        self._in(RUNNING, PAUSED)
        return self.machine.feed(data)

    # --- going elsewhere ------------------------------------------------------------------------

    def save(self) -> int:
        self.pause()
        pending: Pending[int] = self.when_idle(lambda pending: answer(pending, self._freeze))
        return pending.later

    def _freeze(self) -> int:
        """It stands in a snapshot now: a death does not change it, and the image is read there."""
        runner = self._in(PAUSED)
        if not runner.whole:
            raise VmFailed("it is about to be reset")
        return self.freeze(self.copy(runner))

    def start_loaded(self) -> None:
        self._in(EMPTY)
        pending: Pending[None] = self.when_idle(lambda pending: answer(pending, self._thaw))
        return pending.later

    def _thaw(self) -> None:
        runner = self._in(EMPTY)
        found = self.thaw()
        try:
            self.machine.restore(found.state)
        except BadMachine as error:
            raise BadImage(str(error)) from None
        self.transcript.adopt(found.end, found.tail)
        runner.restored()
        self.copy(runner)  # a death goes on from here, and not from its program
        if runner.state == PAUSED:
            self.run_on(runner)
        else:
            self.wishes.write(Wish.RUN)

    def discard(self) -> None:
        if self.runner is None:
            raise VmFailed(self.why)
        self.give_up()
        self.runner.empty()
        self.machine.plug(False)

    def condition(self) -> tuple[str, str]:
        runner = self.runner
        return (runner.state, runner.why) if runner is not None else (FAILED, self.why)

    @property
    def guest_memory(self) -> memoryview:
        return self.machine.ram.view

    def _in(self, *states: str) -> Runner:
        """It has to be in one of them."""
        self.check(*states)
        assert self.runner is not None, "it has failed"
        return self.runner
