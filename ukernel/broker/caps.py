"""caps: the derivation trees. A right never grows, and nothing outlives a revoke above it.

A token is looked up with the life that presents it: in the wrong hands it is worth nothing.
Deleting a capability, as death does, leaves what was derived from it; revoking destroys that.
"""

from collections.abc import Iterator
from typing import TypeVar

from ukernel.abi import syscalls, wire
from ukernel.abi.errors import Code
from ukernel.abi.syscalls import GRANT, Described, rights_text
from ukernel.broker import effects
from ukernel.broker.objects import Cap, Channel, Device, Endpoint, Life, Memory, Object
from ukernel.broker.state import Refusal, Request, State, Tokens, notice

T = TypeVar("T", bound=Object)


def root(k: State, obj: Object) -> Cap:
    """The top of an object's tree, held by the kernel itself."""
    obj.root = Cap(k.fresh(), obj, syscalls.ALL_RIGHTS, 0, None, None, b"")
    return obj.root


def derive(k: State, parent: Cap, holder: Life, rights: int, badge: int = 0) -> Cap:
    """A child of `parent` for `holder`. Refuses more rights, a second badge, a used-up quota."""
    obj = parent.obj
    if more := rights & ~parent.rights:
        raise Refusal(Code.E_DENIED, f"{rights_text(more)} not held on {obj.kind} {obj.name}")
    if badge and parent.badge and badge != parent.badge:
        raise Refusal(Code.E_DENIED, "a badge is set once")
    room(holder, 1)
    cap = Cap(k.fresh(), obj, rights, badge or parent.badge, parent, holder, k.tokens.pop())
    if isinstance(obj, Endpoint):
        cap.endpoint = obj
        if cap.badge:
            obj.badges[cap.badge] = obj.badges.get(cap.badge, 0) + 1
    elif isinstance(obj, Device):
        cap.endpoint = obj.machine.endpoint
        cap.badge = obj.index | obj.epoch << 16
    parent.children[cap] = None
    _hold(k, cap, holder, holder)
    return cap


def room(payer: Life, count: int) -> None:
    if payer.paid + count > payer.quota.caps:
        raise Refusal(Code.E_OVERLOAD, f"{payer.name} has {payer.quota.caps} capabilities")


def _hold(k: State, cap: Cap, holder: Life, payer: Life) -> None:
    cap.holder, cap.payer = holder, payer
    payer.paid += 1
    holder.caps[cap.token] = k.caps[cap.token] = cap


def _let_go(k: State, cap: Cap) -> None:
    """Take a capability out of its holder's hands, and out of what its parent has given."""
    assert cap.holder is not None
    cap.payer.paid -= 1
    del k.caps[cap.token], cap.holder.caps[cap.token]
    if cap.parent is not None and cap.parent.given.get(cap.holder) is cap:
        del cap.parent.given[cap.holder]
    if cap.channel is not None:
        destroy(k, cap.channel)


def find(k: State, life: Life, token: bytes, rights: int = 0) -> Cap:
    """The capability that `token` names for `life`, with at least `rights`; else Refusal."""
    cap = k.caps.get(token)
    if cap is None or cap.holder is not life:
        if token in life.revoked:
            raise Refusal(Code.E_REVOKED, "this capability was revoked")
        if token in life.slot.stale:
            raise Refusal(Code.E_STALE_LIFE, "this capability belonged to an earlier life")
        raise Refusal(Code.E_DENIED, "no such capability for this task")
    if missing := rights & ~cap.rights:
        what = f"{cap.obj.kind} {cap.obj.name}"
        raise Refusal(Code.E_DENIED, f"{rights_text(missing)} not held on {what}")
    return cap


def held(k: State, r: Request, kind: type[T], rights: int = 0) -> T:
    """The object of a system call, which must be of this kind."""
    obj = find(k, r.life, r.token, rights).obj
    if not isinstance(obj, kind):
        raise Refusal(Code.E_DENIED, f"{obj.kind} {obj.name} is not a {kind.kind}")
    return obj


def unlink(k: State, cap: Cap) -> None:
    """Take one capability out of the tree and from its holder; its children move up."""
    cap.alive = False
    if cap.parent is not None:
        cap.parent.children.pop(cap, None)
        for child in cap.children:
            child.parent = cap.parent
            cap.parent.children[child] = None
    cap.children.clear()
    if cap.holder is not None:
        _let_go(k, cap)
        _unbadge(k, cap)
    for device, iova in cap.mapped:  # what a device reached through it, it reaches no longer
        if iova in device.domain:  # else the device has been reset since
            device.domain.remove(iova)
            notice(k, device.machine.life, wire.NOTICE_UNMAP, [device.index, iova])
    cap.mapped.clear()


def _unbadge(k: State, cap: Cap) -> None:
    """Tell a server when the last capability with a badge is gone: nobody can come back."""
    endpoint = cap.obj
    if cap.badge and isinstance(endpoint, Endpoint):
        endpoint.badges[cap.badge] -= 1
        if endpoint.badges[cap.badge] == 0:
            del endpoint.badges[cap.badge]
            k.unheld.setdefault(endpoint, []).append(cap.badge)


def subtree(top: Cap) -> Iterator[Cap]:
    """`top` and its descendants, parents first."""
    todo = [top]
    while todo:
        cap = todo.pop()
        yield cap
        todo.extend(reversed(cap.children))


def destroy_below(k: State, top: Cap) -> list[Cap]:
    """Destroy every descendant of `top`, leaves first, and return them."""
    found = list(subtree(top))[1:]
    for cap in reversed(found):
        if cap.holder is not None:
            cap.holder.revoked.append(cap.token)
        unlink(k, cap)
    return found


def destroy(k: State, obj: Memory) -> None:
    """End an object: every capability to it, its descriptors, its place in quotas."""
    destroy_below(k, obj.root)
    del obj.root, k.memory[obj.number]  # no garbage is collected: nothing may refer in a circle
    obj.slot.region_bytes -= obj.size
    if obj.owner is not None:
        del obj.owner.owned[obj]
    else:
        del obj.slot.regions[obj.name]
    if isinstance(obj, Channel):
        obj.cap.channel = None
        k.out.append(effects.Shut(obj.number))
    k.out.append(effects.Close(obj.number))


def abandon(k: State, cap: Cap) -> None:
    """Delete one capability; memory that nobody can reach any more ends with its last one."""
    unlink(k, cap)
    obj = cap.obj
    if isinstance(obj, Memory) and obj.owner and obj.number in k.memory and not obj.root.children:
        destroy(k, obj)


def transfer(k: State, giver: Life, taker: Life, payer: Life, tokens: Tokens, flags: int) -> Tokens:
    """Give `taker` what `giver` put into a message: tokens that only `taker` can use.

    All or nothing: `payer` (whose call it is) has room for what is new, or none is made.
    """
    found = [find(k, giver, token, GRANT) for token in tokens]
    move = flags & wire.MOVE
    new = {cap for cap in found if (cap.payer is not payer if move else taker not in cap.given)}
    room(payer, len(new))
    give = _move if move else _share
    given = [give(k, cap, taker, payer) for cap in found]
    return tuple(cap.token for cap in given)


def _share(k: State, cap: Cap, taker: Life, payer: Life) -> Cap:
    if taker not in cap.given:
        cap.given[taker] = _move(k, derive(k, cap, payer, cap.rights), taker, payer)
    return cap.given[taker]


def _move(k: State, cap: Cap, taker: Life, payer: Life) -> Cap:
    """Hand over the capability itself; what was derived from it stays derived from it."""
    _let_go(k, cap)
    cap.token = k.tokens.pop()
    _hold(k, cap, taker, payer)
    return cap


def mint(k: State, r: Request, rights: int, badge: int) -> bytes:
    cap = find(k, r.life, r.token)
    if badge and not cap.badge and isinstance(cap.obj, Endpoint):
        find(k, r.life, r.token, syscalls.RECV)  # badges are the server's: nobody else makes one
    return derive(k, cap, r.life, rights, badge).token


def copy(k: State, r: Request) -> bytes:
    cap = find(k, r.life, r.token)
    assert cap.parent is not None
    return derive(k, cap.parent, r.life, cap.rights, cap.badge).token


def move(k: State, r: Request) -> bytes:
    cap = find(k, r.life, r.token)
    return _move(k, cap, r.life, cap.payer).token


def describe(k: State, r: Request) -> Described:
    cap = find(k, r.life, r.token)
    obj = cap.obj
    fingerprint = obj.slot.fingerprint if isinstance(obj, Endpoint) else ""
    size = obj.size if isinstance(obj, Memory) else 0
    return Described(obj.kind, obj.name, cap.rights, cap.badge, fingerprint, size)


def badges(k: State, r: Request) -> list[int]:
    return sorted(held(k, r, Endpoint, syscalls.RECV).badges)
