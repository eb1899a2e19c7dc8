"""15 to 26: bytes that are no message, and messages at the wrong time. Each has an outcome."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgpack
import pytest
import zmq

from tests.adversary.conftest import WorldMaker, shared_world
from tests.adversary.world import Intruder, World, own_opcode
from ukernel.abi import wire
from ukernel.abi.errors import Code
from ukernel.abi.services import Echo, FileSystem
from ukernel.abi.syscalls import Kernel
from ukernel.lib.stub import kernel

ECHO = own_opcode(Echo, "echo")
MINT = own_opcode(Kernel, "mint")
NOT_MSGPACK = b"\xc1\xc1\xc1"
GOOD = wire.encode(wire.CALL, opcode=ECHO, body=wire.pack([b"x"]))

# What a task may put into a body, and what the refusal must say about it.
BODIES = {
    "15_not_msgpack": (NOT_MSGPACK, ""),
    "15_empty": (b"", "incomplete"),
    "16_truncated": (wire.pack([b"x" * 100])[:50], "incomplete"),
    "16_truncated_length": (b"\xdd\xff", "incomplete"),
    "17_trailing_bytes": (wire.pack([b"x"]) + b"\0", "extra data"),
    "18_100000_nested_arrays": (b"\x91" * 100_000 + b"\xc0", ""),
    "18_nested_seventeen_deep": (b"\x91" * 17 + b"\xc0", "nested deeper"),
    "18_nested_maps": (b"\x81\xc0" * 100_000 + b"\xc0", ""),
    "19_empty_maps": (b"\xdd" + (250_000).to_bytes(4, "big") + b"\x80" * 250_000, "exceeds"),
    "19_elements_announced_and_absent": (b"\xdd\xff\xff\xff\xff", "exceeds"),
    "19_empty_maps_in_small_arrays": (
        b"\xdc\x20\x00" + (b"\xdc\x00\x10" + b"\x80" * 16) * 8192, ""
    ),
    "20_duplicate_keys": (b"\x91\x82\xa1k\x01\xa1k\x02", "duplicate key"),
    "20_unhashable_key": (b"\x91\x81\x90\x01", ""),
    "arguments_too_many": (wire.pack([b"x", b"y", 3]), "arguments"),
    "arguments_too_few": (wire.pack([]), "arguments"),
    "arguments_a_map": (wire.pack({"data": b"x"}), "arguments"),
    "arguments_of_another_type": (wire.pack(["x"]), ""),
    "extension_type": (msgpack.packb([msgpack.ExtType(4, b"x")]), ""),
    "surrogates": (b"\x91\xa3\xed\xa0\x80", ""),
}  # fmt: skip

# Frames that are no messages at all.
FRAMES = {
    "16_empty": b"",
    "16_one_byte": b"\x01",
    "16_header_cut": GOOD[: wire.HEADER.size - 1],
    "16_capabilities_announced_and_absent": wire.HEADER.pack(
        wire.VERSION, wire.CALL, 0, 4, ECHO, 0, 1, 0, wire.NO_TOKEN
    ),
    "16_five_capabilities": wire.HEADER.pack(
        wire.VERSION, wire.CALL, 0, 5, ECHO, 0, 1, 0, wire.NO_TOKEN
    )
    + bytes(80),
    "23_version_0": b"\0" + GOOD[1:],
    "23_version_2": b"\2" + GOOD[1:],
    "23_version_255": b"\xff" + GOOD[1:],
    "23_unknown_operation_0": wire.encode(0),
    "23_unknown_operation_9": wire.encode(9),
    "23_unknown_operation_255": wire.encode(255),
}


# An attacker for each case, in one system: none of them may harm it.
ATTACKERS = {case: f"attacker-{number}" for number, case in enumerate([*FRAMES, *BODIES])}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    row = "  {}: {{run: servers.client, calls: [echo], start: demand}}\n"
    servers = "".join(map(row.format, ATTACKERS.values()))
    with shared_world(tmp_path_factory.mktemp("attacked"), servers) as world:
        yield world


@pytest.fixture
def attacker(attacked: World, case: str) -> Iterator[Intruder]:
    """Its system is checked when its test is over."""
    yield attacked.intrude(ATTACKERS[case])
    attacked.check()


@pytest.mark.parametrize("case", FRAMES)
def test_frame(attacked: World, attacker: Intruder, case: str) -> None:
    """16 and 23 for the kernel: counted against its sender, who goes on."""
    attacker.socket.send(FRAMES[case])
    attacked.told("fault", attacker.who)
    attacker.sync()
    assert attacked.slot(attacker.slot).faults == 1


@pytest.mark.parametrize("case", BODIES)
def test_body_to_the_kernel(attacked: World, attacker: Intruder, case: str) -> None:
    """15 to 20 in a system call: E_PROTO, and a fault with its sender's name."""
    body, why = BODIES[case]
    reply = attacker.ask(wire.SYS, opcode=MINT, token=attacker.named["self"], body=body)
    assert reply.status == Code.E_PROTO
    assert why in wire.unpack(reply.body)[0]
    attacked.told("fault", attacker.who, why)
    assert attacker.stub(Echo, "echo").echo(b"goes on") == b"goes on"


def test_bodies_to_a_server(world: World) -> None:
    """15 to 20 in a call: the kernel does not look, the server says E_PROTO and lives."""
    attacker = world.intrude()
    for case, (body, why) in BODIES.items():
        reply = attacker.ask(wire.CALL, opcode=ECHO, token=attacker.named["echo"], body=body)
        assert reply.status == Code.E_PROTO, case
        assert why in wire.unpack(reply.body)[0], case
        attacker.put(wire.SEND, opcode=ECHO, token=attacker.named["echo"], body=body)
        assert attacker.stub(Echo, "echo").echo(b"goes on") == b"goes on", case
        world.until(lambda: world.slot("echo").taken == 0, "the end of every call")
    assert world.slot("echo").life == 1


def test_17_trailing_bytes_after_a_good_body_change_nothing(world: World) -> None:
    attacker = world.intrude()
    before = world.slot("attacker").caps
    body = wire.pack([0, 0]) + b"\0"
    reply = attacker.ask(wire.SYS, opcode=MINT, token=attacker.named["self"], body=body)
    assert reply.status == Code.E_PROTO
    assert world.slot("attacker").caps == before


def test_19_a_megabyte_of_maps_is_an_oversized_frame(world: World) -> None:
    """One megabyte does not even fit into a frame; what fits is in BODIES."""
    attacker = world.intrude()
    body = b"\xdd" + (1 << 20).to_bytes(4, "big") + b"\x80" * (1 << 20)
    attacker.put(wire.CALL, opcode=ECHO, token=attacker.named["echo"], body=body)
    _is_cut_off(world, attacker)


def test_21_oversized_frame_cuts_its_sender_off(world: World) -> None:
    """Beyond the limit ZeroMQ closes the connection before it takes the bytes in."""
    attacker = world.intrude()
    attacker.socket.send(bytes(wire.MAX_FRAME + 1))
    _is_cut_off(world, attacker)


def _is_cut_off(world: World, attacker: Intruder) -> None:
    """A new connection is a stranger's, whatever it says; the victim's own traffic goes on."""
    attacker.put(wire.CALL, opcode=ECHO, token=attacker.named["echo"], body=wire.pack([b"x"]))
    assert attacker.receive().status == Code.E_DENIED
    assert world.counter("unbound") >= 1
    world.bury(attacker)
    again = world.intrude()
    assert again.stub(Echo, "echo").echo(b"the next life") == b"the next life"


def test_21_the_largest_frame_is_no_fault(world: World) -> None:
    attacker = world.intrude()
    head = len(wire.pack([b"x" * 70_000])) - 70_000
    data = b"\xaa" * (wire.MAX_BODY - head)
    assert attacker.stub(Echo, "echo").echo(data) == data
    target, victim = world.intrude("target"), world.intrude("victim")
    target.serve()
    caps = tuple(kernel(victim).region(f"r{n}", 1, False) for n in range(wire.MAX_CAPS))
    token, body = victim.named["target"], bytes(wire.MAX_BODY)
    seq = victim.put(wire.CALL, opcode=ECHO, token=token, caps=caps, body=body)
    m = target.delivered()
    assert (m.body, len(m.caps)) == (body, wire.MAX_CAPS)
    target.put(wire.REPLY, seq=m.seq, body=body)
    assert victim.outcome(seq).body == body


def test_22_hundred_frames_are_no_message(world: World) -> None:
    attacker = world.intrude()
    for frames in ([GOOD] * 100, [b"", GOOD], [GOOD, b""]):
        for frame in frames[:-1]:
            attacker.socket.send(frame, zmq.SNDMORE)
        attacker.socket.send(frames[-1])
    attacker.sync()
    assert world.slot("attacker").faults == 3
    world.told("fault", attacker.who)
    with world.stranger() as line:
        line.send_multipart([b"x"] * 100)
        assert isinstance(line.recv(), bytes)
    assert world.counter("unbound") == 1


def test_23_unknown_system_call_and_unknown_operation_of_a_server(world: World) -> None:
    attacker = world.intrude()
    body = wire.pack([])
    for number in (0, 7, 99, 0xFFFF):
        reply = attacker.ask(wire.SYS, opcode=number, token=attacker.named["self"], body=body)
        assert reply.status == Code.E_PROTO
        reply = attacker.ask(wire.CALL, opcode=number, token=attacker.named["echo"], body=body)
        assert reply.status == Code.E_PROTO
        assert "no operation" in wire.unpack(reply.body)[0]


def test_23_unknown_flags_are_nothing(world: World) -> None:
    """A caller cannot say that its call is one-way, or anything else that is the kernel's."""
    target, attacker = world.intrude("target"), world.intrude()
    target.serve()
    seq = attacker.put(wire.CALL, opcode=ECHO, token=attacker.named["target"], flags=0xFF & ~8)
    m = target.delivered()
    assert m.flags == 0
    target.put(wire.REPLY, seq=m.seq, flags=0xFF, body=b"\xc0")
    assert attacker.outcome(seq).status == Code.OK


def test_24_reply_without_a_request_is_a_fault(world: World) -> None:
    attacker = world.intrude()
    for number in (0, 1, 2**63, 2**64 - 1):
        attacker.put(wire.REPLY, seq=number, caps=(attacker.named["echo"],))
    world.told("fault", attacker.who, "reply to a call that it does not have")
    attacker.sync()
    assert world.slot("attacker").faults == 4


def test_25_second_reply_is_a_fault_and_the_first_counts(world: World) -> None:
    target, victim = world.intrude("target"), world.intrude("victim")
    target.serve()
    seq = victim.put(wire.CALL, opcode=ECHO, token=victim.named["target"])
    number = target.delivered().seq
    for body in (b"first", b"second", b"third"):
        target.put(wire.REPLY, seq=number, body=body)
    assert victim.outcome(seq).body == b"first"
    world.told("fault", target.who, "reply to a call that it does not have")
    target.sync()
    assert world.slot("target").faults == 2
    victim.sync()
    assert not victim.inbox, "the others went nowhere"
    again = victim.put(wire.CALL, opcode=ECHO, token=victim.named["target"])
    later = victim.put(wire.CALL, opcode=ECHO, token=victim.named["target"])
    target.delivered()
    assert target.quiet(), "three replies gave one credit back, not three"
    assert again < later


def test_26_reply_by_a_task_that_was_not_called_goes_nowhere(world: World) -> None:
    target, victim, attacker = (world.intrude(n) for n in ("target", "victim", "attacker"))
    target.serve()
    seq = victim.put(wire.CALL, opcode=ECHO, token=victim.named["target"])
    number = target.delivered().seq
    guesses = range(max(0, number - 50), number + 50)
    for guess in guesses:
        attacker.put(wire.REPLY, seq=guess, body=b"forged")
    attacker.sync()
    assert world.slot("attacker").faults == len(guesses)
    target.put(wire.REPLY, seq=number, body=b"right")
    assert victim.outcome(seq).body == b"right"
    world.told("fault", attacker.who, "reply to a call that it does not have")


FILES = """
  disk: {run: servers.disk, serves: block, devices: [disk0]}
  fs: {run: servers.fs, serves: file, calls: [disk], state: disk, args: {format_if_blank: true}}
  timer: {run: servers.timer, serves: timer, devices: [clock]}
  rng: {run: servers.rng, serves: entropy, devices: [rng0]}
  console: {run: servers.console, serves: console, devices: [con0]}
  attacker: {run: servers.client, calls: [disk, fs, timer, rng, console], start: demand}
hardware:
  disk0: {model: virtio-blk, image: disk.img, size: 4MiB}
  clock: {model: timer}
  rng0: {model: virtio-rng}
  con0: {model: virtio-console}
"""


def test_15_to_23_every_operation_of_every_server(make_world: WorldMaker) -> None:
    """No server of ours dies of a body, whatever the operation and whatever is in it."""
    world = make_world(FILES)
    attacker = world.intrude()
    odd = [
        [], [0], [2**64 - 1], [-1], ["\0"], ["/" * 9000], [2**64 - 1, [0, 0, 2**64 - 1]],
        [0, [0, 2**64 - 1, 1]], [0, [255, 0, 0]], [["x"]], [None], [1.5], [True, True],
    ]  # fmt: skip
    bodies = [body for body, _ in BODIES.values()] + [wire.pack(value) for value in odd]
    servers = ("disk", "fs", "timer", "rng")
    for name in servers:
        for opcode in range(12):
            for body in bodies:
                deadline = _soon()
                reply = attacker.ask(
                    wire.CALL, opcode=opcode, token=attacker.named[name], body=body,
                    deadline_ns=deadline,
                )  # fmt: skip
                assert reply.status in LIVING, (name, opcode, body[:20], reply)
    for body in bodies:
        opcode = 1  # a console's read waits for somebody to type
        reply = attacker.ask(wire.CALL, opcode=opcode, token=attacker.named["console"], body=body)
        assert reply.status in LIVING
    for name in (*servers, "console"):
        assert world.slot(name).life == 1
    assert attacker.stub(FileSystem, "fs").stat("/").kind


LIVING = (Code.OK, Code.ANSWER, Code.E_PROTO, Code.E_DEADLINE, Code.E_DENIED)


def _soon() -> int:
    return time.monotonic_ns() + 200_000_000
