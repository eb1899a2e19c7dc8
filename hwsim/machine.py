"""machine: the simulated hardware as one process: a bus of devices behind the kernel.

It is hardware: it trusts no driver. A register access is a call whose badge, set by the kernel,
names device and epoch; a doorbell and an interrupt are eventfds; memory is what the kernel has
mapped. A new driver life means a reset, an empty IOMMU domain and fresh lines.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hwsim.blk import Blk
from hwsim.cache import CachedDisk
from hwsim.console import Console
from hwsim.hardware import Hardware
from hwsim.image import Image, ImageError
from hwsim.iommu import Fault, Iommu
from hwsim.line import SerialLine
from hwsim.rng import Rng
from hwsim.timer import Timer
from ukernel.abi import syscalls, wire
from ukernel.abi.services import Access, Registers
from ukernel.lib.server import Server
from ukernel.lib.stub import kernel


class Seat(Registers):
    """A device's place on the bus: its register window for one epoch, and its lines."""

    device: Hardware  # made with this seat's interrupt line

    def __init__(self, index: int) -> None:
        self.index = index
        self.doorbell = -1
        self.line = -1

    def load(self, offset: int) -> int:
        return self.device.load(offset)

    def store(self, offset: int, value: int) -> None:
        self.device.store(offset, value)

    def config(self, offset: int, length: int) -> bytes:
        return self.device.config(offset, length)

    def burst(self, accesses: list[Access]) -> list[int]:
        loaded = []
        for offset, store, value in accesses:
            if store:
                self.device.store(offset, value)
            else:
                loaded.append(self.device.load(offset))
        return loaded

    def interrupt(self) -> None:
        if self.line >= 0:
            os.eventfd_write(self.line, 1)


class MachineServer(Server, syscalls.Machine):
    """The bus. `args` holds the devices in the order of their numbers."""

    def setup(self) -> None:
        self.objects[syscalls.KERNEL_BADGE] = self
        self.seats: list[Seat] = []
        for index, spec in enumerate(self.args["devices"]):
            self.seats.append(self._plug_in(index, spec))

    def _plug_in(self, index: int, spec: dict[str, Any]) -> Seat:
        seat = Seat(index)
        domain = Iommu(spec["name"], lambda fault: self._report(index, fault))
        seat.device = MODELS[spec["model"]](self, spec, domain, seat.interrupt)
        return seat

    def _report(self, index: int, fault: Fault) -> None:
        print(f"{fault.device}: driver {fault.driver}: {fault.why}", flush=True)
        kernel(self.connection).device_fault(index, fault.why)

    # --- what the kernel says -------------------------------------------------------------------

    def notice(self, kind: int, body: Any) -> None:
        if kind == wire.NOTICE_DEVICE:
            self._change_driver(*body)
        elif kind == wire.NOTICE_UNMAP:
            index, iova = body
            self.seats[index].device.domain.unmap(iova)
        else:
            super().notice(kind, body)

    def _change_driver(self, index: int, epoch: int, driver: str, tag: int) -> None:
        """Quiesce, forget the former driver, and begin the epoch of the next."""
        seat = self.seats[index]
        self.objects.pop(seat.badge, None)
        seat.device.reset()
        seat.device.domain.assign(driver)
        self._cut_lines(seat)
        if tag:
            seat.doorbell, seat.line = self.connection.descriptors(tag)
            self.watch(seat.doorbell, lambda: self._rung(seat))
            self.export(seat, index | epoch << 16)
        self._set_alarm()

    def _cut_lines(self, seat: Seat) -> None:
        if seat.doorbell >= 0:
            self.unwatch(seat.doorbell)
            os.close(seat.doorbell)
            os.close(seat.line)
            seat.doorbell = seat.line = -1

    def map(self, device: int, iova: int, size: int, writable: bool, tag: int) -> int:
        (fd,) = self.connection.descriptors(tag)
        access = mmap.PROT_READ | mmap.PROT_WRITE if writable else mmap.PROT_READ
        memory = mmap.mmap(fd, size, mmap.MAP_SHARED, access)
        os.close(fd)
        if 0 <= device < len(self.seats):
            self.seats[device].device.domain.map(iova, size, writable, memory)
        return iova

    # --- what the drivers do --------------------------------------------------------------------

    def _rung(self, seat: Seat) -> None:
        os.eventfd_read(seat.doorbell)
        seat.device.doorbell()
        if seat.device.backlog:
            os.eventfd_write(seat.doorbell, 1)  # the others have their turn first

    def _serve_call(self, m: wire.Message) -> None:
        super()._serve_call(m)
        self._set_alarm()  # a register may have armed a timer

    def alarmed(self) -> None:
        now = time.monotonic_ns()
        for seat in self.seats:
            if isinstance(seat.device, Timer):
                seat.device.expire(now)
        self._set_alarm()

    def _set_alarm(self) -> None:
        timers = (s.device.next_deadline() for s in self.seats if isinstance(s.device, Timer))
        self.alarm_ns = min((due or 1 for due in timers if due is not None), default=0)


Interrupt = Callable[[], None]


def _blk(_: MachineServer, spec: dict[str, Any], domain: Iommu, interrupt: Interrupt) -> Blk:
    image = Image(spec["image"], spec["size"], spec["read_only"])
    return Blk(spec["name"], domain, interrupt, CachedDisk(image, spec["cache"]))


def _console(
    machine: MachineServer, spec: dict[str, Any], domain: Iommu, interrupt: Interrupt
) -> Console:
    line = SerialLine(Path(machine.args["dir"]), spec["name"], machine)
    console = Console(spec["name"], domain, interrupt, line.show)
    line.typed = console.feed
    return console


def _rng(_: MachineServer, spec: dict[str, Any], domain: Iommu, interrupt: Interrupt) -> Rng:
    return Rng(spec["name"], domain, interrupt, spec["seed"])


def _timer(_: MachineServer, spec: dict[str, Any], domain: Iommu, interrupt: Interrupt) -> Timer:
    return Timer(spec["name"], domain, interrupt, time.monotonic_ns)


MODELS: dict[str, Callable[[MachineServer, dict[str, Any], Iommu, Interrupt], Hardware]] = {
    "virtio-blk": _blk,
    "virtio-console": _console,
    "virtio-rng": _rng,
    "timer": _timer,
}


def main() -> None:
    try:
        MachineServer.run()
    except ImageError as error:
        raise SystemExit(str(error)) from None
