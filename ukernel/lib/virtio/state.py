"""state: what a device has to remember when it goes on elsewhere, as bytes that are believed in
nothing.

What lies in the driver's memory is not here: that memory goes the same way.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ukernel.abi import virtio, wire
from ukernel.lib.virtio.queue import Position

REGISTER, ADDRESS, INDEX = 32, 64, 16  # bits


class BadState(Exception):
    """These bytes are not the state of such a device; the text says why."""


class QueueState(NamedTuple):
    """The registers of one queue, and how far it has got once it has been looked at."""

    size: int
    ready: bool
    desc: int
    driver: int
    device: int
    position: Position | None


class DeviceState(NamedTuple):
    """The registers of a device, and what its model keeps besides."""

    kind: int
    status: int
    accepted: int
    features_sel: int
    accepted_sel: int
    queue_sel: int
    interrupt_status: int
    queues: list[QueueState]
    model: Any


def pack(state: DeviceState) -> bytes:
    return wire.pack(state)


def unpack(data: bytes) -> DeviceState:
    """Raises BadState unless every number is one that `pack` may have put there."""
    try:
        kind, status, accepted, *selectors, interrupt_status, queues, model = wire.unpack(data)
        features_sel, accepted_sel, queue_sel = selectors
        return DeviceState(
            whole(kind, REGISTER),
            whole(status, REGISTER),
            whole(accepted, ADDRESS),
            whole(features_sel, REGISTER),
            whole(accepted_sel, REGISTER),
            whole(queue_sel, REGISTER),
            whole(interrupt_status, REGISTER),
            [_queue(*queue) for queue in queues],
            model,
        )
    except (wire.Malformed, TypeError, ValueError) as error:
        raise BadState(str(error)) from None


def whole(value: Any, bits: int) -> int:
    """A number of so many bits. Raises BadState."""
    if type(value) is not int or not 0 <= value < 1 << bits:
        raise BadState(f"{value!r} is no number of {bits} bits")
    return value


def _queue(size: Any, ready: Any, desc: Any, driver: Any, device: Any, position: Any) -> QueueState:
    if size != 0 and not virtio.valid_queue_size(whole(size, INDEX)):
        raise BadState(f"{size} is no size of a queue")
    where = (whole(desc, ADDRESS), whole(driver, ADDRESS), whole(device, ADDRESS))
    if position is not None:
        seen, used, interrupt_at = (whole(index, INDEX) for index in position)
        position = Position(seen, used, interrupt_at)
    return QueueState(size, ready is True, *where, position)
