"""history: what a client did and what came of it, one JSON object a line.

    {"n": 0, "do": "begin", "op": "write", "key": "/writer/17", "value": "what is written", "at": 1}
    {"n": 0, "do": "ok", "value": "what was read or answered", "error": "", "at": 2}

The first line is written before the call, the second when its outcome is known. Each is one write,
so a SIGKILL tears at most the last. `at` is CLOCK_MONOTONIC in nanoseconds. An outcome is

    ok    answered
    fail  certainly not done
    info  done or not: the client cannot know
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

from ukernel.abi.errors import Answer, CallError, DeadlinePassed, DeadUnknown, Poison
from ukernel.abi.services import DeviceFailed
from ukernel.abi.wire import Malformed

OK, FAIL, INFO = "ok", "fail", "info"
LONGEST_ERROR = 300  # characters

Doubts = tuple[type[Exception], ...]


class NotDone(Exception):
    """It was certainly not done; the text says why. For what no server answers."""


# After these a call may have been done. A poisonous one was being done when two lives died of it;
# a reply that nobody can read was sent by somebody who had done something.
DOUBTFUL: Doubts = (DeadUnknown, DeadlinePassed, Poison, Malformed)
# A change whose device failed in its last step is on the disk all the same.
DOUBTFUL_CHANGE: Doubts = (*DOUBTFUL, DeviceFailed)


class History:
    """Writes to a descriptor; numbers the operations from 0."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._number = 0

    def attempt(
        self,
        op: str,
        key: str,
        do: Callable[[], str],
        *,
        value: str = "",
        doubtful: Doubts = DOUBTFUL,
    ) -> str:
        """One operation: `do` makes it and returns what was answered. Its outcome: ok, fail, info.

        `value` is what is written, `doubtful` after which exceptions it may have been done.
        """
        number, self._number = self._number, self._number + 1
        self.say(n=number, do="begin", op=op, key=key, value=value, at=time.monotonic_ns())
        outcome, answered, error = OK, "", ""
        try:
            answered = do()
        except (Answer, CallError, Malformed, NotDone) as caught:
            outcome = INFO if isinstance(caught, doubtful) else FAIL
            error = described(caught)
        self.say(n=number, do=outcome, value=answered, error=error, at=time.monotonic_ns())
        return outcome

    def say(self, **fields: object) -> None:
        """One line."""
        os.write(self._fd, json.dumps(fields).encode() + b"\n")


def described(error: Exception) -> str:
    """The code or the answer, and its text."""
    name = error.code.name if isinstance(error, CallError) else type(error).__name__
    text = str(error)[:LONGEST_ERROR]
    return text if text.startswith(name) else f"{name}: {text}"
