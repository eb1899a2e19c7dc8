"""kv: puts, gets and adds under an operation id each. What nobody knows the fate of is said again.

Values lie under CLIENT.NUMBER, and are text; every `add` goes to CLIENT.sum. An `add` begins with
the amount and is answered with the number; its history has both.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from servers.workload.client import Client, Setting, value_or_why
from servers.workload.history import DOUBTFUL_CHANGE, OK
from ukernel.abi.errors import Answer, CallError
from ukernel.abi.services import PAGE, KeyValue, NoSuchKey

TRIES = 5
LARGEST_AMOUNT = 9
OPERATION_BYTES = 16
ADDS, GETS = 0.3, 0.2  # shares of the operations; the others put
NOTHING = ""  # the value of a key that is not there


class KeyValueRun(Client):
    interface = KeyValue
    defaults = Client.defaults | {"keys": 16, "size": 64}  # size: characters of a value

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.kv: KeyValue = setting.server
        self.sum = f"{self.name}.sum"
        self.acknowledged: dict[str, None] = {}  # keys that must be there

    def step(self) -> bool:
        dice = self.dice.random()
        if dice < ADDS:
            return self._add(self.dice.randint(1, LARGEST_AMOUNT))
        if dice < ADDS + GETS and self.acknowledged:
            return self._get(self.dice.choice(list(self.acknowledged)))
        key = f"{self.name}.{self.dice.randrange(self.number('keys'))}"
        return self._put(key, self.dice.randbytes(self.number("size")).hex()[::2])

    def _add(self, amount: int) -> bool:
        return self._change(
            "add", self.sum, str(amount), lambda o: str(self.kv.add(self.sum, amount, o))
        )

    def _put(self, key: str, value: str) -> bool:
        def put(operation: bytes) -> str:
            self.kv.put(key, value.encode(), operation)
            return ""

        done = self._change("put", key, value, put)
        if done:
            self.acknowledged[key] = None
        return done

    def _get(self, key: str) -> bool:
        return self.history.attempt("get", key, lambda: self._value(key)) == OK

    def _value(self, key: str) -> str:
        try:
            return self.kv.get(key).decode(errors="backslashreplace")
        except NoSuchKey:
            return NOTHING

    def _change(self, op: str, key: str, value: str, do: Callable[[bytes], str]) -> bool:
        attempt = self.history.attempt
        return attempt(op, key, lambda: settled(do), value=value, doubtful=DOUBTFUL_CHANGE) == OK

    def found(self) -> dict[str, str]:
        """Every value, or why it cannot be read, and the sum, be it 0."""
        mine = [key for key in self._keys() if key.startswith(f"{self.name}.")]
        values = {key: value_or_why(partial(self._value, key)) for key in mine}
        return {**values, self.sum: str(self.kv.number(self.sum))}

    def _keys(self) -> list[str]:
        keys, page = [], self.kv.keys(0)
        while page:
            keys += page
            page = self.kv.keys(len(keys)) if len(page) == PAGE else []
        return keys


def settled(do: Callable[[bytes], str]) -> str:
    """The answer to a change, said up to TRIES times as one and the same operation.

    Raises the first doubt when no try was answered: whatever came after it, it may have been done.
    """
    operation = os.urandom(OPERATION_BYTES)
    doubt: Exception | None = None
    for _ in range(TRIES):
        try:
            return do(operation)
        except DOUBTFUL_CHANGE as error:
            doubt = doubt or error
        except (Answer, CallError):
            if doubt is None:
                raise
            break
    assert doubt is not None
    raise doubt
