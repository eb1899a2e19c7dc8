"""keeper: what a monitor has whatever runs its guest: settings, what the guest has shown and who
waits for more of it, snapshots by turns, and the image that is saved or loaded piece by piece.

All but the image is in memory that the next life gets back.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from servers.vmm import image, snapshots, transcript
from servers.vmm.image import Arriving, Image
from servers.vmm.settings import UNICORN, BadSettings, Settings
from servers.vmm.snapshots import Snapshot, Snapshots
from servers.vmm.transcript import Transcript
from servers.vmm.wish import Wish, Wishes
from ukernel.abi import wire
from ukernel.abi.errors import Answer
from ukernel.abi.exits import NO_RESTART
from ukernel.abi.interface import Lent
from ukernel.abi.vm import (
    EMPTY,
    FAILED,
    HALTED,
    OUTPUT_BYTES,
    OUTPUT_WAIT_MS,
    BadImage,
    Moments,
    Output,
    VmFailed,
    WrongState,
)
from ukernel.lib.mapping import populate
from ukernel.lib.server import Server
from ukernel.lib.way import Pending

T = TypeVar("T")
MARGIN_NS = 100_000_000  # before a caller's deadline
NS_PER_MS = 1_000_000
WAITERS = 8  # who wait for output: half of the window
BEGUN, MADE, LOADED, SHOWN = range(4)  # of ukernel.abi.vm.Moments
TRANSCRIPT_AT = 64  # in the memory that is kept; wishes are before it
TAIL = 16 << 10  # bytes of output that go with an image
STRETCH = 16 << 20  # bytes of memory that are put in place at once


class Waiter(NamedTuple):
    """Who waits for what comes from a position on."""

    pending: Pending[Output]
    at: int
    until_ns: int


class Errand(NamedTuple):
    """What waits for the devices, and who waits for it."""

    pending: Pending[Any]
    do: Callable[[Pending[Any]], None]


class Thawed(NamedTuple):
    """What is in an image besides memory."""

    state: bytes
    end: int  # of what was shown
    tail: bytes  # the last of it


def answer(pending: Pending[T], do: Callable[[], T]) -> None:
    """With what it comes to."""
    try:
        result = do()
    except Answer as error:
        pending.fail(error)
    else:
        pending.answer(result)


class Keeper(Server):
    """Base of a monitor."""

    engine = UNICORN
    snapshots_taken = 0
    snapshot_pause_ns = 0
    snapshot_at_ns = 0
    restored_from_ms = 0

    def setup(self) -> None:
        self.moments = [0] * len(Moments._fields)
        self.come_to(BEGUN)
        self.settings = self._settings()
        self.kept = self.region("kept", TRANSCRIPT_AT + transcript.BYTES, persistent=True).view
        self.wishes, self.transcript = Wishes(self.kept), Transcript(self.kept[TRANSCRIPT_AT:])
        self.snapshots = self._kept_snapshots(self.settings.memory)
        self.why = ""
        self._frozen: Image | None = None
        self._arriving: Arriving | None = None
        self._waiters: deque[Waiter] = deque()
        self._errands: deque[Errand] = deque()

    def condition(self) -> tuple[str, str]:
        """The state of VmStatus, and of one that has failed: why."""
        raise NotImplementedError

    @property
    def idle(self) -> bool:
        """No device does anything for a guest, of this moment or an earlier one."""
        raise NotImplementedError

    @property
    def starting(self) -> bool:
        """It is to go on from what was loaded, and does not yet."""
        return self.condition()[0] == EMPTY and bool(self._errands)

    @property
    def guest_memory(self) -> memoryview:
        """All that the guest has."""
        raise NotImplementedError

    def check(self, *states: str) -> None:
        """It has to be in one of them. Raises VmFailed and WrongState."""
        state, why = self.condition()
        if state == FAILED and FAILED not in states:
            raise VmFailed(why)
        if self.starting:
            raise WrongState("it is about to go on from what was loaded")
        if state not in states:
            more = "; it has switched itself off" if state == HALTED else ""
            raise WrongState(f"it is {state}, and not {' or '.join(states)}{more}")

    def say(self, text: str) -> None:
        """A line of its log."""
        print(f"{self.connection.slot}: {text}", flush=True)

    def come_to(self, moment: int) -> None:
        self.moments[moment] = time.monotonic_ns()

    def when_idle(self, do: Callable[[Pending[T]], None]) -> Pending[T]:
        """Have the call under way answered by `do`: now, or when its devices have done what they
        had begun."""
        pending: Pending[T] = self.pending()
        self._errands.append(Errand(pending, do))
        return pending

    def do_errands(self) -> None:
        while self._errands and self.idle:
            errand = self._errands.popleft()
            errand.do(errand.pending)

    def notice(self, kind: int, body: Any) -> None:
        """One that is off is on in the life after an orderly end: there is no other button."""
        if kind == wire.NOTICE_STOP and self.condition()[0] == HALTED:
            self.wishes.write(Wish.RUN)
            self.snapshots.clear()
        super().notice(kind, body)

    def _settings(self) -> Settings:
        try:
            return Settings.of(self.args, self.engine)
        except BadSettings as error:
            print(f"{error} ({self.connection.info.origin})", file=sys.stderr)
            sys.exit(NO_RESTART)

    def _kept_snapshots(self, memory: int) -> Snapshots:
        size = snapshots.room(memory)
        regions = [self.region(f"snapshot-{n}", size, persistent=True) for n in range(2)]
        return Snapshots([region.view for region in regions], memory)

    # --- snapshots ------------------------------------------------------------------------------

    def keep(self, state: bytes, memory: memoryview, begun_ns: int) -> Snapshot:
        """Take a snapshot of a machine that stands still: in one go, so it is of one moment."""
        taken = self.snapshots.write(state, memory, begun_ns)
        self.snapshot_at_ns = begun_ns
        self.snapshots_taken += 1
        return taken

    def goes_on_from(self, found: Snapshot) -> None:
        """This life has begun with a snapshot."""
        self.snapshot_at_ns = found.taken_ns
        age_ns = time.monotonic_ns() - found.taken_ns
        self.restored_from_ms = max(1, age_ns // NS_PER_MS)

    @property
    def snapshot_age_ms(self) -> int:
        since_ns = time.monotonic_ns() - self.snapshot_at_ns if self.snapshot_at_ns else 0
        return since_ns // NS_PER_MS

    def give_up(self) -> None:
        """Nothing of the guest is kept, for the next life neither."""
        self.wishes.write(Wish.EMPTY)
        self.snapshots.clear()
        self._frozen, self._arriving, self.snapshot_at_ns = None, None, 0
        errands, self._errands = self._errands, deque()
        for errand in errands:
            errand.pending.fail(WrongState("it was discarded meanwhile"))

    # --- images ---------------------------------------------------------------------------------

    def freeze(self, taken: Snapshot) -> int:
        """Have an image of the snapshot in which it stands; its bytes. It is read in there, so no
        other may be taken before `melt`."""
        end = self.transcript.end
        tail = self.transcript.read(end - min(end, TAIL), TAIL)[1]
        self._frozen = Image(wire.pack([taken.state, end, tail]), taken.memory)
        return self._frozen.size

    def melt(self) -> None:
        """It goes on."""
        self._frozen = None

    def image(self, offset: int, into: Lent) -> int:
        if self._frozen is None:
            raise WrongState("nothing is saved, or it has been resumed since: save it")
        return self._frozen.fill(offset, self.memory(into, write=True))

    def make_room(self) -> None:
        self.check(EMPTY)
        for memory in (self.snapshots.spare, self.guest_memory):
            for at in range(0, len(memory), STRETCH):
                populate(memory[at : at + STRETCH])
                self.progress()

    def load(self, offset: int, data: Lent) -> None:
        self.check(EMPTY)
        if offset == 0 or self._arriving is None:
            self._arriving = Arriving(self.snapshots.spare)
        try:
            self._arriving.take(offset, self.memory(data))
        except image.BadImage as error:
            raise BadImage(str(error)) from None

    def thaw(self) -> Thawed:
        """What was loaded: its memory is the guest's then. Raises BadImage."""
        arrived, self._arriving = self._arriving or Arriving(self.snapshots.spare), None
        try:
            state, end, tail = wire.unpack(arrived.state(self.settings.memory))
            found = Thawed(bytes(state), int(end), bytes(tail))
            arrived.unfold(self.guest_memory)
        except image.BadImage as error:
            raise BadImage(str(error)) from None
        except (wire.Malformed, TypeError, ValueError) as error:
            raise BadImage(f"it is not what a monitor has made: {error}") from None
        return found

    # --- output ---------------------------------------------------------------------------------

    def show(self, data: bytes) -> None:
        """The guest shows this."""
        self.transcript.put(data)
        if not self.moments[SHOWN]:
            self.come_to(SHOWN)

    def output(self, at: int) -> Output:
        """What comes from a position on, now or in a while."""
        if self.transcript.end > at or len(self._waiters) >= WAITERS:
            return Output(*self.transcript.read(at, OUTPUT_BYTES))
        pending: Pending[Output] = self.pending()
        until_ns = time.monotonic_ns() + OUTPUT_WAIT_MS * NS_PER_MS
        if self.caller.deadline_ns:
            until_ns = min(until_ns, self.caller.deadline_ns - MARGIN_NS)
        self._waiters.append(Waiter(pending, at, until_ns))
        return pending.later

    def tell_output(self, now_ns: int) -> int:
        """Answer those for whom there is some, or who have waited for long; when to look again, 0:
        when something comes."""
        end = self.transcript.end
        for waiter in [w for w in self._waiters if end > w.at or now_ns >= w.until_ns]:
            self._waiters.remove(waiter)
            waiter.pending.answer(Output(*self.transcript.read(waiter.at, OUTPUT_BYTES)))
        return min((waiter.until_ns for waiter in self._waiters), default=0)
