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
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar, cast

import zmq

from ukernel.abi import wire
from ukernel.abi.errors import Answer, CallError, Code, Denied, Poison, Protocol
from ukernel.abi.exits import OUT_OF_MEMORY
from ukernel.abi.interface import Interface, Lent, Operation, fingerprint, is_interface, typed
from ukernel.abi.recorder import SIZE as RECORDER_BYTES
from ukernel.abi.recorder import Recorder
from ukernel.abi.syscalls import CALL, GRANT
from ukernel.lib import mischief, task
from ukernel.lib.connection import Connection
from ukernel.lib.device import Device
from ukernel.lib.line import lower_line
from ukernel.lib.mapping import map_shared
from ukernel.lib.memory import Borrowed, Region
from ukernel.lib.notification import Notification
from ukernel.lib.stub import SYSTEM_CALLS, Stub, bind, kernel

T = TypeVar("T")


class Caller(NamedTuple):
    """Who made the call that is being served, as the kernel stamped it."""

    badge: int
    client: int
    deadline_ns: int


class Pending(Generic[T]):
    """A reply that comes later. Return `pending.later` from the method; then `answer` or `fail`."""

    def __init__(self, server: Server, operation: Operation, number: int) -> None:
        self._server = server
        self._operation = operation
        self._number = number

    @property
    def later(self) -> T:
        """What the method returns in place of the result."""
        return cast(T, self)

    def answer(self, value: T) -> None:
        self._server._reply(self._operation, self._number, value)

    def fail(self, error: Answer | CallError) -> None:
        self._server._refuse(self._number, error)


class Server(Interface):
    """Base of a server: mix it with the Interface that it implements.

    `setup` runs before anything is served; `stopping` before an orderly exit. `caller` is who
    made the call under way.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.args = connection.info.args
        self.state = connection.info.state
        self.objects: dict[int, Interface] = {}
        self._borrowed = Borrowed(connection)
        self._watched: dict[int, Callable[[], None]] = {}
        self._poller = zmq.Poller()
        self._poller.register(connection.socket, zmq.POLLIN)
        self._current: tuple[Operation, wire.Message] | None = None
        self._running = True
        self._recorder = _recorder(connection)
        self.alarm_ns = 0  # CLOCK_MONOTONIC at which `alarmed` is due; 0: never

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

    def stands_for(self) -> type[Interface]:
        """The interface that callers are to find here."""
        return type(self)

    def restore(self, badge: int) -> Interface | None:
        """The object behind a badge that an earlier life handed out, if it still exists."""
        return None

    # --- what a server uses ---------------------------------------------------------------------

    def region(self, name: str, size: int, *, persistent: bool = False) -> Region:
        """Memory of one's own; `persistent` memory is there again in the next life.

        Raises Denied when the system file says that this server keeps nothing.
        """
        if persistent and self.state == "stateless":
            raise Denied(
                f"{self.connection.slot} keeps a region, but its state is stateless: set "
                f"state: persistent or disk ({self.connection.info.origin})"
            )
        return Region(self.connection, name, size, persistent=persistent)

    def memory(self, lent: Lent, *, write: bool = False) -> memoryview:
        """The bytes lent with a call."""
        return self._borrowed.view(lent, write=write)

    def device(self, name: str = "") -> Device:
        """A device that the system file gives this server; without a name, its first."""
        given = self.connection.info.devices
        if not name and not given:
            raise Denied(f"{self.connection.slot} drives a device: name it under .devices")
        return Device(self.connection, name or given[0])

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Call `ready` whenever `fd` is readable: an interrupt line, a notification."""
        self._watched[fd] = ready
        self._poller.register(fd, zmq.POLLIN)

    def unwatch(self, fd: int) -> None:
        """Stop watching `fd`."""
        del self._watched[fd]
        self._poller.unregister(fd)

    def watch_interrupt(self, device: Device, handler: Callable[[], None]) -> None:
        """Call `handler` after an interrupt. A hint: the device may have nothing."""

        def interrupted() -> None:
            lower_line(device.interrupt)
            handler()

        self.watch(device.interrupt, interrupted)

    def notification(self, handler: Callable[[int], None]) -> Notification:
        """A notification of one's own; `handler` gets the bits whenever some were signalled."""
        made = Notification(self.connection)
        self.watch(made.fd, lambda: handler(made.take()))
        return made

    def pending(self) -> Pending[Any]:
        """Take the call under way out of the loop: its reply comes later."""
        assert self._current is not None, "only while a call is served"
        operation, m = self._current
        return Pending(self, operation, m.seq)

    @property
    def caller(self) -> Caller:
        """Who made the call under way."""
        assert self._current is not None, "only while a call is served"
        m = self._current[1]
        badge, client = unpack_stamp(m.token)
        return Caller(badge, client, m.deadline_ns)

    def progress(self) -> None:
        """Say, from within a long call, that it is getting on: `ukernel ps` and whoever watches
        for hangs can tell slow from stuck."""
        kernel(self.connection).progress()

    def export(self, obj: Interface, badge: int) -> None:
        """Make `obj` callable under `badge`; returned from a method it becomes a capability."""
        obj.badge = badge
        self.objects[badge] = obj

    def held_badges(self) -> list[int]:
        """Badges that clients still hold, from this life or an earlier one."""
        return kernel(self.connection, self.connection.named["self"]).badges()

    # --- the loop -------------------------------------------------------------------------------

    @classmethod
    def run(cls) -> None:
        """Connect, set up, serve until asked to stop. Call it under `if __name__ == "__main__"`."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's
        signal.signal(signal.SIGTERM, _terminated)
        connection = task.connection()
        mischief.arm(connection.info.mischief)
        try:
            server = cls(connection)
            server.setup()
            server.serve()
            server.stopping()
        except MemoryError:
            os._exit(OUT_OF_MEMORY)  # there may be none left to do more
        connection.close()

    def serve(self) -> None:
        """Announce readiness, then take one message after the other."""
        connection = self.connection
        ready = SYSTEM_CALLS["ready"].number
        body = wire.pack([fingerprint(self.stands_for())])
        connection.post(wire.NO_TOKEN, ready, body, system=True, wanted=False)
        self._give_credit(MAX_WINDOW)
        inbox, receive = connection.inbox, connection.receive
        while self._running:
            if inbox:
                self._handle(inbox.popleft())
            elif self._watched or self.alarm_ns:
                self._poll()
            else:
                self._handle(receive())

    def _poll(self) -> None:
        for source, _ in self._poller.poll(self._patience_ms()):
            if source is self.connection.socket:
                self._handle(self.connection.receive())
            elif source in self._watched:  # an earlier one may have ended it
                self._watched[source]()
        if self.alarm_ns and time.monotonic_ns() >= self.alarm_ns:
            self.alarm_ns = 0
            self.alarmed()

    def _patience_ms(self) -> int | None:
        if not self.alarm_ns:
            return None
        wait_ms = -(-(self.alarm_ns - time.monotonic_ns()) // 1_000_000)
        return min(max(0, wait_ms), MAX_WAIT_MS)

    def _give_credit(self, count: int) -> None:
        token = self.connection.named["self"]
        self.connection.socket.send(wire.encode(wire.RECV, seq=count, token=token))

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
                self.unheld(badge)
        elif kind == wire.NOTICE_STOP:
            self._running = False
        elif kind == wire.NOTICE_PING:
            self._give_credit(0)  # asks for nothing: that it is said is the answer

    def _serve_call(self, m: wire.Message) -> None:
        """One request: find the object and the operation, check the arguments, do it, answer."""
        badge, _ = unpack_stamp(m.token)
        oneway = m.flags & wire.ONEWAY
        recorder = self._recorder
        recorder.take(m.seq, badge, m.opcode, m.body)
        try:
            if recorder.any_poison and recorder.in_hand_is_poison():
                raise Poison(f"two lives of {self.connection.slot} died of this request")
            target = self._target(badge)
            operation = target.ops.get(m.opcode)
            if operation is None:
                raise Protocol(f"{type(target).__name__} has no operation {m.opcode}")
            args = self._arguments(operation, m)
            self._current = operation, m
            result = getattr(target, operation.name)(*args)
        except (Answer, CallError) as error:
            if not oneway:
                self._refuse(m.seq, error)
        else:
            if not oneway and type(result) is not Pending:
                self._reply(operation, m.seq, result)
        recorder.done()
        if oneway:
            self._give_credit(1)

    def _target(self, badge: int) -> Interface:
        if badge == 0:
            return self
        found = self.objects.get(badge) or self.restore(badge)
        if found is None:
            raise Protocol(f"{self.connection.slot} knows no object with badge {badge}")
        self.objects[badge] = found
        return found

    def _arguments(self, operation: Operation, m: wire.Message) -> list[Any]:
        try:
            values = operation.arguments(m.body)
        except wire.Malformed as error:
            raise Protocol(f"{operation.name}: {error}") from None
        if operation.plain_params:
            return values
        kinds = (param.kind for param in operation.params)
        return [self._special(kind, v, m.caps) for kind, v in zip(kinds, values, strict=True)]

    def _special(self, kind: Any, value: Any, caps: tuple[bytes, ...]) -> Any:
        """Give an argument back what it is: lent memory, a capability, a named tuple."""
        if kind is not Lent and not is_interface(kind):
            return typed(kind, value)
        index = value[0] if kind is Lent else value
        if index >= len(caps):
            raise Protocol(f"argument names capability {index} of {len(caps)}")
        if kind is Lent:
            return Lent(caps[index], value[1], value[2])
        return bind(kind, self.connection, caps[index])

    def _reply(self, operation: Operation, number: int, value: Any) -> None:
        if not operation.plain_result and is_interface(operation.result):
            caps, flags, value = self._handle_for(value)
            body = wire.pack(value)
            frame = wire.encode(wire.REPLY, flags=flags, seq=number, caps=caps, body=body)
        else:
            frame = wire.encode(wire.REPLY, seq=number, body=wire.pack(value))
        try:
            self.connection.transmit(frame)
        except Protocol as error:  # the caller asked for too much; that must not kill anybody
            self._refuse(number, error)

    def _handle_for(self, obj: Any) -> tuple[tuple[bytes, ...], int, int]:
        """A capability for a result: an own object's is minted and leaves us, another is shared."""
        if isinstance(obj, Stub):
            return (obj.token,), 0, 0
        own = kernel(self.connection, self.connection.named["self"])
        minted = own.mint(CALL | GRANT, obj.badge)
        return (minted,), wire.MOVE, 0

    def _refuse(self, number: int, error: Answer | CallError) -> None:
        if isinstance(error, Answer):
            status, body = Code.ANSWER, wire.pack([type(error).__name__, str(error)])
        else:
            status, body = error.code, wire.pack([str(error), error.detail])
        frame = wire.encode(wire.REPLY, status=status, seq=number, body=body)
        self.connection.socket.send(frame)


def _recorder(connection: Connection) -> Recorder:
    """The page that the launcher gave; a task that nobody supervises has one of its own."""
    fd = connection.info.recorder_fd
    if fd < 0:
        return Recorder(memoryview(bytearray(RECORDER_BYTES)))
    page = map_shared(fd, RECORDER_BYTES, writable=True)
    os.close(fd)
    return Recorder(page)


unpack_stamp = wire.STAMP.unpack
MAX_WAIT_MS = 3_600_000  # of one poll, which takes a C int: who asks for more waits again
MAX_WINDOW = 255  # ask for all that the endpoint's window allows


def _terminated(signum: int, frame: object) -> None:
    """SIGTERM ends a task at once, as SIGKILL would; the orderly way is the kernel's notice."""
    os._exit(128 + signum)
