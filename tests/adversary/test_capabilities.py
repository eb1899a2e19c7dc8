"""6 to 14 and 35: a task can do what its capabilities say, and nothing that it knows helps it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from functools import partial

import pytest

from tests.adversary.conftest import WorldMaker
from tests.adversary.world import Intruder, World, own_opcode
from ukernel.abi import wire
from ukernel.abi.errors import CallError, Code, Denied, Overload, Revoked, StaleLife
from ukernel.abi.services import CREATE, Block, Echo, File, FileSystem
from ukernel.abi.syscalls import CALL, GRANT, READ, RECV, WRITE
from ukernel.lib.memory import Region
from ukernel.lib.stub import bind, kernel

ECHO = own_opcode(Echo, "echo")
EVERY_RIGHT = [READ, WRITE, CALL, RECV, GRANT]


def call(task: Intruder, token: bytes, caps: tuple[bytes, ...] = (), flags: int = 0) -> int:
    return task.put(wire.CALL, opcode=ECHO, token=token, caps=caps, flags=flags, body=b"\x91\xc4\0")


def lookups(number: random.Random, count: int) -> list[bytes]:
    return [number.randbytes(wire.TOKEN_SIZE) for _ in range(count)]


def test_06_guessed_token_is_denied(world: World) -> None:
    attacker, victim = world.intrude(), world.intrude("victim")
    near = bytearray(victim.named["echo"])
    near[-1] ^= 1
    for token in [wire.NO_TOKEN, b"\xff" * 16, bytes(near), *lookups(random.Random(6), 500)]:
        assert attacker.outcome(call(attacker, token)).status == Code.E_DENIED
    world.told("denied", attacker.who, "no such capability")
    assert world.slot("attacker").faults == 503
    loud = [e for e in world.events if e.kind == "denied" and e.who == attacker.who]
    assert len(loud) <= 32, "who hammers is counted, not reported each time"


def test_07_token_of_another_task_is_denied(world: World) -> None:
    """Leaked, not guessed: the real tokens of the victim do nothing for anybody else."""
    attacker, victim = world.intrude(), world.intrude("victim")
    region = kernel(victim).region("mine", 4096, False)
    for token in [*victim.named.values(), region]:
        assert attacker.outcome(call(attacker, token)).status == Code.E_DENIED
        stolen = kernel(attacker, token)
        attempts: list[Callable[[], object]] = [
            stolen.copy, stolen.move, stolen.delete, stolen.revoke, stolen.describe, stolen.map,
            stolen.badges, stolen.lines, stolen.take, partial(stolen.mint, 0, 0),
        ]  # fmt: skip
        for attempt in attempts:
            with pytest.raises(Denied, match="no such capability"):
                attempt()
        passed = attacker.outcome(call(attacker, attacker.named["echo"], (token,)))
        assert passed.status == Code.E_DENIED
    assert victim.stub(Echo, "echo").echo(b"untouched") == b"untouched"
    world.told("denied", attacker.who)


def test_07_a_transferred_capability_has_another_token(world: World) -> None:
    target, victim = world.intrude("target"), world.intrude("victim")
    target.serve()
    given = kernel(victim).region("lent", 4096, False)
    call(victim, victim.named["target"], (given,))
    m = target.delivered()
    assert m.caps != (given,)
    assert kernel(target, m.caps[0]).describe().name == "lent"
    with pytest.raises(Denied):
        kernel(target, given).describe()
    with pytest.raises(Denied):
        kernel(victim, m.caps[0]).describe()


def test_08_mint_does_not_amplify(world: World) -> None:
    attacker = world.intrude()
    plain = attacker.kernel("target")  # CALL and nothing more
    assert plain.describe().rights == CALL
    for right in EVERY_RIGHT:
        if right != CALL:
            with pytest.raises(Denied, match="not held"):
                plain.mint(CALL | right, 0)
    nothing = kernel(attacker, plain.mint(0, 0))
    for right in EVERY_RIGHT:
        with pytest.raises(Denied, match="not held"):
            nothing.mint(right, 0)
    assert attacker.outcome(call(attacker, plain.mint(0, 0))).status == Code.E_DENIED
    read_only = kernel(attacker, kernel(attacker).region("r", 4096, False)).mint(READ, 0)
    with pytest.raises(Denied, match="write not held"):
        kernel(attacker, read_only).mint(READ | WRITE, 0)
    world.told("denied", attacker.who, "not held")


def test_08_copy_and_move_do_not_amplify(world: World) -> None:
    attacker = world.intrude()
    weak = attacker.kernel("target").mint(0, 0)
    for again in (kernel(attacker, weak).copy(), kernel(attacker, weak).move()):
        assert kernel(attacker, again).describe().rights == 0


def test_09_transfer_without_grant_is_denied(world: World) -> None:
    """The system file gave the attacker `target` without `grant`: it cannot pass it on."""
    attacker = world.intrude()
    mine = attacker.named["target"]
    reply = attacker.outcome(call(attacker, attacker.named["echo"], (mine,)))
    assert reply.status == Code.E_DENIED
    world.told("denied", attacker.who, "grant not held on endpoint target")
    good = kernel(attacker).region("good", 4096, False)
    before = world.slot("echo").caps
    assert attacker.outcome(call(attacker, attacker.named["echo"], (good, mine))).status
    assert world.slot("echo").caps == before, "all of a message's capabilities, or none"


def test_09_reply_without_grant_passes_nothing(world: World) -> None:
    target, victim = world.intrude("target"), world.intrude("victim")
    target.serve()
    seq = call(victim, victim.named["target"])
    number = target.delivered().seq
    weak = target.kernel("self").mint(CALL, 0)
    target.put(wire.REPLY, seq=number, caps=(weak,), body=b"\x00")
    reply = victim.outcome(seq)
    assert (reply.status, reply.caps) == (Code.E_DENIED, ())
    world.told("fault", target.who, "cannot pass a capability on")


def test_10_use_after_revoke_also_in_flight(world: World) -> None:
    """One call is with the server, one waits in its queue, one comes later; then the revoke."""
    target, victim = world.intrude("target"), world.intrude("victim")
    target.serve()
    given = victim.kernel("target").mint(CALL, 0)
    child = kernel(victim, given).mint(CALL, 0)
    taken, queued = (call(victim, child, flags=wire.ASYNC) for _ in range(2))
    assert kernel(victim, given).revoke() == 1
    assert victim.outcome(queued).status == Code.E_REVOKED
    assert victim.outcome(call(victim, child)).status == Code.E_REVOKED
    target.put(wire.REPLY, seq=target.delivered().seq, body=b"\xc4\0")
    assert victim.outcome(taken).status == Code.OK, "what was taken has its outcome"
    assert target.quiet(), "the queued call was not delivered"
    call(victim, given)
    assert target.delivered().op == wire.DELIVER, "what was revoked is below `given`, not it"
    world.told("denied", victim.who, "revoked")


def test_10_revoked_loan_is_worth_nothing_to_who_got_it(world: World) -> None:
    target, victim = world.intrude("target"), world.intrude("victim")
    target.serve()
    lent = kernel(victim).region("lent", 4096, False)
    call(victim, victim.named["target"], (lent,))
    (got,) = target.delivered().caps
    kernel(target, got).map()
    assert kernel(victim, lent).revoke() == 1
    for attempt in (kernel(target, got).map, kernel(target, got).describe):
        with pytest.raises(Revoked):
            attempt()
    world.told("denied", target.who, "revoked")


def test_11_token_of_a_dead_life_is_stale(world: World) -> None:
    first = world.intrude()
    tokens = [*first.named.values(), kernel(first).region("old", 4096, False)]
    world.bury(first)
    second = world.intrude()
    assert (first.life, second.life) == (1, 2)
    for token in tokens:
        with pytest.raises(StaleLife):
            kernel(second, token).describe()
    world.told("denied", second.who, "earlier life")
    call(first, first.named["echo"])
    world.until(lambda: world.counter("unbound") == 1, "the old connection to be a stranger's")


FILES = """
  disk: {run: servers.disk, serves: block, devices: [disk0]}
  fs: {run: servers.fs, serves: file, calls: [disk], state: disk, args: {format_if_blank: true}}
  attacker: {run: servers.client, calls: [fs], start: demand}
  victim: {run: servers.client, calls: [fs], start: demand}
hardware: {disk0: {model: virtio-blk, image: disk.img, size: 4MiB}}
"""


def test_12_confused_deputy_fs_opens_nothing_that_was_not_given(make_world: WorldMaker) -> None:
    """fs may touch the disk and every open file; a client cannot make it do so for the client."""
    world = make_world(FILES)
    attacker, victim = world.intrude(), world.intrude("victim")
    secret = victim.stub(FileSystem, "fs").open("/secret", CREATE)
    box = Region(victim, "box", 4096)
    box.view[:6] = b"secret"
    secret.write(0, box.show(0, 6))
    badge = kernel(victim, secret.token).describe().badge  # type: ignore[attr-defined]
    with pytest.raises(Denied, match="recv not held on endpoint fs"):
        attacker.kernel("fs").mint(CALL, badge)
    with pytest.raises(Denied):
        bind(File, attacker, secret.token).stat()  # type: ignore[attr-defined]
    with pytest.raises(Denied, match="may not use disk"):
        attacker.capability("disk")
    for path in ("disk0", "/../disk0", "disk", "../../disk.img", "/dev/disk0", "/proc/self/mem"):
        with pytest.raises(tuple(FileSystem.answers)):
            attacker.stub(FileSystem, "fs").open(path, 0)
    block = own_opcode(Block, "read")
    reply = attacker.ask(
        wire.CALL, token=attacker.named["fs"], opcode=block, body=wire.pack([0, [0, 0, 512]])
    )
    assert reply.status in (Code.E_PROTO, Code.ANSWER), "a block request is no file request"
    assert secret.read(0, box.lend(0, 4096)) == 6
    world.told("denied", attacker.who)


def test_12_lent_memory_is_the_clients_own_capability(make_world: WorldMaker) -> None:
    """Lending needs the capability: not a number, not another's token, not what is missing."""
    world = make_world(FILES)
    attacker, victim = world.intrude(), world.intrude("victim")
    file = attacker.stub(FileSystem, "fs").open("/mine", CREATE)
    token: bytes = file.token  # type: ignore[attr-defined]
    of_victim = Region(victim, "box", 4096)
    write = own_opcode(File, "write")
    body = wire.pack([0, [0, 0, 512]])
    for caps in ((of_victim.token,), (os.urandom(16),), (wire.NO_TOKEN,)):
        reply = attacker.ask(wire.CALL, token=token, opcode=write, caps=caps, body=body)
        assert reply.status == Code.E_DENIED
    own = Region(attacker, "own", 4096)
    for index, offset, length in ((0, 0, 4097), (0, 1 << 63, 1), (1, 0, 1), (255, 0, 1)):
        reply = attacker.ask(
            wire.CALL, token=token, opcode=write, caps=(own.token,),
            body=wire.pack([0, [index, offset, length]]),
        )  # fmt: skip
        assert reply.status == Code.E_PROTO
    assert attacker.ask(wire.CALL, token=token, opcode=write, body=body).status == Code.E_PROTO
    endpoint = attacker.ask(
        wire.CALL, token=token, opcode=write, caps=(attacker.kernel("self").copy(),), body=body
    )
    assert endpoint.status == Code.E_DENIED, "an endpoint is no memory"
    assert file.stat().size == 0
    assert world.slot("fs").life == 1


def test_12_badges_are_set_by_the_endpoints_owner_alone(world: World) -> None:
    attacker, target = world.intrude(), world.intrude("target")
    badged = target.kernel("self").mint(CALL | GRANT, 7)
    assert kernel(target, badged).describe().badge == 7
    for token in (attacker.named["target"], attacker.named["echo"]):
        with pytest.raises(Denied, match="recv not held"):
            kernel(attacker, token).mint(CALL, 7)
    with pytest.raises(Denied):
        kernel(target, badged).mint(CALL, 8)
    weaker = kernel(target, badged).mint(CALL, 0)
    assert kernel(target, weaker).describe().badge == 7, "0 keeps the badge"


def test_13_no_token_in_logs_traces_or_reports(world: World) -> None:
    target, victim, attacker = (world.intrude(n) for n in ("target", "victim", "attacker"))
    target.serve()
    own = kernel(victim).region("own", 4096, False)
    seq = call(victim, victim.named["target"], (own,))
    m = target.delivered()
    minted = target.kernel("self").mint(CALL | GRANT, 3)
    target.put(wire.REPLY, seq=m.seq, caps=(minted,), body=b"\x00", flags=wire.MOVE)
    got = victim.outcome(seq).caps
    for token in (own, *m.caps, *got):  # refusals are where a token would be quoted
        attacker.outcome(call(attacker, token))
    errors = [_refusal(attacker, token) for token in (own, *victim.named.values())]
    tokens = [own, minted, *m.caps, *got]
    for task in (target, victim, attacker):
        tokens += [*task.named.values(), task.secret]
    control = world.system.control()
    said = repr([
        world.logs(), world.events, world.system.caps(), control.slots(), control.counters(), errors
    ])  # fmt: skip
    rows = world.trace()
    seen = [row.sent_head + row.got_head for row in rows]
    assert "target" in {row.server for row in rows}
    assert "own" in said, "the reports do name what the tokens stand for"
    for token in tokens:
        assert token.hex() not in said
        assert repr(token)[2:-1] not in said
        assert not any(token in heads for heads in seen)


def _refusal(task: Intruder, token: bytes) -> str:
    try:
        kernel(task, token).describe()
    except CallError as error:
        return f"{error} {error.detail}"
    return ""


def test_14_undeclared_edge_is_denied_and_nothing_delivered(world: World) -> None:
    target, outsider = world.intrude("target"), world.intrude("outsider")
    target.serve(credit=8)
    remedy = r"outsider may not use target: add target to servers.outsider.calls .*yaml:\d+"
    with pytest.raises(Denied, match=remedy):
        outsider.capability("target")
    victim = world.intrude("victim")
    for token in (wire.NO_TOKEN, target.named["self"], victim.named["target"], b"target".ljust(16)):
        for op in (wire.CALL, wire.SEND):
            assert outsider.ask(op, token=token, opcode=ECHO).status == Code.E_DENIED
    assert target.quiet()
    assert (world.slot("target").queued, world.slot("target").taken) == (0, 0)
    world.told("denied", outsider.who)
    assert world.slot("outsider").faults == 8
    assert set(outsider.named) == {"self"}


def test_35_region_quota_is_the_tasks_own_limit(make_world: WorldMaker) -> None:
    world = make_world("""
  attacker: {run: servers.client, memory: 1MiB, start: demand}
  victim: {run: servers.client, memory: 1MiB, start: demand}
""")
    attacker, victim = world.intrude(), world.intrude("victim")
    for size in (1 << 20 | 1, 1 << 40, 1 << 62, (1 << 64) - 1):
        for persistent in (False, True):
            with pytest.raises(Overload, match="may have 1048576 bytes"):
                kernel(attacker).region("much", size, persistent)
    quarters = [kernel(attacker).region(f"q{n}", 1 << 18, n % 2 == 0) for n in range(4)]
    with pytest.raises(Overload):
        kernel(attacker).region("one more", 1, False)
    assert world.slot("attacker").region_bytes == 1 << 20
    assert kernel(victim).region("its own", 1 << 20, False), "nobody else's problem"
    kernel(attacker, quarters[1]).delete()
    again = kernel(attacker).region("again", 1 << 18, False)
    assert kernel(attacker, again).describe().size == 1 << 18
    world.bury(attacker)
    assert world.slot("attacker").region_bytes == 1 << 19, "persistent ones stay, and count"
    after = world.intrude()
    with pytest.raises(Overload):
        kernel(after).region("next life", 1 << 20, False)
    assert world.counter("E_OVERLOAD") == 10
    assert world.slot("attacker").errors == 10


def test_35_object_quota(world: World) -> None:
    """Regions and notifications cost descriptors of the kernel: their number is bounded too."""
    attacker, victim = world.intrude(), world.intrude("victim")
    made = [kernel(attacker).notification() for _ in range(32)]
    made += [kernel(attacker).region(f"r{n}", 1, False) for n in range(32)]
    more: list[Callable[[], bytes]] = [
        kernel(attacker).notification,
        partial(kernel(attacker).region, "more", 1, False),
        partial(kernel(attacker).region, "kept", 1, True),
    ]
    for attempt in more:
        with pytest.raises(Overload, match="64 objects"):
            attempt()
    assert kernel(victim).notification()
    kernel(attacker, made[0]).delete()
    assert kernel(attacker).notification()
    assert world.slot("attacker").errors == 3
