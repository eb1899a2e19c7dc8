"""server: a virtual machine as an interface. Its life, across deaths, is in monitor.py.

    vm-a: {run: servers.vmm, serves: vm, state: persistent, calls: [{parts: {badge: 1}}],
           args: {image: heartbeat, memory: 4MiB, share: 40, disk: parts, snapshot_every_ms: 500}}

`vms:` in a system file says the same in fewer words.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from servers.vmm import image
from servers.vmm.image import Image
from servers.vmm.machine import BadMachine
from servers.vmm.monitor import NS_PER_MS, Monitor
from servers.vmm.runner import Runner
from servers.vmm.wish import Wish
from ukernel.abi import wire
from ukernel.abi.errors import Answer
from ukernel.abi.vm import (
    EMPTY,
    FAILED,
    HALTED,
    PAUSED,
    PIECE_BYTES,
    RUNNING,
    BadImage,
    ExitCount,
    Output,
    VirtualMachine,
    VmFailed,
    VmStatus,
    WrongState,
)
from ukernel.lib.way import Pending

T = TypeVar("T")
TAIL = 16 << 10  # bytes of output that go with an image


class Vmm(Monitor, VirtualMachine):
    def setup(self) -> None:
        self._frozen: Image | None = None
        self._loaded = 0  # bytes of an image
        super().setup()

    # --- what it does ---------------------------------------------------------------------------

    def status(self) -> VmStatus:
        runner, settings = self.runner, self.settings
        if runner is None:
            return VmStatus(settings.engine, FAILED, settings.memory, 0, 0, 0, [], 0, 0, 0, 0, 0, 0)
        since_ns = time.monotonic_ns() - self.snapshot_at_ns if self.snapshot_at_ns else 0
        return VmStatus(
            engine=settings.engine,
            state=runner.state,
            memory=settings.memory,
            uptime_ms=self.machine.board.now_ns() // NS_PER_MS,
            slices=runner.slices,
            run_us=runner.run_ns // 1000,
            exits=[ExitCount(kind.value, times) for kind, times in sorted(runner.exits.items())],
            faults=runner.faults + self.machine.faults,
            resets=runner.resets,
            snapshots=self.snapshots_taken,
            snapshot_age_ms=since_ns // NS_PER_MS,
            snapshot_pause_us=self.snapshot_pause_ns // 1000,
            restored_from_ms=self.restored_from_ms,
        )

    def pause(self) -> None:
        runner = self._in(RUNNING, PAUSED)
        self.wishes.write(Wish.STAND)
        runner.pause()
        self.machine.plug(False)

    def resume(self) -> None:
        runner = self._in(RUNNING, PAUSED)
        self._frozen = None
        if runner.state == PAUSED:
            self.run_on(runner)

    def output(self, at: int) -> Output:
        return self.show(at)

    def enter(self, data: bytes) -> int:
        self._in(RUNNING, PAUSED)
        return self.machine.feed(data)

    # --- going elsewhere ------------------------------------------------------------------------

    def save(self) -> int:
        self.pause()
        pending: Pending[int] = self.pending()
        self.when_idle(lambda: _answer(pending, self._freeze))
        return pending.later

    def _freeze(self) -> int:
        """It stands in a snapshot now: a death does not change it, and the image is read there."""
        runner = self._in(PAUSED)
        taken = self.copy(runner)
        end = self.transcript.end
        tail = self.transcript.read(end - min(end, TAIL), TAIL)[1]
        self._frozen = Image(wire.pack([taken.state, end, tail]), taken.memory)
        return self._frozen.size

    def image(self, offset: int) -> bytes:
        if self._frozen is None:
            raise WrongState("nothing is saved, or it has been resumed since: save it")
        return self._frozen.read(offset, PIECE_BYTES)

    def load(self, offset: int, data: bytes) -> None:
        self._in(EMPTY)
        room = self.snapshots.spare
        self._loaded = 0 if offset == 0 else self._loaded
        if offset > self._loaded or len(data) > PIECE_BYTES:
            raise BadImage(f"a piece of {len(data)} bytes at {offset}, after {self._loaded} bytes")
        if offset + len(data) > len(room):
            raise BadImage(f"it does not fit into {self.settings.memory} bytes of memory")
        room[offset : offset + len(data)] = data
        self._loaded = max(self._loaded, offset + len(data))

    def start_loaded(self) -> None:
        self._in(EMPTY)
        pending: Pending[None] = self.pending()
        self.when_idle(lambda: _answer(pending, self._thaw))
        return pending.later

    def _thaw(self) -> None:
        runner = self._in(EMPTY)
        data, self._loaded = self.snapshots.spare[: self._loaded], 0
        try:
            packed = image.state_of(data, self.settings.memory)
            state, end, tail = wire.unpack(packed)
            image.unfold(data, self.machine.ram.view)
            self.machine.restore(state)
            self.transcript.adopt(end, tail)
        except (image.BadImage, BadMachine) as error:
            raise BadImage(str(error)) from None
        except (wire.Malformed, TypeError, ValueError) as error:
            raise BadImage(f"it is not what a monitor has made: {error}") from None
        runner.restored()
        self.copy(runner)  # a death goes on from here, and not from its program
        if runner.state == PAUSED:
            self.run_on(runner)
        else:
            self.wishes.write(Wish.RUN)

    def discard(self) -> None:
        if self.runner is None:
            raise VmFailed(self.why)
        self.wishes.write(Wish.EMPTY)
        self.snapshots.clear()
        self._frozen, self._loaded, self.snapshot_at_ns = None, 0, 0
        self.runner.empty()
        self.machine.plug(False)

    def _in(self, *states: str) -> Runner:
        """It has to be in one of them."""
        runner = self.runner
        if runner is None or (runner.state == FAILED and FAILED not in states):
            raise VmFailed(runner.why if runner is not None else self.why)
        if runner.state not in states:
            more = "; it has switched itself off" if runner.state == HALTED else ""
            raise WrongState(f"it is {runner.state}, and not {' or '.join(states)}{more}")
        return runner


def _answer(pending: Pending[T], do: Callable[[], T]) -> None:
    """Answer with what it comes to."""
    try:
        result = do()
    except Answer as error:
        pending.fail(error)
    else:
        pending.answer(result)
