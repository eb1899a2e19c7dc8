"""handles: the callee's capabilities that callers hold under badges of ours.

A capability is kept while a badge stands for it or an outcome that carries it is on its way. A
badge is used once, and those of an earlier life stand for nothing.
"""

from __future__ import annotations

from collections import Counter

LIFE_SHIFT = 32  # of the badges of one life


class Handles:
    """badge -> token of the callee's capability, and how often each token is needed."""

    def __init__(self, life: int) -> None:
        self._next = life << LIFE_SHIFT
        self._tokens: dict[int, bytes] = {}
        self._needed: Counter[bytes] = Counter()

    def fresh(self) -> int:
        """A badge that nobody has held before."""
        self._next += 1
        return self._next

    def keep(self, token: bytes) -> None:
        """The capability is needed once more."""
        self._needed[token] += 1

    def let_go(self, token: bytes) -> bool:
        """It is needed once less; whether that was the last time."""
        self._needed[token] -= 1
        if self._needed[token] > 0:
            return False
        del self._needed[token]
        return True

    def add(self, badge: int, token: bytes) -> None:
        """From now on `badge` stands for a capability that is being kept."""
        self._tokens[badge] = token

    def token(self, badge: int) -> bytes | None:
        """What the badge stands for; None when that is nothing, or nothing any more."""
        return self._tokens.get(badge)

    def forget(self, badge: int) -> bytes | None:
        """The badge stands for nothing any more; what it stood for, to be let go of."""
        return self._tokens.pop(badge, None)
