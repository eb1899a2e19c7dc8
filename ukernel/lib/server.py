"""server: the loop that turns messages into method calls and outcomes into replies.

    class Adder(Server, Sum):
        def add(self, a: u32, b: u32) -> u32:
            return a + b

    if __name__ == "__main__":
        Adder.run()

A restart is a start: `setup` takes the same path both times. An Answer raised by a method goes
to the caller; malformed arguments fault the caller; anything else ends the process, and the
supervisor acts.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ukernel.abi import wire
from ukernel.abi.errors import Answer, CallError, DeadlinePassed, Poison
from ukernel.abi.errors import Protocol as BadCall
from ukernel.abi.exits import OUT_OF_MEMORY
from ukernel.abi.interface import Interface, Lent, Operation, fingerprint, is_interface, typed
from ukernel.lib import mischief, task
from ukernel.lib.bell import RUNG
from ukernel.lib.channel import Channel
from ukernel.lib.connection import Connection
from ukernel.lib.device import Device
from ukernel.lib.door import Door
from ukernel.lib.loop import Loop
from ukernel.lib.means import Means
from ukernel.lib.notification import Notification
from ukernel.lib.reception import Reception
from ukernel.lib.stub import SYSTEM_CALLS, UnderWay, bind
from ukernel.lib.way import NOBODY, Caller, Current, Pending, Way

R = TypeVar("R")


class Server(Means):
    """Base of a server: mix it with the Interface that it implements.

    `setup` runs before anything is served; `stopping` before an orderly exit. What it has to work
    with, as `region` and `caller`, is in `Means`.
    """

    watched: set[int]  # descriptors
    doors: list[Door]
    returns: list[Channel]  # by which the outcomes of calls come that were begun
    busy: bool  # in the middle of a call
    running: bool
    puts_off: bool
    alarm_ns: int  # CLOCK_MONOTONIC at which `alarmed` is due; 0: never

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        taken = {*vars(Server), *Server.__annotations__, *vars(Means), *Means.__annotations__}
        for name in sorted(operation.name for operation in cls.ops.values()):
            if name in taken:
                raise TypeError(f"{cls.__name__}: every server has a {name}; rename the operation")

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.watched = set()
        self.doors = []
        self.returns = []
        self._begins = False  # calls whose outcome the loop tells
        self.busy = False
        self.running = True
        self.puts_off = type(self).before_waiting is not Server.before_waiting
        self._loop = task.household.join(self) if task.household is not None else Loop()
        self._loop.join(self)
        self._recorder = connection.recorder
        self.alarm_ns = 0
        self._taken = 0  # requests of doors that are no more
        self._told = 0, 0

    # --- what a server overrides ----------------------------------------------------------------

    def setup(self) -> None:
        """Get ready to serve. The same after a crash as at the first start."""

    def stopping(self) -> None:
        """Save what must be saved; the process exits next."""

    def unheld(self, badge: int) -> None:
        """Nobody holds the capability with this badge any more."""
        self.objects.pop(badge, None)

    def alarmed(self) -> None:
        """`alarm_ns` has come (it is 0 again); to the millisecond."""

    def before_waiting(self) -> None:
        """All that is here has been handled. For what is done once for several requests."""

    def stands_for(self) -> type[Interface]:
        """The interface that callers are to find here."""
        return type(self)

    def restore(self, badge: int) -> Interface | None:
        """The object behind a badge that an earlier life handed out, if it still exists, or that
        the system file gives (`calls: [{parts: {badge: 1}}]`)."""
        return None

    # --- what else it waits for -----------------------------------------------------------------

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Call `ready` whenever `fd` is readable: an interrupt line, a notification."""
        self.watched.add(fd)
        self._loop.watch(self, fd, ready)

    def unwatch(self, fd: int) -> None:
        """Stop watching `fd`."""
        self.watched.remove(fd)
        self._loop.unwatch(fd)

    def watch_line(self, fd: int, rung: Callable[[], None]) -> None:
        """Call `rung` after each edge of a doorbell or an interrupt line (ukernel.lib.bell)."""
        self.watched.add(fd)
        self._loop.watch(self, fd, rung, RUNG)

    def watch_interrupt(self, device: Device, handler: Callable[[], None]) -> None:
        """Call `handler` after an interrupt. A hint: the device may have nothing."""
        self.watch_line(device.interrupt, handler)

    def notification(self, handler: Callable[[int], None]) -> Notification:
        """A notification of one's own; `handler` gets the bits whenever some were signalled."""
        made = Notification(self.connection)
        self.watch(made.fd, lambda: handler(made.take()))
        return made

    # --- the loop -------------------------------------------------------------------------------

    @classmethod
    def run(cls) -> None:
        """Connect, set up, serve until asked to stop. Call it under `if __name__ == "__main__"`."""
        if task.household is not None:
            task.household.adopt(cls)
            return
        take_signals()
        connection = task.connection()
        mischief.arm(connection.info.mischief)
        try:
            server = cls(connection)
            server.setup()
            server.serve()
            server.stopping()
        except MemoryError:
            os._exit(OUT_OF_MEMORY)  # there may be none left to do more
        connection.leave()

    def serve(self) -> None:
        """Announce readiness, then take one message after the other."""
        self.open_for_business()
        connection, receive = self.connection, self.connection.receive
        while self.running:
            if connection.inbox:
                self._handle(connection.inbox.popleft())
            elif not (self.doors or self.puts_off or self.watched or self.alarm_ns or self._begins):
                self._handle(receive())  # the kernel is all that there is to wait for
            else:
                self._loop.turn()

    def open_for_business(self) -> None:
        """Say that setup is done, and ask for messages."""
        ready = SYSTEM_CALLS["ready"].number
        body = wire.pack([fingerprint(self.stands_for())])
        self.connection.post(wire.NO_TOKEN, ready, body, system=True, wanted=False)
        self._give_credit(MAX_WINDOW)

    def tell_doors(self) -> None:
        """What has come through doors, and what is in hand, for who looks whether we get on."""
        taken, in_hand = self._taken, 0
        for door in self.doors:
            taken += door.taken
            in_hand += door.in_hand
        if (taken, in_hand) != self._told:
            self.connection.tally.tell_doors(taken, in_hand)
            self._told = taken, in_hand

    def handle_all(self) -> None:
        """Handle what has come by any way: messages, and a request of each door."""
        connection = self.connection
        for _ in range(MOST_MESSAGES):  # others want a turn too
            m = connection.poll_notice() if connection.stirred or connection.inbox else None
            if m is None:
                break
            self._handle(m)
            if not self.running:
                return
        for door in tuple(self.doors):
            self._look_behind(door)
        if self._begins:
            self._tell_outcomes()

    def _give_credit(self, count: int) -> None:
        token = self.connection.named["self"]
        self.connection.transmit(wire.encode(wire.RECV, seq=count, token=token))

    def _handle(self, m: wire.Message) -> None:
        if m.op == wire.DELIVER:
            self._serve_call(m)
        elif m.op == wire.NOTICE:
            self.notice(m.opcode, wire.unpack(m.body))
        else:
            self.connection.put_aside(m)

    def notice(self, kind: int, body: Any) -> None:
        """What the kernel says on its own."""
        if kind == wire.NOTICE_UNHELD:
            for badge in body:
                if not self.holders[badge]:
                    self.unheld(badge)
        elif kind == wire.NOTICE_STOP:
            self.running = False
        elif kind == wire.NOTICE_PING:
            self._give_credit(0)  # asks for nothing: that it is said is the answer
            self.tell_doors()  # it may never get to sleep

    def _serve_call(self, m: wire.Message) -> None:
        """A request that the kernel has delivered."""
        badge, client = unpack_stamp(m.token)
        way: Way = NOBODY if m.flags & wire.ONEWAY else self._kernel
        caller = _new(Caller, (badge, client, m.deadline_ns))
        self.serve_one(way, caller, m.seq, m.opcode, m.body, m.caps)
        if way is NOBODY:
            self._give_credit(1)

    def serve_one(
        self, way: Way, caller: Caller, number: int, opcode: int, body: bytes, caps: Sequence[bytes]
    ) -> None:
        """One request: find the object and the operation, check the arguments, do it, answer."""
        recorder, badge = self._recorder, caller.badge
        any_poison = recorder.take(number, badge, opcode, body)
        self.busy = True
        try:
            if any_poison and recorder.in_hand_is_poison():
                raise Poison(f"two lives of {self.connection.slot} died of this request")
            target = self.object_behind(badge)
            operation = target.ops.get(opcode)
            if operation is None:
                target, operation = self._reserved(target, opcode)
            try:
                args = operation.arguments(body)
            except wire.Malformed as error:
                raise BadCall(f"{operation.name}: {error}") from None
            if not operation.plain_params:
                args = self._given(operation, args, caps)
            self._current = _new(Current, (way, operation, number, caller))
            result = getattr(target, operation.name)(*args)
        except (Answer, CallError) as error:
            way.refuse(number, error)
        else:
            if type(result) is not Pending:
                way.reply(operation, number, result)
        recorder.done()
        self.busy = False

    def serve_direct(self, current: Current, target: Interface, args: Sequence[Any]) -> None:
        """A request from this process, whose arguments are what the operation says."""
        self.busy = True
        self._current = current
        try:
            result = getattr(target, current.operation.name)(*args)
        except (Answer, CallError) as error:
            current.way.refuse(current.number, error)
        else:
            if type(result) is not Pending:
                current.way.reply(current.operation, current.number, result)
        self.busy = False

    def opcode_of(self, way: Way) -> int:
        """What was asked by this way, if that was the last thing that we were asked; else 0."""
        current = self._current
        return current.operation.number if current is not None and current.way is way else 0

    def _reserved(self, target: Interface, opcode: int) -> tuple[Interface, Operation]:
        """What every server can be asked, besides what it serves."""
        if task.household is not None and opcode in task.household.porch_ops:
            return task.household.porch(self), task.household.porch_ops[opcode]
        operation = Reception.ops.get(opcode)
        if operation is None:
            raise BadCall(f"{type(target).__name__} has no operation {opcode}")
        return Reception(self), operation

    # --- calls that were begun ------------------------------------------------------------------

    def when(self, call: UnderWay[R], done: Callable[[UnderWay[R]], None]) -> None:
        """Call `done(call)` in the loop once a call that was begun has its outcome, unless it is
        forgotten before. Then `call.result()` does not wait, and what a death has cut short it does
        not ask again. `done` takes the result, or says `call.forget()`: it is kept until then.

        A deadline is kept by the kernel. By a channel or in one process the callee may be late: for
        calls that it answers when it likes, connect with `timeout_s=None`.
        """
        self._begins = True
        channel = call.tell(lambda: None if call.forgotten else done(call))
        if channel is not None and channel.held and channel not in self.returns:
            self.returns.append(channel)
            channel.leaving = self._no_more_returns
            self._loop.watch_end(self, channel)

    def _tell_outcomes(self) -> None:
        for channel in tuple(self.returns):
            channel.look()
        finished = self.connection.finished
        for _ in range(len(finished)):
            finished.popleft()()

    def _no_more_returns(self, channel: Channel) -> None:
        self._loop.unwatch(channel.bell)
        self.returns.remove(channel)

    # --- channels -------------------------------------------------------------------------------

    def admit(self, door: Door) -> None:
        """Take requests from this door too."""
        self.doors.append(door)
        self._loop.watch_end(self, door)

    def dismiss(self, door: Door) -> None:
        """Nobody is behind it any more, or somebody who breaks the rules."""
        if door.wrong:
            print(f"channel of client {door.client} closed: {door.wrong}", flush=True)
        self._loop.unwatch(door.bell)
        self.doors.remove(door)
        self._taken += door.taken
        door.close()

    def _look_behind(self, door: Door) -> None:
        """Serve one request of a door, if it has one."""
        request = door.take()
        if request is None:
            if door.closed:
                self.dismiss(door)
            else:
                door.flush()
            return
        opcode, number, deadline_ns, body = request
        if deadline_ns and time.monotonic_ns() >= deadline_ns:
            door.refuse(number, DeadlinePassed("in the ring at its deadline"))
        else:
            caller = _new(Caller, (door.badge, door.client, deadline_ns))
            self.serve_one(door, caller, number, opcode, body, door.lent)

    # --- from bytes to calls, and back ----------------------------------------------------------

    def object_behind(self, badge: int) -> Interface:
        """What callers with this badge call: one's own interface, or an object. Raises Protocol."""
        if badge == 0:
            return self
        found = self.objects.get(badge) or self.restore(badge)
        if found is None:
            raise BadCall(f"{self.connection.slot} knows no object with badge {badge}")
        self.objects[badge] = found
        return found

    def _given(self, operation: Operation, values: list[Any], caps: Sequence[bytes]) -> list[Any]:
        """The arguments of a call, of which not all are plain data."""
        kinds = (param.kind for param in operation.params)
        return [self._special(kind, v, caps) for kind, v in zip(kinds, values, strict=True)]

    def _special(self, kind: Any, value: Any, caps: Sequence[bytes]) -> Any:
        """Give an argument back what it is: lent memory, a capability, a named tuple."""
        if kind is not Lent and not is_interface(kind):
            return typed(kind, value)
        index = value[0] if kind is Lent else value
        if index >= len(caps):
            raise BadCall(f"argument names capability {index} of {len(caps)}")
        if kind is Lent:
            return Lent(caps[index], value[1], value[2])
        return bind(kind, self.connection, caps[index])

    def _refuse(self, number: int, error: Answer | CallError) -> None:
        """What there is in place of a result, for a request that the kernel has delivered."""
        self._kernel.refuse(number, error)


unpack_stamp = wire.STAMP.unpack
_new = tuple.__new__  # of a NamedTuple, in half the time
MOST_MESSAGES = 64  # handled in one turn
MAX_WINDOW = 255  # ask for all that the endpoint's window allows


def take_signals() -> None:
    """How a task takes Ctrl-C, which is the launcher's, and SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _terminated)


def _terminated(signum: int, frame: object) -> None:
    """SIGTERM ends a task at once, as SIGKILL would; the orderly way is the kernel's notice."""
    os._exit(128 + signum)
