"""memory: regions, notifications, and the machine's devices with their IOMMU domains.

A task maps a region into a domain only if it holds both; what is taken back is unmapped at once.
"""

from ukernel.abi import wire
from ukernel.abi.channels import Channels
from ukernel.abi.errors import Code
from ukernel.abi.syscalls import CALL, EVENT_FAULT, GRANT, KERNEL_BADGE, READ, WRITE, Machine
from ukernel.broker import caps, effects, ipc
from ukernel.broker.objects import Call, Channel, Device, Life, Memory, Notification, Region
from ukernel.broker.state import Refusal, Request, State, fault, notice

PAGE = 4096
MACHINE_MAP = next(o.number for o in Machine.ops.values() if o.name == "map")
CHANNEL_OPEN = next(o.number for o in Channels.ops.values() if o.name == "open")


def no_memory(r: Request, what: str) -> effects.Send:
    """The reply in case Linux refuses a descriptor: an error, never a false success."""
    body = wire.pack([f"{what}: the host has no memory or descriptors left", {}])
    frame = wire.encode(wire.REPLY, status=Code.E_NO_MEMORY, seq=r.seq, body=body)
    return effects.Send(r.life.rid, frame)


def _make(k: State, r: Request, new: Memory, payer: Life, *sizes: int) -> None:
    """A new object with its descriptors, within what `payer` may have."""
    slot = new.slot
    caps.room(payer, 1)
    if len(payer.owned) + len(slot.regions) >= payer.quota.objects:
        raise Refusal(Code.E_OVERLOAD, f"{payer.name} has {payer.quota.objects} objects")
    if slot.region_bytes + new.size > slot.memory:
        raise Refusal(Code.E_OVERLOAD, f"{payer.name} may have {slot.memory} bytes of regions")
    caps.root(k, new)
    k.memory[new.number] = new
    slot.region_bytes += new.size
    if new.owner is None:
        slot.regions[new.name] = new
    else:
        payer.owned[new] = None
    k.out.append(effects.Make(new.number, sizes, no_memory(r, f"{new.kind} {new.name}")))


def _hand_out(k: State, life: Life, number: int, read_only: int = 0) -> int:
    tag = k.fresh()
    k.out.append(effects.Pass(life.client, tag, number, read_only))
    return tag


def region(k: State, r: Request, name: str, size: int, persistent: bool) -> bytes:
    size = -(-size // PAGE) * PAGE
    life, slot = r.life, r.life.slot
    found = slot.regions.get(name) if persistent else None
    if found is None:
        if size == 0 or len(name) > 64:
            raise Refusal(Code.E_PROTO, "a region has bytes, and a name of at most 64 letters")
        found = Region(name, k.fresh(), size, slot, None if persistent else life)
        _make(k, r, found, life, size)
    elif found.size != size:
        raise Refusal(Code.E_PROTO, f"region {name} has {found.size} bytes since an earlier life")
    return caps.derive(k, found.root, life, READ | WRITE | GRANT).token


def channel(k: State, r: Request, call: int, size: int) -> list[int]:
    """For a server that is asked for it by a call it has; in place of the capability's last one."""
    c = r.life.taken.get(call)
    if c is None or c.opcode != CHANNEL_OPEN or c.number not in c.client.sent:
        raise Refusal(Code.E_UNAVAILABLE, f"nobody waits for a channel in call {call}")
    client, cap = c.client, c.cap
    if cap is None or cap.token not in client.caps:  # the client may have passed it on since
        raise Refusal(Code.E_UNAVAILABLE, "it has had its channel, or its capability is gone")
    if size == 0 or size % PAGE:
        raise Refusal(Code.E_PROTO, f"a channel has pages of {PAGE} bytes, not {size} bytes")
    if cap.channel is not None:
        caps.destroy(k, cap.channel)
    name = f"{client.name} to {r.life.name}"
    new = Channel(name, k.fresh(), size, client.slot, client, r.life, cap)
    try:
        _make(k, r, new, client, PAGE, size, -1, -1)  # the bells stay at 1, see lib.bell
    except Refusal as full:  # which is the client's doing: it is not held against the server
        raise Refusal(Code.E_NO_MEMORY, str(full)) from None
    c.cap, cap.channel = None, new
    return [_hand_out(k, life, new.number, 1) for life in (r.life, client)]


def map(k: State, r: Request) -> int:
    number = caps.held(k, r, Region, READ).number
    return _hand_out(k, r.life, number, int(not k.caps[r.token].rights & WRITE))


def notification(k: State, r: Request) -> bytes:
    life, number = r.life, k.fresh()
    new = Notification(f"{life.name}.{number}", number, 0, life.slot, life)
    _make(k, r, new, life, 0)
    return caps.derive(k, new.root, life, READ | WRITE | GRANT).token


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
    return _hand_out(k, r.life, caps.held(k, r, Notification, READ).number)


def attach(k: State, device: Device, driver: Life, otherwise: effects.Send) -> None:
    """Give a device to a driver's life: reset, a fresh domain, fresh lines."""
    device.driver = driver
    device.epoch += 1
    device.lines = k.fresh()
    driver.devices.append(device)
    k.out.append(effects.Make(device.lines, (-1, -1), otherwise))
    _tell_machine(k, device, driver.slot.name)
    driver.named[device.name] = caps.derive(k, device.root, driver, CALL).token


def detach(k: State, device: Device, now: int) -> None:
    """Take a device from a dead driver: what the old life still holds leads nowhere."""
    device.driver = None
    device.epoch += 1
    device.domain.clear()
    ipc.withdraw(k, caps.destroy_below(k, device.root), now)
    k.out.append(effects.Close(device.lines))
    device.lines = 0
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
    k.out.append(effects.Pass(machine.client, tag, found.number, int(not writable)))
    ipc.admit(k, request, r.now)


def device_fault(k: State, r: Request, index: int, text: str) -> None:
    """Only the machine may say this, and only of its own devices."""
    own = [d for d in k.devices.values() if d.index == index and d.machine is r.life.slot]
    if not own:
        raise Refusal(Code.E_DENIED, f"device {index} is not its own")
    if own[0].driver is not None:
        fault(k, own[0].driver, EVENT_FAULT, f"device {own[0].name}: {text}")
