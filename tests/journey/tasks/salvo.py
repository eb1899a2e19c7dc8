"""salvo: has a number of deeds done by clerk, many at a time, and compares what it was told of each
with clerk's record. Says as one line of JSON what it found.

salvo MESSAGES SEED    deeds 0 to MESSAGES - 1, whose sizes and order come from the seed
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter, deque
from itertools import islice

from tests.journey.tasks.clerk import PAGE, Clerk
from ukernel.abi.errors import CallError, DeadUnknown
from ukernel.lib.stub import UnderWay, begin, connect

AT_ONCE = 24  # more than clerk's window: some wait in the ring when it dies
SIZES = (1, 1, 1, 1, 20, 20, 100, 150, 3000)
LARGE, SELDOM = 150_000, 2000  # one message in so many is larger than the ring
TOLD = ("answered", "unknown", "refused")


class Salvo:
    """What was asked for, and what became of it."""

    def __init__(self, messages: int, seed: int) -> None:
        self.clerk = connect(Clerk, "clerk", timeout_s=60)
        self.random = random.Random(seed)
        self.told: list[str] = [""] * messages
        self.again: set[int] = set()
        self.wrong = 0
        self.under_way: deque[tuple[int, int, UnderWay[bytes]]] = deque()

    def fire(self) -> None:
        for deed in range(len(self.told)):
            if len(self.under_way) == AT_ONCE:
                self.take()
            self.ask(deed)
        while self.under_way:
            self.take()

    def ask(self, deed: int) -> None:
        rng = self.random
        sent = LARGE if rng.randrange(SELDOM) == 0 else rng.choice(SIZES)
        size = LARGE if rng.randrange(SELDOM) == 0 else rng.choice(SIZES)
        how = self.clerk.do
        if rng.randrange(4) == 0:
            how = self.clerk.do_again
            self.again.add(deed)
        self.under_way.append((deed, size, begin(how, deed, bytes(sent), size)))

    def take(self) -> None:
        at = self.random.randrange(len(self.under_way))
        self.under_way.rotate(-at)
        deed, size, under_way = self.under_way.popleft()
        try:
            self.wrong += len(under_way.result()) != size
            told = "answered"
        except DeadUnknown:
            told = "unknown"
        except CallError:
            told = "refused"
        assert not self.told[deed]
        self.told[deed] = told

    def compare(self) -> dict[str, int]:
        """How many of each kind there were, and how many are not as they should be."""
        found = Counter(self.told)
        for first in range(0, len(self.told), PAGE):
            for deed, done in enumerate(self.clerk.record(first), first):
                if deed < len(self.told):
                    found.update(self._seen(deed, done))
        return {name: found[name] for name in (*TOLD, "ran", "lost", "twice", "false", "")} | {
            "wrong": self.wrong
        }

    def _seen(self, deed: int, done: int) -> list[str]:
        told, seen = self.told[deed], []
        seen += ["lost"] if told == "answered" and not done else []
        seen += ["twice"] if done > 1 and deed not in self.again else []
        seen += ["false"] if told == "refused" and done and deed not in self.again else []
        return [*seen, "ran"] if told == "unknown" and done else seen


def main() -> None:
    messages, seed = (int(word) for word in islice(sys.argv, 1, 3))
    salvo = Salvo(messages, seed)
    salvo.fire()
    print(json.dumps(salvo.compare() | {"retried": salvo.clerk.connection.stats.retried}))  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
