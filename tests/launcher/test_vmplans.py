"""Plans for virtual machines, on monitors that fail at any step: none is lost, none runs twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from launcher import vmplans
from launcher.asks import plain
from launcher.errands import Asking, Declined, Plan
from launcher.vmplans import ROOM, WINDOW, CannotDo, Like
from tests.launcher.monitors import Guest, Memory
from ukernel.abi.errors import Answer, CallError, DeadlinePassed, Unavailable
from ukernel.abi.interface import Lent
from ukernel.abi.vm import EMPTY, PAUSED, RUNNING
from ukernel.lib.memory import Region

CONTENT = bytes(range(251)) * (3 * WINDOW // 251 + 300)  # no two windows are alike
MEMORY = 1 << 20


def guest(content: bytes | None = CONTENT, engine: str = "unicorn", memory: int = MEMORY) -> Guest:
    return Guest(engine, memory, content)


class Monitors:
    """Carries a plan out. `fail` says what becomes of the n-th call: an exception in its place,
    before it was done or after."""

    def __init__(self, **guests: Guest) -> None:
        self.guests = guests
        self.memory = Memory(ROOM)
        self.calls: list[str] = []
        self.fail: Callable[[int], tuple[Exception, bool] | None] = lambda number: None
        self.seconds = 0.0

    @property
    def region(self) -> Region:
        return cast(Region, self.memory)

    def clock(self) -> float:
        self.seconds += 1.5
        return self.seconds

    def carry_out(self, plan: Plan) -> Any:
        outcomes: Any = None
        try:
            while True:
                asked = next(plan) if outcomes is None else plan.send(outcomes)
                outcomes = [self._one(asking) for asking in asked]
        except StopIteration as end:
            return end.value

    def _one(self, asking: Asking) -> Any:
        self.calls.append(f"{asking.server}.{asking.operation}")
        error, done = self.fail(len(self.calls)) or (None, True)
        if error is None or done:
            try:
                args = [self.memory.seen(a) if isinstance(a, Lent) else a for a in asking.args]
                value = getattr(self.guests[asking.server], asking.operation)(*args)
            except Answer as answer:
                return error or Declined(type(answer).__name__, str(answer))
            return error or plain(value)
        return error

    def running(self) -> list[str]:
        return [name for name, each in self.guests.items() if each.state == RUNNING]


def always() -> bool:
    return True


def copied(name: str = "a", **guests: Guest) -> tuple[Monitors, bytearray, Any]:
    monitors, image = Monitors(**guests), bytearray()
    plan = vmplans.save(name, image.extend, monitors.region, always, monitors.clock)
    told = monitors.carry_out(plan)
    return monitors, image, told


# --- copies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [RUNNING, PAUSED])
def test_a_copy_is_whole_and_the_machine_is_as_it_was(state: str) -> None:
    a = guest()
    a.state = state
    _, image, told = copied(a=a)
    assert bytes(image) == CONTENT
    assert a.state == state
    assert told == {
        "engine": "unicorn", "memory": MEMORY, "size": len(CONTENT), "pause_ms": 1500.0,
    }  # fmt: skip


def test_there_is_nothing_to_copy_of_an_empty_one() -> None:
    with pytest.raises(CannotDo, match="a is empty"):
        copied(a=guest(None))


@pytest.mark.parametrize("done", [False, True])
def test_a_copy_that_fails_lets_the_machine_go_on(done: bool) -> None:
    for number in range(2, 7):
        monitors = Monitors(a=guest())
        failing = number
        monitors.fail = lambda at, n=failing: (Unavailable("x"), done) if at == n else None  # type: ignore[misc]
        with pytest.raises(CannotDo, match="a was not copied: x"):
            monitors.carry_out(
                vmplans.save("a", lambda piece: None, monitors.region, always, monitors.clock)
            )
        assert monitors.running() == ["a"]


def test_a_full_disk_lets_the_machine_go_on() -> None:
    def full(piece: memoryview) -> None:
        raise OSError(28, "No space left on device")

    monitors = Monitors(a=guest())
    with pytest.raises(CannotDo, match="No space left"):
        monitors.carry_out(vmplans.save("a", full, monitors.region, always, monitors.clock))
    assert monitors.running() == ["a"]


def reader(image: bytes) -> Callable[[memoryview], int]:
    left = bytearray(image)

    def read(into: memoryview) -> int:
        length = min(len(left), len(into), WINDOW // 3)  # as a file may, it gives less
        into[:length] = left[:length]
        del left[:length]
        return length

    return read


def restored(b: Guest, engine: str = "unicorn", memory: int = MEMORY) -> Monitors:
    monitors = Monitors(b=b)
    like = Like(engine, memory)
    plan = vmplans.load("b", like, reader(CONTENT), monitors.region, always, monitors.clock)
    assert monitors.carry_out(plan) == {"ms": 1500.0}
    return monitors


@pytest.mark.parametrize("before", [None, b"another"])
def test_a_copy_goes_on_in_place_of_what_was_there(before: bytes | None) -> None:
    b = guest(before)
    restored(b)
    assert (b.state, b.content) == (RUNNING, CONTENT)


def test_a_copy_needs_the_same_engine_and_memory() -> None:
    for b, told in (
        (guest(b"x", engine="qemu"), "b has engine qemu, and the copy unicorn: give it the same"),
        (guest(b"x", memory=2 << 20), "b has 2MiB of memory, and the copy 1MiB: give it the same"),
    ):
        with pytest.raises(CannotDo, match=told):
            restored(b)
        assert (b.state, b.content) == (RUNNING, b"x")


@pytest.mark.parametrize("done", [False, True])
def test_a_copy_that_was_not_restored_runs_nowhere(done: bool) -> None:
    """Also when it was begun, and nobody was told."""
    whole = len(restored(guest(None)).calls)
    for number in range(2, whole + 1):
        monitors = Monitors(b=(b := guest(None)))
        monitors.fail = lambda at, n=number: (Unavailable("x"), done) if at == n else None  # type: ignore[misc]
        read = reader(CONTENT)
        plan = vmplans.load(
            "b", Like("unicorn", MEMORY), read, monitors.region, always, monitors.clock
        )
        with pytest.raises(CannotDo, match="b was not restored, and is empty now: x"):
            monitors.carry_out(plan)
        assert b.state == EMPTY


# --- moves ---------------------------------------------------------------------------------------


def move(monitors: Monitors, wanted: Callable[[], bool] = always) -> Any:
    plan = vmplans.migrate("a", "b", monitors.region, wanted, monitors.clock)
    return monitors.carry_out(plan)


@pytest.mark.parametrize("state", [RUNNING, PAUSED])
def test_a_machine_moves_as_it_is(state: str) -> None:
    a, b = guest(), guest(None)
    a.state = state
    assert move(Monitors(a=a, b=b)) == {"size": len(CONTENT), "pause_ms": 1500.0}
    assert (a.state, a.content) == (EMPTY, None)
    assert (b.state, b.content) == (state, CONTENT)


def test_it_moves_to_an_empty_monitor_of_its_kind() -> None:
    for b, told in (
        (guest(b"x"), "b is running: a virtual machine moves to an empty one"),
        (guest(None, engine="qemu"), "b has engine qemu, and a unicorn"),
        (guest(None, memory=MEMORY * 2), "b has 2MiB of memory, and a 1MiB"),
    ):
        monitors = Monitors(a=guest(), b=b)
        with pytest.raises(CannotDo, match=told):
            move(monitors)
        assert monitors.guests["a"].content == CONTENT
        assert monitors.guests["a"].state == RUNNING


def test_interrupted_half_way_it_goes_on_where_it_was() -> None:
    monitors = Monitors(a=guest(), b=guest(None))
    with pytest.raises(CannotDo, match="goes on where it was: it was interrupted"):
        move(monitors, lambda: len(monitors.calls) < 7)
    assert "b.load" in monitors.calls
    assert monitors.running() == ["a"]
    assert monitors.guests["b"].state == EMPTY
    assert not monitors.guests["b"].loaded


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("for_good", [False, True])
def test_whatever_fails_it_never_runs_twice_and_is_never_lost(done: bool, for_good: bool) -> None:
    whole = Monitors(a=guest(), b=guest(None))
    move(whole)
    for failing in range(1, len(whole.calls) + 1):
        monitors = Monitors(a=guest(), b=guest(None))

        def fail(at: int, first: int = failing) -> tuple[Exception, bool] | None:
            struck = at >= first if for_good else at == first
            return (DeadlinePassed("no answer"), done) if struck else None

        monitors.fail = fail
        try:
            move(monitors)
        except CannotDo as error:
            told = str(error)
        except CallError:
            told = "before it began"
            assert monitors.running() == ["a"]
        else:
            told = ""
        assert len(monitors.running()) <= 1
        kept = [each.content for each in monitors.guests.values()]
        assert CONTENT in kept
        if not for_good and told:
            assert monitors.running() == (["b"] if "b runs what a was" in told else ["a"]), told


def test_a_target_that_cannot_start_it_gives_it_back() -> None:
    monitors = Monitors(a=guest(), b=guest(None))
    last = Monitors(a=guest(), b=guest(None))
    move(last)
    start = last.calls.index("b.start_loaded") + 1
    refusal = Declined("VmFailed", "no processor")
    monitors.fail = lambda at: (refusal, False) if at == start else None
    with pytest.raises(CannotDo, match="a was not moved, and goes on where it was: no processor"):
        move(monitors)
    assert monitors.running() == ["a"]
    assert monitors.guests["b"].state == EMPTY
