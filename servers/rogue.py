"""rogue: what a driver must not do, done on purpose: it points its device at memory that is not
its own. It plays one life of a driver in an experiment, and dies of it.

Each try sets a queue up outside the grant and rings; the device must refuse and ask for a reset.
"""

from __future__ import annotations

import sys

from ukernel.abi import virtio
from ukernel.abi.services import Access
from ukernel.abi.virtio import Reg, Status
from ukernel.lib import task, virtqueue
from ukernel.lib.device import Device

TRIES = 8
NOWHERE = 0xDEAD_0000_0000  # a bus address that the kernel has never given to anybody


def main() -> None:
    connection = task.connection()
    devices = [Device(connection, name) for name in connection.info.devices]
    device = next(each for each in devices if each.load(Reg.MAGIC) == virtio.MAGIC)  # it has DMA
    refused = sum(_abuse(device, NOWHERE + (attempt << 20)) for attempt in range(TRIES))
    sys.exit(f"rogue: {refused} of {TRIES} accesses outside the grant were refused")


def _abuse(device: Device, address: int) -> bool:
    """One queue outside the grant; whether the device refused to touch it."""
    virtqueue.negotiate(device, 0)
    stores = [(Reg.QUEUE_SEL, 0), (Reg.QUEUE_NUM, 8)]
    for low in (Reg.QUEUE_DESC_LOW, Reg.QUEUE_DRIVER_LOW, Reg.QUEUE_DEVICE_LOW):
        stores += [(low, address & 0xFFFF_FFFF), (Reg(low + 4), address >> 32)]
    stores += [(Reg.QUEUE_READY, 1)]
    device.burst([Access(reg, True, value) for reg, value in stores])
    device.store(Reg.STATUS, virtqueue.DRIVER | Status.FEATURES_OK | Status.DRIVER_OK)
    device.store(Reg.QUEUE_NOTIFY, virtio.BLK_QUEUE)
    return bool(device.load(Reg.STATUS) & Status.NEEDS_RESET)


if __name__ == "__main__":
    main()
