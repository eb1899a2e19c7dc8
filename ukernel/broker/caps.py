"""caps: the derivation trees. A right never grows, and nothing outlives a revoke above it.

A token is looked up together with the life that presents it, so a token in the wrong hands is
worth nothing. Deleting a capability leaves what was derived from it, under its parent; revoking
destroys all of that. The death of a life deletes what it held.
"""

from __future__ import annotations

from typing import TypeVar

from ukernel.abi import syscalls, wire
from ukernel.abi.errors import Code
from ukernel.abi.syscalls import GRANT, Described, rights_text
from ukernel.broker.effects import Close
from ukernel.broker.objects import (
    Cap,
    Device,
    Endpoint,
    Life,
    Notification,
    Object,
    Refusal,
    Region,
    Slot,
)
from ukernel.broker.state import Request, State, notice

T = TypeVar("T", Endpoint, Notification, Region, Device, Slot)


def root(k: State, obj: Object) -> Cap:
    """The top of an object's tree, held by the kernel itself."""
    cap = Cap(k.fresh(), obj, syscalls.ALL_RIGHTS, 0, None, None, b"")
    obj.root = cap
    return cap


def derive(k: State, parent: Cap, holder: Life, rights: int, badge: int = 0) -> Cap:
    """A child of `parent` for `holder`. Refuses more rights, a second badge, a full table."""
    if rights & ~parent.rights:
        extra = rights_text(rights & ~parent.rights)
        raise Refusal(Code.E_DENIED, f"{extra} not held on {parent.obj.kind} {parent.obj.name}")
    if badge and parent.badge and badge != parent.badge:
        raise Refusal(Code.E_DENIED, "a badge is set once")
    if len(holder.caps) >= holder.quota.caps:
        raise Refusal(Code.E_OVERLOAD, f"{holder.name} holds {holder.quota.caps} capabilities")
    obj = parent.obj
    cap = Cap(k.fresh(), obj, rights, badge or parent.badge, parent, holder, k.token())
    if isinstance(obj, Endpoint):
        cap.endpoint = obj
        if cap.badge:
            obj.badges[cap.badge] = obj.badges.get(cap.badge, 0) + 1
    elif isinstance(obj, Device):
        cap.endpoint = obj.machine.endpoint
        cap.badge = obj.index | obj.epoch << 16
    parent.children[cap] = None
    _hold(k, cap, holder)
    return cap


def _hold(k: State, cap: Cap, holder: Life) -> None:
    cap.holder = holder
    holder.caps[cap.token] = cap
    k.caps[cap.token] = cap


def find(k: State, life: Life, token: bytes, rights: int = 0) -> Cap:
    """The capability that `token` names for `life`, with at least `rights`; else Refusal."""
    cap = k.caps.get(token)
    if cap is None or cap.holder is not life:
        if token in life.revoked:
            raise Refusal(Code.E_REVOKED, "this capability was revoked")
        if token in life.slot.stale:
            raise Refusal(Code.E_STALE_LIFE, "this capability belonged to an earlier life")
        raise Refusal(Code.E_DENIED, "no such capability for this task")
    if rights & ~cap.rights:
        missing = rights_text(rights & ~cap.rights)
        raise Refusal(Code.E_DENIED, f"{missing} not held on {cap.obj.kind} {cap.obj.name}")
    return cap


# --- taking away --------------------------------------------------------------------------------


def unlink(k: State, cap: Cap) -> None:
    """Take one capability out of the tree and from its holder; its children move up."""
    cap.alive = False
    parent = cap.parent
    if parent is not None:
        parent.children.pop(cap, None)
        if parent.given and cap.holder is not None and parent.given.get(cap.holder) is cap:
            del parent.given[cap.holder]
        for child in cap.children:
            child.parent = parent
            parent.children[child] = None
    cap.children.clear()
    if cap.holder is not None:
        del k.caps[cap.token]
        del cap.holder.caps[cap.token]
        _unbadge(k, cap)
    if cap.mapped:
        _unmap(k, cap)


def _unbadge(k: State, cap: Cap) -> None:
    """Tell a server when the last capability with a badge is gone: nobody can come back."""
    endpoint = cap.obj
    if not cap.badge or not isinstance(endpoint, Endpoint):
        return
    endpoint.badges[cap.badge] -= 1
    if endpoint.badges[cap.badge] == 0:
        del endpoint.badges[cap.badge]
        if endpoint.slot.life is not None:
            notice(k, endpoint.slot.life, wire.NOTICE_UNHELD, [cap.badge])


def _unmap(k: State, cap: Cap) -> None:
    """What a device could reach through this capability it reaches no longer."""
    for device, iova in cap.mapped:
        if device.machine.life is not None:
            notice(k, device.machine.life, wire.NOTICE_UNMAP, [device.index, iova])
    cap.mapped.clear()


def destroy_below(k: State, top: Cap) -> list[Cap]:
    """Destroy every descendant of `top`, leaves first, and return them."""
    found: list[Cap] = []
    todo = list(top.children)
    while todo:
        cap = todo.pop()
        found.append(cap)
        todo.extend(cap.children)
    for cap in reversed(found):
        if cap.holder is not None:
            cap.holder.revoked.append(cap.token)
        unlink(k, cap)
    return found


def destroy(k: State, obj: Object) -> list[Cap]:
    """End an object: every capability to it, its descriptor, its place in IOMMU domains."""
    assert obj.root is not None
    gone = destroy_below(k, obj.root)
    obj.root.alive = False
    if isinstance(obj, Region):
        _release(k, obj)
    elif isinstance(obj, Notification):
        obj.owner.owned.pop(obj, None)
        k.out.append(Close(obj.number))
    return gone


def _release(k: State, region: Region) -> None:
    del k.regions[region.number]
    region.slot.region_bytes -= region.size
    if region.owner is not None:
        region.owner.owned.pop(region, None)
    k.out.append(Close(region.number))


def abandon(k: State, cap: Cap) -> None:
    """Delete one capability; an object that nobody can reach any more ends with it."""
    obj = cap.obj
    unlink(k, cap)
    orphan = obj.root is not None and obj.root.alive and not obj.root.children
    if orphan and (isinstance(obj, Notification) or (isinstance(obj, Region) and obj.owner)):
        destroy(k, obj)


# --- passing on ---------------------------------------------------------------------------------


def check_grants(k: State, life: Life, tokens: tuple[bytes, ...]) -> None:
    """Refuse a message whose capabilities `life` may not pass on."""
    for token in tokens:
        find(k, life, token, GRANT)


def transfer(
    k: State, source: Life, target: Life, tokens: tuple[bytes, ...], move: bool
) -> tuple[bytes, ...]:
    """Give `target` what `source` put into a message: tokens that only `target` can use.

    All or nothing: the table has room for every one of them, or none is made.
    """
    found = [find(k, source, token, GRANT) for token in tokens]
    if len(target.caps) + len(found) > target.quota.caps:
        raise Refusal(Code.E_OVERLOAD, f"{target.name} holds {target.quota.caps} capabilities")
    return tuple((_move if move else _share)(k, cap, target).token for cap in found)


def _share(k: State, cap: Cap, target: Life) -> Cap:
    known = cap.given.get(target)
    if known is None:
        known = cap.given[target] = derive(k, cap, target, cap.rights)
    return known


def _move(k: State, cap: Cap, target: Life) -> Cap:
    """Hand over the capability itself; what was derived from it stays derived from it."""
    assert cap.holder is not None
    if cap.parent is not None and cap.parent.given.get(cap.holder) is cap:
        del cap.parent.given[cap.holder]
    del k.caps[cap.token]
    del cap.holder.caps[cap.token]
    cap.token = k.token()
    _hold(k, cap, target)
    return cap


# --- system calls -------------------------------------------------------------------------------


def mint(k: State, r: Request, rights: int, badge: int) -> bytes:
    return derive(k, find(k, r.life, r.token), r.life, rights, badge).token


def copy(k: State, r: Request) -> bytes:
    cap = find(k, r.life, r.token)
    assert cap.parent is not None
    return derive(k, cap.parent, r.life, cap.rights, cap.badge).token


def move(k: State, r: Request) -> bytes:
    return _move(k, find(k, r.life, r.token), r.life).token


def describe(k: State, r: Request) -> Described:
    cap = find(k, r.life, r.token)
    obj = cap.obj
    fingerprint = obj.slot.fingerprint if isinstance(obj, Endpoint) else ""
    size = obj.size if isinstance(obj, Region) else 0
    return Described(obj.kind, obj.name, cap.rights, cap.badge, fingerprint, size)


def badges(k: State, r: Request) -> list[int]:
    return sorted(expect(find(k, r.life, r.token, syscalls.RECV).obj, Endpoint).badges)


def expect(obj: Object, kind: type[T]) -> T:
    """`obj`, when it is of this kind; else the caller named the wrong capability."""
    if not isinstance(obj, kind):
        raise Refusal(Code.E_PROTO, f"{obj.kind} {obj.name} is not a {kind.kind}")
    return obj
