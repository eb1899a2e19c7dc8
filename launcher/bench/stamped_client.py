"""stamped_client: a client that notes when each of its calls passed where. Prints JSON.

Blocks of calls without notes, which are how long a call takes, take turns with blocks that have
them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from launcher.bench import host
from launcher.bench.load import payloads, warm_up
from launcher.bench.stamps import BLOCK, PAGE, PER_CALL, Stamps
from ukernel.lib import task
from ukernel.lib.channel import Channel
from ukernel.lib.connection import Connection
from ukernel.lib.stub import connect

WARMUP_CALLS, WARMUP_MS = 1000, 100.0
READINGS = 10_000

Note = tuple[int, int, int, int]  # of a call: begun, packed, back, unpacked


class Notes:
    """When a call was packed and when its reply was here. Off until `on`."""

    def __init__(self) -> None:
        self.on = False
        self.packed_ns = self.back_ns = 0

    def before(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """`method`, noting when it is entered."""

        def noted(*args: Any) -> Any:
            if self.on:
                self.packed_ns = time.monotonic_ns()
            return method(*args)

        return noted

    def after(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """`method`, noting when it is left."""

        def noted(*args: Any) -> Any:
            result = method(*args)
            if self.on:
                self.back_ns = time.monotonic_ns()
            return result

        return noted


def main() -> None:
    core, count, size, way = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    host.place(os.getpid(), core)
    notes = Notes()
    where: tuple[type, str, str] = (Channel, "post", "collect")
    if way == "kernel":
        where = (Connection, "transmit", "receive")
    end, send, receive = where
    setattr(end, send, notes.before(getattr(end, send)))
    setattr(end, receive, notes.after(getattr(end, receive)))
    stub = connect(Stamps, "echo")
    warm_up(stub.echo, size, WARMUP_CALLS, WARMUP_MS)
    plain: list[int] = []
    noted: list[Note] = []
    for first in range(0, count, BLOCK):
        sent = payloads(BLOCK, size, first)
        plain += [unpacked - begun for begun, _, _, unpacked in _calls(stub, notes, sent)]
        stub.note(True)
        notes.on = True
        noted += _calls(stub, notes, sent)
        notes.on = False
        stub.note(False)
    said = {"plain": plain, "client": noted, "server": _server(stub), "clock_ns": _clock_ns()}
    print(json.dumps(said))
    task.connection().leave()


def _clock_ns() -> float:
    """What one reading of the clock costs."""
    clock = time.monotonic_ns
    begun = clock()
    for _ in range(READINGS):
        clock()
    return (clock() - begun) / READINGS


def _calls(stub: Stamps, notes: Notes, sent: list[bytes]) -> list[Note]:
    clock, rows = time.monotonic_ns, []
    for data in sent:
        begun = clock()
        stub.echo(data)
        rows.append((begun, notes.packed_ns, notes.back_ns, clock()))
    return rows


def _server(stub: Stamps) -> list[list[int]]:
    """What the server has noted."""
    flat: list[int] = []
    while page := stub.taken(len(flat) // PER_CALL):
        flat += page
        if len(page) < PAGE * PER_CALL:
            break
    return [flat[at : at + PER_CALL] for at in range(0, len(flat), PER_CALL)]


if __name__ == "__main__":
    main()
