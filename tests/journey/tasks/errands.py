"""errands: has deeds done by clerk, many at a time, and serves its own clients meanwhile."""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections import deque

from tests.journey.tasks.clerk import Clerk
from ukernel.abi.errors import CallError, DeadNotRun, DeadUnknown
from ukernel.abi.interface import Interface, op, u32, u64
from ukernel.lib.server import Server
from ukernel.lib.stub import UnderWay, begin, connect
from ukernel.lib.way import Pending

WORDS: dict[type[CallError], str] = {DeadUnknown: "unknown", DeadNotRun: "never"}


class Errands(Interface):
    """Begins calls, and says in which order they have had which outcome."""

    @op(1)
    def set_about(self, how: str, first: u64, count: u32, at_once: u32) -> None:
        """Have so many deeds done by that operation, at most `at_once` under way."""

    @op(2)
    def told(self, count: u32) -> list[str]:
        """Wait until at least so many outcomes have come; all that have since the last time."""

    @op(3)
    def between(self, first: u64, count: u32) -> u32:
        """Begin so many, wait for one more, begin so many again; what the one gave."""

    @op(4)
    def change_of_mind(self, first: u64) -> None:
        """Two deeds, which are done at the same moment; of the first outcome that comes, decide
        that the other is not wanted."""

    @op(5)
    def alive(self) -> u32:
        """How many are under way."""


class ErrandsServer(Server, Errands):
    def setup(self) -> None:
        self.clerk = connect(Clerk, "clerk", timeout_s=None)
        self.todo: deque[tuple[str, int]] = deque()
        self.at_once = 0
        self.under_way: dict[int, UnderWay[object]] = {}
        self.outcomes: list[str] = []
        self.forgetful = False
        self.asked: list[tuple[int, Pending[list[str]]]] = []

    def set_about(self, how: str, first: int, count: int, at_once: int) -> None:
        self.at_once = at_once
        self.todo.extend((how, deed) for deed in range(first, first + count))
        self._begin_more()

    def _begin_more(self) -> None:
        while self.todo and len(self.under_way) < self.at_once:
            self._begin(*self.todo.popleft())

    def _begin(self, how: str, deed: int) -> None:
        args = (deed, b"", 1) if how in ("do", "do_again") else (deed,)
        call = begin(getattr(self.clerk, how), *args)
        self.under_way[deed] = call
        self.when(call, lambda call: self._done(deed, call))

    def _done(self, deed: int, call: UnderWay[object]) -> None:
        self.outcomes.append(f"{deed} {_word(call)}")
        del self.under_way[deed]  # a KeyError if it was told before
        if self.forgetful:
            for other in self.under_way.values():
                other.forget()
            self.under_way.clear()
            self.forgetful = False
        self._begin_more()
        self._tell()

    def told(self, count: int) -> list[str]:
        pending: Pending[list[str]] = self.pending()
        self.asked.append((count, pending))
        self._tell()
        return pending.later

    def _tell(self) -> None:
        if self.asked and len(self.outcomes) >= self.asked[0][0]:
            _, pending = self.asked.pop()
            pending.answer(self.outcomes)
            self.outcomes = []

    def between(self, first: int, count: int) -> int:
        for deed in range(first, first + count):
            self._begin("do", deed)
        one = self.clerk.do(first + count, b"", 7)
        for deed in range(first + count + 1, first + 2 * count + 1):
            self._begin("do", deed)
        return len(one)

    def change_of_mind(self, first: int) -> None:
        self.forgetful = True
        for deed in (first, first + 1):
            self._begin("hold", deed)
        self.clerk.let_go()  # the last one first

    def alive(self) -> int:
        return len(self.under_way)


def _word(call: UnderWay[object]) -> str:
    try:
        call.result()
    except CallError as error:
        return WORDS.get(type(error), error.code.name)
    return "answered"


if __name__ == "__main__":
    ErrandsServer.run()
