"""memory: regions, notifications, and the machine's devices with their IOMMU domains.

A task maps a region into a domain only if it holds both; what is taken back is unmapped at once.
"""

from ukernel.abi import wire
from ukernel.abi.errors import Code
from ukernel.abi.syscalls import CALL, EVENT_FAULT, GRANT, KERNEL_BADGE, READ, WRITE, Machine
from ukernel.broker import caps, effects, ipc
from ukernel.broker.objects import Call, Device, Life, Notification, Refusal, Region
from ukernel.broker.state import Request, State, fault, notice

PAGE = 4096
MACHINE_MAP = next(o.number for o in Machine.ops.values() if o.name == "map")


def no_memory(r: Request, what: str) -> effects.Send:
    """The reply in case Linux refuses a descriptor: an error, never a false success."""
    body = wire.pack([f"{what}: the host has no memory or descriptors left", {}])
    frame = wire.encode(wire.REPLY, status=Code.E_NO_MEMORY, seq=r.seq, body=body)
    return effects.Send(r.life.rid, frame)


def _room(life: Life) -> None:
    caps.room(life, 1)
    if len(life.owned) + len(life.slot.regions) >= life.quota.objects:
        raise Refusal(Code.E_OVERLOAD, f"{life.name} has {life.quota.objects} objects")


def _hand_out(k: State, life: Life, numbers: tuple[int, ...], read_only: bool = False) -> int:
    tag = k.fresh()
    k.out.append(effects.Pass(life.client, tag, numbers, read_only))
    return tag


def region(k: State, r: Request, name: str, size: int, persistent: bool) -> bytes:
    size = -(-size // PAGE) * PAGE
    found = r.life.slot.regions.get(name) if persistent else None
    if found is None:
        found = _new_region(k, r, name, size, persistent)
    elif found.size != size:
        raise Refusal(Code.E_PROTO, f"region {name} has {found.size} bytes since an earlier life")
    return caps.derive(k, found.root, r.life, READ | WRITE | GRANT).token


def _new_region(k: State, r: Request, name: str, size: int, persistent: bool) -> Region:
    life, slot = r.life, r.life.slot
    if size == 0 or len(name) > 64:
        raise Refusal(Code.E_PROTO, "a region has bytes, and a name of at most 64 letters")
    if slot.region_bytes + size > slot.memory:
        raise Refusal(Code.E_OVERLOAD, f"{life.name} may have {slot.memory} bytes of regions")
    _room(life)
    new = Region(name, k.fresh(), size, slot, None if persistent else life)
    caps.root(k, new)
    slot.region_bytes += size
    k.memory[new.number] = new
    if persistent:
        slot.regions[name] = new
    else:
        life.owned[new] = None
    k.out.append(effects.Make(new.number, size, no_memory(r, f"region {name}")))
    return new


def map(k: State, r: Request) -> int:
    number = caps.held(k, r, Region, READ).number
    return _hand_out(k, r.life, (number,), not k.caps[r.token].rights & WRITE)


def notification(k: State, r: Request) -> bytes:
    _room(r.life)
    number = k.fresh()
    k.memory[number] = new = Notification(f"{r.life.name}.{number}", number, r.life)
    r.life.owned[new] = None
    k.out.append(effects.Make(number, 0, no_memory(r, "notification")))
    return caps.derive(k, caps.root(k, new), r.life, READ | WRITE | GRANT).token


def signal(k: State, r: Request) -> None:
    found = caps.held(k, r, Notification, WRITE)
    found.word |= k.caps[r.token].badge or 1
    k.out.append(effects.Raise(found.number, True))


def take(k: State, r: Request) -> int:
    found = caps.held(k, r, Notification, READ)
    word, found.word = found.word, 0
    k.out.append(effects.Raise(found.number, False))
    return word


def waitable(k: State, r: Request) -> int:
    return _hand_out(k, r.life, (caps.held(k, r, Notification, READ).number,))


def attach(k: State, device: Device, driver: Life, otherwise: effects.Send) -> None:
    """Give a device to a driver's life: reset, a fresh domain, fresh lines."""
    device.driver = driver
    device.epoch += 1
    device.lines = k.fresh(), k.fresh()
    driver.devices.append(device)
    k.out += (effects.Make(number, 0, otherwise) for number in device.lines)
    _tell_machine(k, device, driver.slot.name)
    driver.named[device.name] = caps.derive(k, device.root, driver, CALL).token


def detach(k: State, device: Device, now: int) -> None:
    """Take a device from a dead driver: what the old life still holds leads nowhere."""
    device.driver = None
    device.epoch += 1
    device.domain.clear()
    ipc.withdraw(k, caps.destroy_below(k, device.root), now)
    k.out += (effects.Close(number) for number in device.lines)
    device.lines = ()
    _tell_machine(k, device, "")


def _tell_machine(k: State, device: Device, driver: str) -> None:
    machine = device.machine.life
    if machine is not None:
        tag = _hand_out(k, machine, device.lines) if device.lines else 0
        notice(k, machine, wire.NOTICE_DEVICE, [device.index, device.epoch, driver, tag])


def lines(k: State, r: Request) -> int:
    return _hand_out(k, r.life, caps.held(k, r, Device, CALL).lines)


def dma_map(k: State, r: Request, token: bytes, writable: bool) -> None:
    """Checked here, done by the machine, whose reply becomes the reply of this system call."""
    device, rights = caps.held(k, r, Device, CALL), READ | WRITE if writable else READ
    found = caps.held(k, r._replace(token=token), Region, rights)
    machine = device.machine.life
    if machine is None:
        raise Refusal(Code.E_UNAVAILABLE, f"the machine of {device.name} is off")
    if len(device.domain) >= r.life.quota.mappings:
        raise Refusal(Code.E_OVERLOAD, f"{device.name} has {len(device.domain)} mappings")
    iova, tag = device.next_iova, k.fresh()
    body = wire.pack([device.index, iova, found.size, writable, tag])
    request = Call(
        k.fresh(), r.life, None, device.machine.endpoint, KERNEL_BADGE, 0, MACHINE_MAP, r.seq,
        0, (), body, r.now,
    )  # fmt: skip
    ipc.check(k, request)
    device.next_iova += found.size + PAGE  # a hole between two mappings catches an overrun
    device.domain.add(iova)
    k.caps[token].mapped.append((device, iova))
    k.out.append(effects.Pass(machine.client, tag, (found.number,), not writable))
    ipc.admit(k, request, r.now)


def device_fault(k: State, r: Request, index: int, text: str) -> None:
    """Only the machine may say this, and only of its own devices."""
    own = [d for d in k.devices.values() if d.index == index and d.machine is r.life.slot]
    if not own:
        raise Refusal(Code.E_DENIED, f"device {index} is not its own")
    if own[0].driver is not None:
        fault(k, own[0].driver, EVENT_FAULT, f"device {own[0].name}: {text}")
