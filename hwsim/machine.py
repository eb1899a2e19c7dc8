"""machine: the simulated hardware as one process: a bus of devices behind the kernel.

It is hardware: it trusts no driver. A register access is a call whose badge, set by the kernel,
names device and epoch; a doorbell and an interrupt are eventfds; memory is what the kernel has
mapped. A new driver life means a reset, an empty IOMMU domain and fresh lines. Badge 0, which no
driver holds, asks for what is to go wrong.
"""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from hwsim.cache import CachedDisk
from hwsim.faults import Defects
from hwsim.hardware import Hardware
from hwsim.image import Image, ImageError
from hwsim.iommu import Iommu
from hwsim.line import SerialLine
from hwsim.patchbay import Patchbay, PatchError
from hwsim.seat import Seat
from hwsim.timer import Timer
from ukernel.abi import syscalls, wire
from ukernel.abi.captures import Captured, CaptureFailed, Captures, CardRow
from ukernel.abi.faults import DeviceFaults, Landed, NoSuchDevice
from ukernel.abi.interface import Operation
from ukernel.lib.bell import ring
from ukernel.lib.mapping import map_shared
from ukernel.lib.server import Server
from ukernel.lib.stub import kernel
from ukernel.lib.virtio.blk import Blk
from ukernel.lib.virtio.console import Console
from ukernel.lib.virtio.dma import Fault
from ukernel.lib.virtio.net import Net
from ukernel.lib.virtio.rng import Rng

LOUD_FAULTS = 64  # of one device; then only the 128th, the 256th and so on are told in the log
MOMENT_NS = 1_000_000  # for a driver to take an interrupt, before the next is another one


class KernelPort(syscalls.Machine):
    """What the kernel asks of the bus: memory for the devices."""

    def __init__(self, machine: MachineServer) -> None:
        self._machine = machine

    def map(self, device: int, iova: int, size: int, writable: bool, tag: int) -> int:
        (fd,) = self._machine.connection.descriptors(tag)
        memory = map_shared(fd, size, writable=writable)
        os.close(fd)
        if 0 <= device < len(self._machine.seats):
            self._machine.seats[device].domain.map(iova, size, writable, memory)
        return iova


class Deferred(NamedTuple):
    """Something that is to happen."""

    due_ns: int
    number: int  # of those at the same time, the first asked for comes first
    action: Callable[[], None]


class MachineServer(Server, DeviceFaults, Captures):
    """The bus. `args` holds the devices in the order of their numbers."""

    ops: ClassVar[dict[int, Operation]] = {**DeviceFaults.ops, **Captures.ops}
    answers = (*DeviceFaults.answers, *Captures.answers)

    def setup(self) -> None:
        self.objects[syscalls.KERNEL_BADGE] = KernelPort(self)
        self.seats: list[Seat] = []
        self._deferred: list[Deferred] = []  # a heap
        self._numbers = count()
        self.patchbay = Patchbay(self, self.args.get("descriptors", {}), self.at)
        for index, spec in enumerate(self.args["devices"]):
            self.seats.append(self._plug_in(index, spec))

    def _plug_in(self, index: int, spec: dict[str, Any]) -> Seat:
        seat = Seat(index, Iommu(spec["name"], lambda fault: self._report(index, fault)))
        seat.device = MODELS[spec["model"]](self, spec, seat)
        seat.defects = Defects(seat.device, self._later)
        return seat

    def _report(self, index: int, fault: Fault) -> None:
        number = self.seats[index].device.faults.total
        if number <= LOUD_FAULTS or number & (number - 1) == 0:  # the log must not fill a disk
            print(f"{fault.device}: driver {fault.driver}: {fault.why}", flush=True)
        kernel(self.connection).device_fault(index, fault.why)

    # --- what an experiment asks ----------------------------------------------------------------

    def break_device(
        self, device: str, fault: str, count: int, probability: float, seed: int
    ) -> None:
        self._named(device).defects.plan(fault, count, probability, seed)

    def mend(self) -> None:
        for seat in self.seats:
            seat.defects.mend()
            self._go_on(seat)

    def broken(self) -> list[Landed]:
        return [
            Landed(seat.device.name, fault, times)
            for seat in self.seats
            for fault, times in seat.defects.landed.items()
        ]

    # --- what is asked about network cards ------------------------------------------------------

    def start_capture(self, device: str, path: str) -> None:
        try:
            self.patchbay.start_capture(self._card(device), path)
        except OSError as error:
            raise CaptureFailed(f"{path}: {error.strerror}") from None

    def stop_capture(self, device: str) -> Captured:
        captured = self.patchbay.stop_capture(self._card(device))
        if captured is None:
            raise CaptureFailed(f"frames of {device} are not being captured")
        return captured

    def cards(self) -> list[CardRow]:
        return [
            self.patchbay.row(seat.device) for seat in self.seats if isinstance(seat.device, Net)
        ]

    def _card(self, device: str) -> Net:
        found = self._named(device).device
        if not isinstance(found, Net):
            raise NoSuchDevice(f"{device} is no network card")
        return found

    def stopping(self) -> None:
        self.patchbay.close()

    # --- devices --------------------------------------------------------------------------------

    def _named(self, device: str) -> Seat:
        for seat in self.seats:
            if seat.device.name == device:
                return seat
        known = ", ".join(seat.device.name for seat in self.seats)
        raise NoSuchDevice(f"the machine has no device {device!r}, only {known}")

    # --- what the kernel says -------------------------------------------------------------------

    def notice(self, kind: int, body: Any) -> None:
        if kind == wire.NOTICE_DEVICE:
            self._change_driver(*body)
        elif kind == wire.NOTICE_UNMAP:
            index, iova = body
            self.seats[index].domain.unmap(iova)
        else:
            super().notice(kind, body)

    def _change_driver(self, index: int, epoch: int, driver: str, tag: int) -> None:
        """Quiesce, forget the former driver, and begin the epoch of the next."""
        seat = self.seats[index]
        self.objects.pop(seat.badge, None)
        seat.device.reset()
        seat.domain.assign(driver)
        self._cut_lines(seat)
        if tag:
            seat.doorbell, seat.line = self.connection.descriptors(tag)
            self.watch_line(seat.doorbell, lambda: self._rung(seat))
            self.export(seat, index | epoch << 16)
        self._set_alarm()

    def _cut_lines(self, seat: Seat) -> None:
        if seat.doorbell >= 0:
            self.unwatch(seat.doorbell)
            os.close(seat.doorbell)
            os.close(seat.line)
            seat.doorbell = seat.line = -1

    # --- what the drivers do --------------------------------------------------------------------

    def _rung(self, seat: Seat) -> None:
        seat.device.doorbell()
        self._go_on(seat)

    def look_again(self, seat: Seat) -> None:
        """Have another turn of this device, when the others have had theirs."""
        if seat.doorbell >= 0:
            ring(seat.doorbell)

    def _go_on(self, seat: Seat) -> None:
        if seat.device.backlog:
            self.look_again(seat)

    def _serve_call(self, m: wire.Message) -> None:
        super()._serve_call(m)
        self._set_alarm()  # a register may have armed a timer

    # --- what time brings -----------------------------------------------------------------------

    def alarmed(self) -> None:
        now = time.monotonic_ns()
        for seat in self.seats:
            if isinstance(seat.device, Timer):
                seat.device.expire(now)
        while self._deferred and self._deferred[0].due_ns <= now:
            heapq.heappop(self._deferred).action()
        self._set_alarm()

    def at(self, due_ns: int, action: Callable[[], None]) -> None:
        """Do something when the clock (CLOCK_MONOTONIC) shows that."""
        heapq.heappush(self._deferred, Deferred(due_ns, next(self._numbers), action))
        self._set_alarm()

    def _later(self, action: Callable[[], None]) -> None:
        self.at(time.monotonic_ns() + MOMENT_NS, action)

    def _set_alarm(self) -> None:
        self.alarm_ns = min(self._deadlines(), default=0)

    def _deadlines(self) -> Iterator[int]:
        for seat in self.seats:
            if isinstance(seat.device, Timer) and (due := seat.device.next_deadline()) is not None:
                yield due or 1
        if self._deferred:
            yield self._deferred[0].due_ns


def _blk(_: MachineServer, spec: dict[str, Any], seat: Seat) -> Blk:
    image = Image(spec["image"], spec["size"], spec["read_only"])
    return Blk(spec["name"], seat.domain, seat.interrupt, CachedDisk(image, spec["cache"]))


def _net(machine: MachineServer, spec: dict[str, Any], seat: Seat) -> Net:
    cable, mac = machine.patchbay.plug(spec), bytes.fromhex(spec["mac"].replace(":", ""))
    card = Net(spec["name"], seat.domain, seat.interrupt, cable, mac, spec["mtu"], spec["offload"])
    card.look_again = lambda: machine.look_again(seat)
    if spec["capture"] is not None:
        machine.patchbay.capture_from_boot(card, spec["capture"])
    return card


def _console(machine: MachineServer, spec: dict[str, Any], seat: Seat) -> Console:
    line = SerialLine(Path(machine.args["dir"]), spec["name"], machine)
    console = Console(spec["name"], seat.domain, seat.interrupt, line.show)
    line.typed = console.feed
    return console


def _rng(_: MachineServer, spec: dict[str, Any], seat: Seat) -> Rng:
    return Rng(spec["name"], seat.domain, seat.interrupt, spec["seed"])


def _timer(_: MachineServer, spec: dict[str, Any], seat: Seat) -> Timer:
    return Timer(spec["name"], seat.domain, seat.interrupt, time.monotonic_ns)


MODELS: dict[str, Callable[[MachineServer, dict[str, Any], Seat], Hardware]] = {
    "virtio-blk": _blk,
    "virtio-net": _net,
    "virtio-console": _console,
    "virtio-rng": _rng,
    "timer": _timer,
}


def main() -> None:
    try:
        MachineServer.run()
    except (ImageError, PatchError) as error:
        raise SystemExit(str(error)) from None
