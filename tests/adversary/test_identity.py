"""1 to 5 and 27: nobody is taken for somebody else."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys

import zmq

from tests.adversary.tasks.stranger import ANSWERED
from tests.adversary.world import World, own_opcode
from ukernel.abi import wire
from ukernel.abi.errors import Code
from ukernel.abi.services import Echo
from ukernel.abi.syscalls import Control

ECHO = own_opcode(Echo, "echo")


def hello(secret: bytes) -> bytes:
    return wire.encode(wire.HELLO, token=secret)


def status(frame: bytes) -> int:
    m = wire.decode(frame)
    assert isinstance(m, wire.Message)
    return m.status


def test_01_forged_sender_is_ignored_the_stamp_counts(world: World) -> None:
    target, attacker, victim = (world.intrude(n) for n in ("target", "attacker", "victim"))
    target.serve(credit=3)
    victim.put(wire.CALL, token=victim.named["target"], opcode=ECHO)
    of_victim = target.delivered().token
    forged = wire.pack([of_victim, {"from": "victim", "life": 1}])
    attacker.put(wire.CALL, token=attacker.named["target"], opcode=ECHO, body=forged, status=7)
    m = target.delivered()
    badge, client = wire.STAMP.unpack(m.token)
    assert m.body == forged, "the kernel hands a body on as it is"
    assert m.token != of_victim
    assert (badge, m.status) == (0, 0)
    attacker.put(wire.CALL, token=attacker.named["target"], opcode=ECHO)
    assert wire.STAMP.unpack(target.delivered().token) == (0, client)


def test_01_forged_delivery_and_notice_are_faults(world: World) -> None:
    target, attacker = world.intrude("target"), world.intrude()
    target.serve()
    attacker.put(wire.DELIVER, token=wire.STAMP.pack(0, 1), body=wire.pack(["x"]))
    attacker.put(wire.NOTICE, opcode=wire.NOTICE_STOP, body=wire.pack([]))
    world.told("fault", attacker.who, f"operation {wire.DELIVER}")
    world.told("fault", attacker.who, f"operation {wire.NOTICE}")
    assert target.quiet()
    assert world.slot("attacker").faults == 2


def test_02_chosen_routing_id_is_refused(world: World) -> None:
    """With the right secret from the right process: what is wrong is the connection alone."""
    control, _ = world.announce("attacker", os.getpid())
    with control:
        secret = world.boot_record(control).secret
    with world.stranger(routing_id=b"witness") as line:
        line.send(hello(secret))
        assert status(line.recv()) == Code.E_DENIED
        assert world.counter("unbound") == 1
    with world.stranger() as line:
        line.send(hello(secret))
        assert status(line.recv()) == Code.OK, "the refusal did not use the secret up"


def test_02_duplicate_routing_id_does_not_reach_the_first(world: World) -> None:
    """Two strangers with one id: the second is not heard, the first still gets its answers."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(world.stranger(b"twin"))
        first.send(hello(b"1" * 16))
        assert status(first.recv()) == Code.E_DENIED
        second = stack.enter_context(world.stranger(b"twin"))
        second.send(hello(b"2" * 16))
        second.set(zmq.RCVTIMEO, 0)
        first.send(hello(b"3" * 16))
        assert status(first.recv()) == Code.E_DENIED
        world.check()
        try:
            heard = second.recv()
        except zmq.Again:
            heard = b""
        assert heard == b""
        assert world.counter("unbound") == 2


def test_02_guessed_automatic_routing_ids_hijack_nobody(world: World) -> None:
    victim = world.intrude("victim")
    for guess in range(64):
        with world.stranger(b"\0" + os.urandom(3) + bytes([guess])) as line:
            line.send(wire.encode(wire.CALL, token=victim.named["echo"], opcode=ECHO, seq=1))
            assert status(line.recv()) == Code.E_DENIED
    assert victim.stub(Echo, "echo").echo(b"mine") == b"mine"
    assert not victim.inbox


def test_03_second_kernel_on_the_same_directory_is_refused(world: World) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        second = subprocess.run(
            [sys.executable, "-m", "ukernel.broker", world.system.run.path, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    assert second.returncode == 1
    assert "another kernel serves" in second.stderr
    assert str(world.system.run.path) in second.stderr


def test_04_stranger_process_is_refused(world: World) -> None:
    """Any process of this user may connect; it gets one E_DENIED per message and nothing else."""
    with world.stranger() as line:
        for guess in (wire.NO_TOKEN, b"\xff" * 16, os.urandom(16)):
            line.send(hello(guess))
            assert status(line.recv()) == Code.E_DENIED
        for op in range(256):
            line.send(wire.encode(op, opcode=80))
            assert status(line.recv()) == Code.E_DENIED
        line.send(b"")
        assert status(line.recv()) == Code.E_DENIED
    assert world.counter("unbound") == 260


def test_04_right_secret_from_the_wrong_process_is_refused(world: World) -> None:
    """The secret of a life that is announced but has not said HELLO, in the hands of another."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.adversary.tasks.stranger"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as announced:
        control, _ = world.announce("attacker", announced.pid)
        with control:
            record = world.boot_record(control)
        with world.stranger() as line:
            line.send(hello(record.secret))
            assert status(line.recv()) == Code.E_DENIED
        assert world.counter("unbound") == 1
        out, _ = announced.communicate(f"{record.address} {record.secret.hex()}\n", timeout=10)
        assert out == f"{ANSWERED} {Code.OK:d}\n", "the process that was announced gets in"


def test_05_replayed_secret_is_denied(world: World) -> None:
    """Same process, same secret, a second connection: a secret works once."""
    attacker = world.intrude()
    for _ in range(3):
        with world.stranger() as line:
            line.send(hello(attacker.secret))
            assert status(line.recv()) == Code.E_DENIED
    assert world.counter("unbound") == 3
    assert attacker.stub(Echo, "echo").echo(b"bound as before") == b"bound as before"


def test_05_secret_of_an_ended_life_is_denied(world: World) -> None:
    control, task = world.announce("attacker", os.getpid())
    with control:
        secret = world.boot_record(control).secret
    task.control.end("dead")
    with world.stranger() as line:
        line.send(hello(secret))
        assert status(line.recv()) == Code.E_DENIED


def test_27_hello_twice_is_a_fault(world: World) -> None:
    attacker = world.intrude()
    for secret in (os.urandom(16), wire.NO_TOKEN):
        attacker.socket.send(hello(secret))
    world.until(lambda: world.slot("attacker").faults == 2, "two faults")
    world.told("fault", attacker.who, f"operation {wire.HELLO} is not for tasks")
    assert attacker.stub(Echo, "echo").echo(b"still bound") == b"still bound"


def test_nobody_but_the_root_task_controls(world: World) -> None:
    attacker = world.intrude()
    for number in Control.ops:
        reply = attacker.ask(wire.SYS, opcode=number, token=attacker.named["self"], body=b"\x90")
        assert reply.status in (Code.E_DENIED, Code.E_PROTO)
    bodies: dict[str, list[object]] = {
        "caps": [0], "slots": [], "counters": [], "trace": [0], "prepare": [], "start": [1],
        "begin": [[]], "end": ["dead"], "tell": [9],
    }  # fmt: skip
    for name, body in bodies.items():
        opcode, token = own_opcode(Control, name), attacker.named["echo"]
        reply = attacker.ask(wire.SYS, opcode=opcode, token=token, body=wire.pack(body))
        assert reply.status == Code.E_DENIED, name
    world.told("denied", attacker.who)
