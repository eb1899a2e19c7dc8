"""transport: the virtio-mmio register window (virtio 1.2 §4.2) in front of every virtio device.

No register access raises: an unknown register reads as zero, and a store that the rules forbid
changes nothing. No queue work happens before DRIVER_OK, after a fault, or after a reset. What the
driver does wrong in memory is logged, sets DEVICE_NEEDS_RESET unless the request can say that it
failed, and concerns no other device.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from ukernel.abi import virtio
from ukernel.abi.virtio import Interrupt, Reg, Status
from ukernel.lib.virtio.dma import DmaFault, Domain, FaultLog
from ukernel.lib.virtio.queue import Chain, DeviceQueue, QueueAddresses, QueueFault
from ukernel.lib.virtio.state import BadState, DeviceState, QueueState, pack, unpack

LOW = 0xFFFF_FFFF
DRIVER_SETS = (
    Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK | Status.DRIVER_OK | Status.FAILED
)
TOTAL_STORE_ORDER = platform.machine() == "x86_64"  # elsewhere a lock is no full fence
RUNNING = Status.DRIVER_OK + 0
STOPPED = RUNNING | Status.NEEDS_RESET | Status.FAILED


@dataclass
class QueueRegisters:
    """The registers behind QueueSel, for one queue."""

    size_max: int
    size: int = 0
    ready: bool = False
    desc: int = 0
    driver: int = 0
    device: int = 0
    live: DeviceQueue | None = None

    def state(self) -> QueueState:
        position = self.live.position if self.live else None
        return QueueState(self.size, self.ready, self.desc, self.driver, self.device, position)


class VirtioMmio:
    """A virtio device as its bus sees it. A model says what it is and overrides `handle`.

    `interrupt` is called once per edge, as with MSI-X: whether or not the last was acknowledged.
    `backlog` asks the bus to call `doorbell` again, after the other devices had their turn.
    `requests` is where `serve` gets its chains, so that some can be held back.
    """

    device_id: ClassVar[int]
    queue_sizes: ClassVar[tuple[int, ...]]  # the largest size of each queue
    has_status: ClassVar[bool] = False  # a request can end with an error, and the device goes on

    def __init__(self, name: str, domain: Domain, interrupt: Callable[[], None]) -> None:
        self.name = name
        self.domain = domain
        self.interrupt = interrupt
        self.features = virtio.F_VERSION_1 | (virtio.F_EVENT_IDX if TOTAL_STORE_ORDER else 0)
        self.config_space = b""
        self.requests: Callable[[DeviceQueue], Iterator[Chain]] = DeviceQueue.batch
        self.reset()

    @property
    def faults(self) -> FaultLog:
        return self.domain.faults

    def handle(self, index: int, chain: Chain) -> int:
        """Do one request of queue `index`; how many bytes were written into it, from its start.

        May raise QueueFault for a request that is not one, and nothing else.
        """
        raise NotImplementedError

    def serve(self, index: int, queue: DeviceQueue) -> bool:
        """Do one batch of queue `index`; whether work is left."""
        for chain in self.requests(queue):
            queue.give(chain, self.handle(index, chain))
        return not queue.listen()

    def reset(self) -> None:
        """As after power-on (§2.4). Nothing of the old queues is ever looked at again."""
        self.status = 0
        self.backlog = False
        self.accepted = 0
        self._features_sel = self._accepted_sel = self._queue_sel = 0
        self._interrupt_status = 0
        self._queues = [QueueRegisters(size) for size in self.queue_sizes]

    def load(self, offset: int) -> int:
        """The 32-bit register at `offset`."""
        if offset >= Reg.CONFIG:
            return int.from_bytes(self.config(offset - Reg.CONFIG, 4), "little")
        read = _LOADS.get(offset)
        return read(self) & LOW if read else 0

    def store(self, offset: int, value: int) -> None:
        """Set the 32-bit register at `offset`."""
        write = _STORES.get(offset)
        if write:
            write(self, value & LOW)

    def config(self, offset: int, length: int) -> bytes:
        """Bytes of the configuration space; fewer where it ends."""
        return self.config_space[max(offset, 0) : max(offset, 0) + max(length, 0)]

    def doorbell(self) -> None:
        """The driver rang, or there was a backlog: look at every queue."""
        self.backlog = False
        for index in range(len(self._queues)):
            self.notify(index)

    def notify(self, index: int) -> None:
        """Do a bounded amount of the work in queue `index`; never raises."""
        if self.status & STOPPED != RUNNING or index >= len(self._queues):
            return
        try:
            queue = self._live(self._queues[index])
            if queue is not None:
                self.backlog |= self.serve(index, queue)
                self._tell_used(queue)
        except QueueFault as fault:
            self.faults.record(f"queue {index}: {fault}")
            self._fail()
        except DmaFault:  # the domain has recorded it
            self._fail()

    def _live(self, regs: QueueRegisters) -> DeviceQueue | None:
        if regs.ready and regs.live is None:
            where = QueueAddresses(regs.size, regs.desc, regs.driver, regs.device)
            regs.live = DeviceQueue(
                self.domain, where, bool(self.accepted & virtio.F_EVENT_IDX), self.has_status
            )
        return regs.live

    def _tell_used(self, queue: DeviceQueue) -> None:
        if queue.wants_interrupt():
            self._interrupt_status |= Interrupt.USED_BUFFER
            self.interrupt()

    def _fail(self) -> None:
        """§2.1.2: an error state, and a configuration change to tell of it."""
        self.status |= Status.NEEDS_RESET
        self.backlog = False
        for regs in self._queues:
            regs.live = None
        self._interrupt_status |= Interrupt.CONFIG_CHANGE
        self.interrupt()

    # --- going on elsewhere ---------------------------------------------------------------------

    def save(self) -> bytes:
        """What is not in the driver's memory, for `restore`, while nothing is being served."""
        queues = [regs.state() for regs in self._queues]
        return pack(
            DeviceState(
                self.device_id,
                self.status,
                self.accepted,
                self._features_sel,
                self._accepted_sel,
                self._queue_sel,
                self._interrupt_status,
                queues,
                self.save_model(),
            )
        )

    def restore(self, data: bytes) -> None:
        """Go on from what `save` gave, with the memory as it was then; `doorbell` afterwards.

        Raises BadState, and then the device is as after a reset.
        """
        self.reset()
        try:
            self._restore(unpack(data))
        except (QueueFault, DmaFault) as fault:
            self.reset()
            raise BadState(str(fault)) from None
        except BadState:
            self.reset()
            raise

    def save_model(self) -> Any:
        """What a model keeps besides, as plain data; `restore_model` gets it."""
        return None

    def restore_model(self, state: Any) -> None:
        """Raises BadState when it is not that, QueueFault or DmaFault as `serve` may."""

    def _restore(self, state: DeviceState) -> None:
        sizes = [regs.size_max for regs in self._queues]
        if state.kind != self.device_id or len(state.queues) != len(sizes):
            raise BadState(f"{self.name} is no device of kind {state.kind}")
        if state.accepted & ~self.features:
            raise BadState(f"{self.name} does not have the features {state.accepted:#x}")
        self.status, self.accepted = state.status, state.accepted
        self._features_sel, self._accepted_sel = state.features_sel, state.accepted_sel
        self._queue_sel, self._interrupt_status = state.queue_sel, state.interrupt_status
        for regs, saved in zip(self._queues, state.queues, strict=True):
            if saved.size > regs.size_max or (saved.ready and not saved.size):
                raise BadState(f"{self.name} has no queue of {saved.size}")
            regs.size, regs.ready = saved.size, saved.ready
            regs.desc, regs.driver, regs.device = saved.desc, saved.driver, saved.device
            if saved.position is not None and (queue := self._live(regs)) is not None:
                queue.go_on(saved.position)
        self.restore_model(state.model)

    def _load_features(self) -> int:
        return self.features >> (32 * self._features_sel) if self._features_sel < 2 else 0

    def _selected(self) -> QueueRegisters:
        """The queue of QueueSel; one without room when there is none."""
        at = self._queue_sel
        return self._queues[at] if at < len(self._queues) else QueueRegisters(0)

    def _store_status(self, value: int) -> None:
        if value == 0:
            self.reset()
            return
        status = self.status | value & DRIVER_SETS
        if status & Status.FEATURES_OK and not self._features_agreed():
            status &= ~Status.FEATURES_OK
        if not status & Status.FEATURES_OK:
            status &= ~Status.DRIVER_OK  # §3.1.1: the steps have an order
        self.status = status

    def _features_agreed(self) -> bool:
        """§2.2, §6.1: a subset of the offer, and VERSION_1 in it."""
        return not self.accepted & ~self.features and bool(self.accepted & virtio.F_VERSION_1)

    def _store_accepted(self, value: int) -> None:
        if self.status & Status.FEATURES_OK or self._accepted_sel > 1:
            return  # §2.2.1: what was agreed stays agreed
        shift = 32 * self._accepted_sel
        self.accepted = self.accepted & ~(LOW << shift) | value << shift

    def _store_queue_num(self, value: int) -> None:
        regs = self._selected()
        if not regs.ready and virtio.valid_queue_size(value) and value <= regs.size_max:
            regs.size = value

    def _store_queue_ready(self, value: int) -> None:
        regs = self._selected()
        regs.ready = bool(value & 1 and regs.size)
        if not regs.ready:
            regs.live = None

    def _store_interrupt_ack(self, value: int) -> None:
        self._interrupt_status &= ~value

    def _store_features_sel(self, value: int) -> None:
        self._features_sel = value

    def _store_accepted_sel(self, value: int) -> None:
        self._accepted_sel = value

    def _store_queue_sel(self, value: int) -> None:
        self._queue_sel = value


def _half(field: str, shift: int) -> Callable[[VirtioMmio, int], None]:
    """A store into one half of a 64-bit queue address, refused while the queue is ready."""

    def store(device: VirtioMmio, value: int) -> None:
        regs = device._selected()
        if not regs.ready:
            kept = getattr(regs, field) & ~(LOW << shift)
            setattr(regs, field, kept | value << shift)

    return store


_LOADS: dict[int, Callable[[VirtioMmio], int]] = {
    Reg.MAGIC: lambda _: virtio.MAGIC,
    Reg.VERSION: lambda _: virtio.VERSION,
    Reg.DEVICE_ID: lambda device: device.device_id,
    Reg.VENDOR_ID: lambda _: virtio.VENDOR,
    Reg.DEVICE_FEATURES: VirtioMmio._load_features,
    Reg.QUEUE_NUM_MAX: lambda device: device._selected().size_max,
    Reg.QUEUE_READY: lambda device: device._selected().ready,
    Reg.INTERRUPT_STATUS: lambda device: device._interrupt_status,
    Reg.STATUS: lambda device: device.status,
    Reg.SHM_LEN_LOW: lambda _: LOW,  # §4.2.2: -1 says that there is no such region
    Reg.SHM_LEN_HIGH: lambda _: LOW,
}

_STORES: dict[int, Callable[[VirtioMmio, int], None]] = {
    Reg.DEVICE_FEATURES_SEL: VirtioMmio._store_features_sel,
    Reg.DRIVER_FEATURES: VirtioMmio._store_accepted,
    Reg.DRIVER_FEATURES_SEL: VirtioMmio._store_accepted_sel,
    Reg.QUEUE_SEL: VirtioMmio._store_queue_sel,
    Reg.QUEUE_NUM: VirtioMmio._store_queue_num,
    Reg.QUEUE_READY: VirtioMmio._store_queue_ready,
    Reg.QUEUE_NOTIFY: VirtioMmio.notify,
    Reg.INTERRUPT_ACK: VirtioMmio._store_interrupt_ack,
    Reg.STATUS: VirtioMmio._store_status,
    Reg.QUEUE_DESC_LOW: _half("desc", 0),
    Reg.QUEUE_DESC_HIGH: _half("desc", 32),
    Reg.QUEUE_DRIVER_LOW: _half("driver", 0),
    Reg.QUEUE_DRIVER_HIGH: _half("driver", 32),
    Reg.QUEUE_DEVICE_LOW: _half("device", 0),
    Reg.QUEUE_DEVICE_HIGH: _half("device", 32),
}
