"""household: several servers in one process, none of which knows.

Each member keeps its own slot, life, endpoint and capabilities, and its own connection to the
kernel; they share one loop, and call each other directly (`direct`). A program is started as ever:
its `run()` finds that it has housemates, and leaves serving to them. Members are set up in start
order; what comes for one that is in the middle of a call stays where it is.

A call that waits, because the answer comes with an interrupt or after another member's work, runs
the loop meanwhile. Then only those may work that cannot come to need a member that is busy: who
calls a busy file system, directly or through others, would wait for it on top of it, for ever. A
bug in one member ends all of them, whoever was calling it: there is nothing between them.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar, cast

from ukernel.abi import wire
from ukernel.abi.errors import DeadlinePassed, Denied, Protocol
from ukernel.abi.exits import NO_RESTART, OUT_OF_MEMORY
from ukernel.abi.interface import Interface, Operation, fingerprint
from ukernel.abi.tally import BEGUN, STRANGER, WITHIN, Callee
from ukernel.lib import direct, mischief, server, task
from ukernel.lib.confine import give_up_privileges, live_under
from ukernel.lib.connection import Connection, TaskInfo, error_of, play, task_infos
from ukernel.lib.direct import Call, Line
from ukernel.lib.loop import Loop
from ukernel.lib.porch import NUMBERS, Parcel, Porch
from ukernel.lib.server import Server
from ukernel.lib.stub import kernel
from ukernel.lib.way import Caller, Current

T = TypeVar("T", bound=Interface)


class SharedLoop(Loop):
    """A loop that says whose code runs."""

    shared = True

    def __init__(self, lines: Mapping[tuple[str, str], Line]) -> None:
        super().__init__()
        self._lines = lines

    def _sleep(self, until_ns: int) -> None:
        for line in self._lines.values():
            line.tell()
        super()._sleep(until_ns)

    def enter(self, member: Server) -> None:
        task.become(member.connection)


class Household:
    """The members of this process, in start order, and how they reach each other."""

    porch_ops = Porch.ops

    def __init__(self, infos: Sequence[TaskInfo]) -> None:
        self.servers: dict[str, Server] = {}
        self.parcels: dict[bytes, Parcel] = {}
        self._needs = _needs({info.name: info.beside.values() for info in infos})
        self._lines: dict[tuple[str, str], Line] = {}
        self.loop = SharedLoop(self._lines)
        self._programs: list[type[Server]] = []  # that have said that they would serve

    # --- moving in ------------------------------------------------------------------------------

    def move_in(self, info: TaskInfo, line: Connection, start: Callable[[str], None]) -> None:
        """Find its class by starting its program, set it up, and announce it."""
        task.become(line)
        member = self._program_of(info, start)(line)
        member.busy = True  # until it is set up
        member.setup()
        member.busy = False
        member.open_for_business()

    def _program_of(self, info: TaskInfo, start: Callable[[str], None]) -> type[Server]:
        self._programs.clear()
        play(info)
        start(info.module)
        if self._programs:
            return self._programs[-1]
        print(
            f"{info.name}: {info.module} runs no Server, so it cannot share a process: set "
            f"placement: micro, or leave out its `serves` ({info.origin})",
            file=sys.stderr,
        )
        sys.exit(NO_RESTART)

    def adopt(self, program: type[Server]) -> None:
        """Said by a program that would serve by itself, were it alone."""
        self._programs.append(program)

    def join(self, member: Server) -> Loop:
        """A server has come about; the loop that it is to use."""
        self.servers[member.connection.slot] = member
        member.connection.meanwhile = lambda *call: self._outcome(member, *call)
        return self.loop

    def serve(self) -> None:
        """Until one of them is told to stop: then all do, in reverse order."""
        members = list(self.servers.values())
        while all(member.running for member in members):
            self.loop.turn()
        for member in reversed(members):
            task.become(member.connection)
            member.busy = True
            member.stopping()
        for member in members:
            member.connection.socket.close()

    # --- who reaches whom -----------------------------------------------------------------------

    def connect(self, interface: type[T], name: str, timeout_s: float | None) -> T | None:
        """A direct stub of the callee that the current member knows as `name`; None for one that
        is not here."""
        caller = self.servers.get(task.connection().slot)
        callee = self.servers.get(task.connection().info.beside.get(name, ""))
        if caller is None or callee is None:
            return None
        wanted, found = fingerprint(interface), fingerprint(callee.stands_for())
        if wanted != found:
            raise Protocol(
                f"{caller.connection.slot} calls {name} as {interface.__name__} ({wanted}), but "
                f"{name} serves {found}: use the same version of the interface"
            )
        line = self.line(caller, callee, caller.connection.capability(name))
        badge = task.connection().info.badges.get(name, 0)
        target = callee.object_behind(badge)
        callee.holders.update([badge] if badge else [])
        return cast(T, direct.stub_class(cast(Any, interface))(line, target, timeout_s))

    def line(self, caller: Server, callee: Server, root: bytes = b"") -> Line:
        """The one line between two members."""
        ends = caller.connection.slot, callee.connection.slot
        found = self._lines.get(ends)
        if found is None or (root and not found.root):
            client = self._introduce(caller, root) if root else 0
            found = self._lines[ends] = Line(self, caller, callee, root, client)
        return found

    def cycle(self, line: Line) -> str:
        """What to say of a call to a member that is in the middle of one."""
        ends = line.caller.connection.slot, line.callee.connection.slot
        return f"would wait for itself: {ends[0]} -> {ends[1]}, which is in the middle of a call"

    # --- calls ----------------------------------------------------------------------------------

    def perform(
        self, line: Line, target: Interface, operation: Operation, call: Call, args: Sequence[Any]
    ) -> None:
        """Have a member do something for another; its answer goes to `call`, now or later."""
        callee, before = line.callee, task.connection()
        caller = Caller(target.badge, line.client, call.deadline_ns)
        task.become(callee.connection)
        try:
            callee.serve_direct(Current(call, operation, 0, caller), target, args)
        except BaseException as error:
            crash(error)
        if callee.puts_off:
            self.loop.stir()  # it may have put something off until it waits
        task.become(before)

    def wait_for(self, call: Call, caller: Server) -> None:
        """Let the others work until the call has its outcome, or its time is over."""

        def over() -> bool:
            if not call.done and 0 < call.deadline_ns <= time.monotonic_ns():
                callee = call.stub._line.callee.connection
                call.refuse(0, DeadlinePassed(f"with {callee.slot}#{callee.life} at its deadline"))
            return call.done

        stub, member = call.stub, call.stub._line.callee
        callee = Callee(member.connection.slot, stub._target.badge)
        caller.connection.tally.waits(callee, member.opcode_of(call), WITHIN, time.monotonic_ns())
        self._wait(caller, over, call.deadline_ns)
        caller.connection.tally.over()

    def _outcome(
        self, caller: Server, number: int, callee: Callee = STRANGER, opcode: int = 0
    ) -> wire.Message:
        """Let the others work until a call by the kernel has its outcome. Of one that was begun,
        only we know that it is waited for."""
        line, replies = caller.connection, list[wire.Message]()

        def over() -> bool:
            line.look()
            reply = line.collected(number)
            replies.extend([] if reply is None else [reply])
            return bool(replies)

        caller.connection.tally.waits(callee, opcode, BEGUN, time.monotonic_ns())
        self._wait(caller, over)
        caller.connection.tally.over()
        return replies[0]

    def _wait(self, caller: Server, over: Callable[[], bool], until_ns: int = 0) -> None:
        """Take turns until it is `over`; `caller`, and who might come to need it, have none."""
        before, was_busy = task.connection(), caller.busy
        caller.busy = True
        held = [member for member in self.servers.values() if self._needs_somebody_busy(member)]
        for member in held:
            member.busy = True
        try:
            while not over():
                self.loop.turn(until_ns)
        except BaseException as error:  # it was not the caller's
            crash(error)
        for member in held:
            member.busy = False
        caller.busy = was_busy
        self.loop.unmute()
        task.become(before)

    def _needs_somebody_busy(self, member: Server) -> bool:
        """Whether it is free itself, but calls somebody who is not, maybe through others."""
        needs = self._needs[member.connection.slot]
        return not member.busy and any(self.servers[s].busy for s in needs if s in self.servers)

    # --- capabilities ---------------------------------------------------------------------------

    def _introduce(self, caller: Server, root: bytes) -> int:
        """The number by which the kernel knows `caller`, as `root` proves its right to call."""
        return self._send(caller, root, "introduce", Parcel()).client

    def hand_over(self, line: Line, token: bytes) -> bytes:
        """The callee's own capability for what the caller holds as `token`."""
        return self._send(line.caller, line.root, "hand_over", Parcel(), token).token

    def fetch(self, line: Line, thing: Interface) -> bytes:
        """The caller's own capability for a stub or an object of the callee."""
        return self._send(line.caller, line.root, "fetch", Parcel(thing)).token

    def porch(self, member: Server) -> Porch:
        """What `member` can be asked by the others, and by nobody else."""
        return Porch(self.parcels, member)

    def _send(self, caller: Server, root: bytes, name: str, parcel: Parcel, *caps: bytes) -> Parcel:
        """Pass something from member to member through the kernel, which checks it."""
        if not root:
            raise Denied(f"{caller.connection.slot} may not pass this on: it has no right to call")
        line, password = caller.connection, os.urandom(wire.TOKEN_SIZE)
        self.parcels[password] = parcel
        body = wire.pack([password, *range(len(caps))])
        reply = self._outcome(caller, line.post(root, NUMBERS[name], body, caps))
        self.parcels.pop(password, None)
        if reply.status:
            raise error_of(reply)
        parcel.token = parcel.token or next(iter(reply.caps), b"")
        return parcel

    def let_go(self, callee: Server, badge: int) -> None:
        """One holder less of an object of a member."""
        callee.holders[badge] -= 1
        if callee.holders[badge] > 0:
            return
        del callee.holders[badge]
        line = callee.connection
        if badge not in kernel(line, line.named["self"]).badges():
            callee.unheld(badge)


def _needs(calls: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """Whom each member calls, directly or through others. They are in start order: callees first,
    so theirs are known."""
    needs: dict[str, set[str]] = {}
    for name, callees in calls.items():
        needs[name] = set(callees).union(*(needs.get(callee, ()) for callee in callees))
    return needs


def crash(error: BaseException) -> NoReturn:
    """End the process of an error that some member made, before another one catches it."""
    code: object = error.code if isinstance(error, SystemExit) else 1
    if isinstance(error, MemoryError):
        os._exit(OUT_OF_MEMORY)
    if not isinstance(error, SystemExit):
        traceback.print_exception(error)
    elif isinstance(code, str):
        print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def run(start: Callable[[str], None]) -> None:
    """Be all the tasks of this process. `start` runs a program by its module's name."""
    infos = task_infos()
    first = infos[0]
    server.take_signals()
    give_up_privileges()
    live_under(first.launcher, "+".join(info.name for info in infos), first.memory, len(infos))
    house = task.household = Household(infos)
    line: Connection | None = None
    try:
        for info in infos:
            mischief.arm(info.mischief)
            line = Connection(info, line)
            house.move_in(info, line, start)
        house.serve()
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    assert line is not None
    line.close()


def main() -> None:
    """`python -m ukernel.lib.household`: with a fresh interpreter."""

    def start(module: str) -> None:
        runpy.run_module(module, run_name="__main__", alter_sys=True)

    run(start)


if __name__ == "__main__":
    main()
