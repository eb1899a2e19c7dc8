"""memory: regions, notifications, and the machine's devices with their IOMMU domains.

A region is mapped into a domain only by a task that holds both the device and the region. What
the kernel takes back, the machine is told at once to forget.
"""

from __future__ import annotations

from ukernel.abi import wire
from ukernel.abi.errors import Code
from ukernel.abi.syscalls import (
    ALL_RIGHTS,
    CALL,
    EVENT_FAULT,
    GRANT,
    KERNEL_BADGE,
    READ,
    WRITE,
    Machine,
)
from ukernel.broker import caps, ipc
from ukernel.broker.effects import Close, Make, Pass, Raise, Send
from ukernel.broker.objects import Call, Device, Life, Notification, Refusal, Region, Slot
from ukernel.broker.state import Request, State, fault, notice

PAGE = 4096
FIRST_IOVA = 0x1000_0000
MACHINE_MAP = next(o.number for o in Machine.ops.values() if o.name == "map")


def no_memory(rid: bytes, seq: int, what: str) -> Send:
    """The reply in case Linux refuses a descriptor: an error, never a false success."""
    body = wire.pack([f"{what}: the host has no memory or descriptors left", {}])
    return Send(rid, wire.encode(wire.REPLY, status=Code.E_NO_MEMORY, seq=seq, body=body))


# --- regions ------------------------------------------------------------------------------------


def region(k: State, r: Request, name: str, size: int, persistent: bool) -> bytes:
    slot = r.life.slot
    found = slot.regions.get(name) if persistent else None
    if found is None:
        found = _new_region(k, r, name, size, persistent)
    elif found.size != _whole_pages(size):
        raise Refusal(Code.E_PROTO, f"region {name} has {found.size} bytes since an earlier life")
    assert found.root is not None
    return caps.derive(k, found.root, r.life, READ | WRITE | GRANT).token


def _whole_pages(size: int) -> int:
    return -(-size // PAGE) * PAGE


def _room(life: Life) -> None:
    if len(life.owned) + len(life.slot.regions) >= life.quota.objects:
        raise Refusal(Code.E_OVERLOAD, f"{life.name} has {life.quota.objects} objects")


def _new_region(k: State, r: Request, name: str, size: int, persistent: bool) -> Region:
    life, slot, size = r.life, r.life.slot, _whole_pages(size)
    if size == 0:
        raise Refusal(Code.E_PROTO, f"region {name} is empty")
    if slot.region_bytes + size > slot.memory:
        raise Refusal(Code.E_OVERLOAD, f"{life.name} may have {slot.memory} bytes of regions")
    _room(life)
    new = Region(name, k.fresh(), size, slot, None if persistent else life)
    caps.root(k, new)
    slot.region_bytes += size
    if persistent:
        slot.regions[name] = new
    else:
        life.owned[new] = None
    k.regions[new.number] = new
    k.out.append(Make(new.number, size, no_memory(life.rid, r.seq, f"region {name}")))
    return new


def lost(k: State, number: int) -> None:
    """Linux could not make this region after all: it never was."""
    gone = k.regions.get(number)
    if gone is not None:
        gone.slot.regions.pop(gone.name, None)
        caps.destroy(k, gone)


def map(k: State, r: Request) -> int:
    cap = caps.find(k, r.life, r.token, READ)
    found = caps.expect(cap.obj, Region)
    return _hand_out(k, r.life, (found.number,), not cap.rights & WRITE)


def _hand_out(k: State, life: Life, numbers: tuple[int, ...], read_only: bool = False) -> int:
    tag = k.fresh()
    k.out.append(Pass(life.client, tag, numbers, read_only))
    return tag


# --- notifications ------------------------------------------------------------------------------


def notification(k: State, r: Request) -> bytes:
    _room(r.life)
    new = Notification(f"{r.life.name}.{k.number}", k.fresh(), r.life)
    r.life.owned[new] = None
    k.out.append(Make(new.number, 0, no_memory(r.life.rid, r.seq, "notification")))
    return caps.derive(k, caps.root(k, new), r.life, READ | WRITE | GRANT).token


def signal(k: State, r: Request) -> None:
    cap = caps.find(k, r.life, r.token, WRITE)
    found = caps.expect(cap.obj, Notification)
    found.word |= cap.badge or 1
    k.out.append(Raise(found.number, True))


def take(k: State, r: Request) -> int:
    found = caps.expect(caps.find(k, r.life, r.token, READ).obj, Notification)
    word, found.word = found.word, 0
    k.out.append(Raise(found.number, False))
    return word


def waitable(k: State, r: Request) -> int:
    found = caps.expect(caps.find(k, r.life, r.token, READ).obj, Notification)
    return _hand_out(k, r.life, (found.number,))


# --- devices ------------------------------------------------------------------------------------


def attach(k: State, device: Device, driver: Life, otherwise: Send) -> None:
    """Give a device to a driver's life: reset, a fresh domain, fresh lines."""
    assert device.root is not None
    device.driver = driver
    device.epoch += 1
    device.next_iova = FIRST_IOVA
    device.doorbell, device.interrupt = k.fresh(), k.fresh()
    driver.devices.append(device)
    k.out += (Make(device.doorbell, 0, otherwise), Make(device.interrupt, 0, otherwise))
    _tell_machine(k, device, driver.slot.name, (device.doorbell, device.interrupt))
    cap = caps.derive(k, device.root, driver, ALL_RIGHTS & ~GRANT)
    driver.named[device.name] = cap.token


def detach(k: State, device: Device) -> None:
    """Take a device from a dead driver: what the old life still holds leads nowhere."""
    assert device.root is not None
    device.driver = None
    device.epoch += 1
    ipc.withdraw(k, caps.destroy_below(k, device.root), 0)
    _tell_machine(k, device, "", ())
    k.out += (Close(device.doorbell), Close(device.interrupt))


def _tell_machine(k: State, device: Device, driver: str, lines: tuple[int, ...]) -> None:
    machine = device.machine.life
    if machine is None:
        return
    tag = _hand_out(k, machine, lines) if lines else 0
    notice(k, machine, wire.NOTICE_DEVICE, [device.index, device.epoch, driver, tag])


def lines(k: State, r: Request) -> int:
    device = caps.expect(caps.find(k, r.life, r.token, CALL).obj, Device)
    return _hand_out(k, r.life, (device.doorbell, device.interrupt))


def device_fault(k: State, r: Request, index: int, text: str) -> None:
    """Only the machine may say this, and only of its own devices."""
    for device in k.devices.values():
        if device.index == index and device.machine is r.life.slot:
            if device.driver is not None:
                fault(k, device.driver, EVENT_FAULT, f"device {device.name}: {text}")
            return
    raise Refusal(Code.E_DENIED, f"device {index} is not its own")


def dma_map(k: State, r: Request, token: bytes, writable: bool) -> None:
    """Checked here, done by the machine, whose reply becomes the reply of this system call."""
    device = caps.expect(caps.find(k, r.life, r.token, CALL).obj, Device)
    need = READ | WRITE if writable else READ
    cap = caps.find(k, r.life, token, need)
    found = caps.expect(cap.obj, Region)
    machine = device.machine.life
    if machine is None:
        raise Refusal(Code.E_UNAVAILABLE, f"the machine of {device.name} is off")
    iova = device.next_iova
    device.next_iova += found.size + PAGE  # a hole between two mappings catches an overrun
    cap.mapped.append((device, iova))
    tag = _hand_out(k, machine, (found.number,), not writable)
    body = wire.pack([device.index, iova, found.size, writable, tag])
    ipc.admit(k, _to_machine(k, r, device.machine, body), r.now)


def _to_machine(k: State, r: Request, machine: Slot, body: bytes) -> Call:
    return Call(
        k.fresh(), r.life, None, machine.endpoint, KERNEL_BADGE, 0, MACHINE_MAP, r.seq,
        r.deadline_ns, (), body, r.now,
    )  # fmt: skip
