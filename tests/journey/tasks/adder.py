"""adder: says what number kv has, then makes changes: so many rounds for each line that it reads.

A round adds its own number to `sum`, puts what that said, filled up to SIZE, under `last`, and
prints what `add` said and whether `last` was read back. Each change has an operation id: an adder
that is started again says the same changes again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from ukernel.abi.errors import DeadlinePassed, DeadUnknown, Poison
from ukernel.abi.services import KeyValue, NoSuchKey
from ukernel.lib.stub import connect

SIZE = 2000  # bytes; so a journal is compacted every thirty rounds, not every thousand

T = TypeVar("T")


def insist(call: Callable[[], T]) -> T:
    """Say it until it is answered: done or not, saying it again is right."""
    while True:
        try:
            return call()
        except (DeadUnknown, DeadlinePassed, Poison):
            continue


def change(kv: KeyValue, number: int) -> str:
    told = insist(lambda: kv.add("sum", number, b"add %d" % number))
    last = (b"%d " % told * SIZE)[:SIZE]
    insist(lambda: kv.put("last", last, b"put %d" % number))
    return f"{told} {'kept' if insist(lambda: found(kv)) == last else 'lost'}"


def found(kv: KeyValue) -> bytes | None:
    try:
        return kv.get("last")
    except NoSuchKey:
        return None


def main() -> None:
    kv = connect(KeyValue, "kv")
    print(insist(lambda: kv.number("sum")), flush=True)
    number = 0
    for line in sys.stdin:
        for _ in range(int(line)):
            number += 1
            print(change(kv, number), flush=True)


if __name__ == "__main__":
    main()
