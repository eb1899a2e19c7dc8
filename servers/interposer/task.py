"""task: the interposer. Callers hold its endpoint as if it were the callee's.

    disk: {run: servers.interposer, serves: block, calls: [platter], window: 64,
           args: {to: platter, serves: block}}

A request goes on with its opcode, bytes, capabilities and deadline as they are, and so does its
outcome; nothing here waits for the callee. An endpoint in an outcome (an opened file) is replaced
by one of our own under a fresh badge, so that calls on it pass here too. Only the operations of
`Interposer`, under badge 0, are for us.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from servers.interposer.handles import Handles
from servers.interposer.link import Instruction, Link, Pass
from ukernel.abi import wire
from ukernel.abi.errors import DeadlinePassed, Protocol, StaleLife
from ukernel.abi.exits import NO_RESTART
from ukernel.abi.faults import Interposer, Landed
from ukernel.abi.interface import FIRST_RESERVED, Interface, interface_of, typed
from ukernel.abi.registry import resolve_interface
from ukernel.abi.syscalls import CALL, GRANT, Described
from ukernel.lib.connection import Connection, task_info
from ukernel.lib.server import Server, unpack_stamp
from ukernel.lib.stub import SYSTEM_CALLS

# Our number of a call that goes on: the kernel's number of the call that came, and these.
PASSED = 1 << 63  # the library's own numbers count from 1
UNHEARD = 1 << 62  # its outcome is dropped
NUMBER = UNHEARD - 1


@dataclass
class Outcome:
    """An outcome with capabilities, while they are replaced one by one."""

    number: int  # of the call that it answers
    status: int
    body: bytes
    caps: list[bytes]
    flags: int = 0


class InterposerTask(Server):
    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.to = str(self.args["to"])
        self.of = int(self.args.get("badge", 0))  # the object of the callee that we stand for
        self.link = Link()
        self._steering = Steering(self)
        self._callee = connection.capability(self.to)
        self._handles = Handles(connection.life)
        self._asked: dict[int, Callable[[wire.Message], None]] = {}

    def unheld(self, badge: int) -> None:
        token = self._handles.forget(badge)
        if token is not None:
            self._let_go(token)

    def alarmed(self) -> None:
        self.carry_out(self.link.elapse(time.monotonic_ns()))

    def carry_out(self, todo: list[Instruction]) -> None:
        """Do what the link says, and wake up when it has more to say."""
        for what in todo:
            if type(what) is Pass:
                self._pass_on(what.request, what.heard)
            else:
                late = DeadlinePassed(f"with {self.connection.slot} at its deadline")
                self._refuse(what.request.seq, late)
        self.alarm_ns = self.link.due_ns

    # --- requests -------------------------------------------------------------------------------

    def _serve_call(self, m: wire.Message) -> None:
        badge, _ = unpack_stamp(m.token)
        if m.opcode >= FIRST_RESERVED:  # a channel would pass us by
            self._refuse(m.seq, Protocol(f"{self.connection.slot} passes on messages only"))
            return
        if badge == 0 and m.opcode in Interposer.ops:
            super()._serve_call(m)
            return
        self.carry_out(self.link.arrive(m, time.monotonic_ns()))
        if m.flags & wire.ONEWAY:
            self._give_credit(1)

    def object_behind(self, badge: int) -> Interface:
        return self._steering

    def _pass_on(self, m: wire.Message, heard: bool) -> None:
        badge, _ = unpack_stamp(m.token)
        token = self._callee if badge == self.of else self._handles.token(badge)
        oneway = m.flags & wire.ONEWAY
        if token is not None:
            self.connection.transmit(
                wire.encode(
                    wire.SEND if oneway else wire.CALL,
                    flags=0 if oneway else wire.ASYNC,
                    opcode=m.opcode,
                    seq=m.seq | (PASSED if heard and not oneway else PASSED | UNHEARD),
                    deadline_ns=m.deadline_ns,
                    token=token,
                    caps=m.caps,
                    body=m.body,
                )
            )
        elif heard and not oneway:
            who = self.connection.slot
            self._refuse(m.seq, StaleLife(f"an earlier life of {who} gave this capability"))

    # --- outcomes -------------------------------------------------------------------------------

    def _handle(self, m: wire.Message) -> None:
        if m.op != wire.REPLY:
            super()._handle(m)
        elif m.seq & PASSED:
            self._come_back(m)
        elif then := self._asked.pop(m.seq, None):
            then(m)
        else:
            super()._handle(m)

    def _come_back(self, m: wire.Message) -> None:
        for token in m.caps:
            self._handles.keep(token)
        if m.seq & UNHEARD:
            for token in m.caps:
                self._let_go(token)
        elif m.caps:
            self._replace(Outcome(m.seq & NUMBER, m.status, m.body, list(m.caps)), 0)
        else:
            self._answer(m.seq & NUMBER, m.status, m.body)

    def _replace(self, outcome: Outcome, at: int) -> None:
        """Replace the capabilities from number `at`, then answer the call."""
        if at < len(outcome.caps):
            then = partial(self._described, outcome, at)
            self._ask(outcome, outcome.caps[at], "describe", (), then)
            return
        caps = tuple(outcome.caps)
        self._answer(outcome.number, outcome.status, outcome.body, caps, outcome.flags)
        for token in caps:
            self._handles.let_go(token)  # what is no endpoint stays: passed again, it is known

    def _described(self, outcome: Outcome, at: int, found: Described) -> None:
        if found.kind != "endpoint":
            self._replace(outcome, at + 1)
            return
        own, badge = self.connection.named["self"], self._handles.fresh()
        rights = found.rights & (CALL | GRANT)
        then = partial(self._minted, outcome, at, badge)
        self._ask(outcome, own, "mint", (rights, badge), then)

    def _minted(self, outcome: Outcome, at: int, badge: int, minted: bytes) -> None:
        self._handles.add(badge, outcome.caps[at])
        outcome.caps[at], outcome.flags = minted, wire.MOVE
        self._replace(outcome, at + 1)

    def _answer(
        self, number: int, status: int, body: bytes, caps: tuple[bytes, ...] = (), flags: int = 0
    ) -> None:
        frame = wire.encode(
            wire.REPLY, flags=flags, status=status, seq=number, caps=caps, body=body
        )
        self.connection.transmit(frame)

    def _ask(
        self,
        outcome: Outcome,
        token: bytes,
        name: str,
        args: tuple[Any, ...],
        then: Callable[[Any], None],
    ) -> None:
        """A system call that the loop does not wait for; refused, it refuses the outcome too."""
        operation = SYSTEM_CALLS[name]

        def answered(m: wire.Message) -> None:
            if m.status:
                for kept in outcome.caps:
                    self._let_go(kept)
                self._answer(outcome.number, m.status, m.body)
            else:
                then(typed(operation.result, wire.unpack(m.body)))

        number = self.connection.post(token, operation.number, wire.pack(args), system=True)
        self._asked[number] = answered

    def _let_go(self, token: bytes) -> None:
        if self._handles.let_go(token):
            delete = SYSTEM_CALLS["delete"].number
            self.connection.post(token, delete, wire.pack(()), system=True, wanted=False)


class Steering(Interposer):
    """What may be asked of the interposer itself."""

    def __init__(self, task: InterposerTask) -> None:
        self.task = task

    def disturb(self, fault: str, probability: float, ms: int, jitter_ms: int, seed: int) -> None:
        self.task.link.disturb(fault, probability, ms, jitter_ms, seed)

    def pass_all(self) -> None:
        self.task.carry_out(self.task.link.pass_all(time.monotonic_ns()))

    def disturbed(self) -> list[Landed]:
        return self.task.link.disturbed(f"{self.task.connection.slot}->{self.task.to}")


def standing_for(interface: type[Interface]) -> type[InterposerTask]:
    """The task as a server of `interface`: `connect` compares fingerprints."""
    declared = interface_of(interface)
    made = type(declared.__name__, (InterposerTask,), {"ops": declared.ops})
    return cast(type[InterposerTask], made)


def main() -> None:
    args = task_info().args
    if not {"to", "serves"} <= args.keys():
        print("interposer: add args: {to: CALLEE, serves: ITS INTERFACE}", file=sys.stderr)
        sys.exit(NO_RESTART)
    standing_for(resolve_interface(str(args["serves"]))).run()
