"""python -m launcher.bench.caller HOW WHOM: a client that calls without a pause, and when it did.

    task SLOT      an application of a system: through a stub, which repeats what a death spoilt
    lone ADDRESS   beside it: over the socket of a lone echo server, connecting again at its end

Told a number on stdin, it calls until it is told anything else; then it writes its calls down as
JSON, `[begun_ns, ended_ns, life]` each. Meanwhile it says when so many were answered, and whenever
another life answers. A life is a process id, or 0 where the client cannot know it.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launcher.bench.load import SEQUENCE
from launcher.bench.lone_echo import MAX_MESSAGE
from ukernel.abi import wire
from ukernel.abi.services import Echo
from ukernel.lib.confine import live_under
from ukernel.lib.stub import connect

SIZE = 64  # bytes of payload
IN_MOVED_TO = 0x80  # inotify(7)

Call = Callable[[bytes], int]  # sends a payload, checks its echo, and says whose it was


class WrongEcho(Exception):
    """What came back is not what was sent."""


def of_task(slot: str) -> Call:
    """Calls of a task. Which life answered is the kernel's secret."""
    echo = connect(Echo, slot).echo

    def call(data: bytes) -> int:
        _check(echo(data), data)
        return 0

    return call


def of_lone(address: str) -> Call:
    """Calls beside the system; a call whose server died is made again."""
    live_under(os.getppid(), "caller", 0)
    lone = Lone(address)

    def call(data: bytes) -> int:
        echoed, life = wire.unpack(lone.ask(wire.pack((data,))))
        _check(echoed, data)
        return int(life)

    return call


def _check(echoed: bytes, data: bytes) -> None:
    if echoed != data:
        raise WrongEcho(f"sent {data!r}, got {echoed!r}")


class Lone:
    """A connection that is made again as soon as there is a server to connect to.

    Linux tells of both: of the end of the old server, and of the new one's socket in its
    directory. So nothing is tried in vain, and no time passes in between.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._news = self._libc.inotify_init1(os.O_CLOEXEC)
        folder = bytes(Path(address).parent)
        if self._libc.inotify_add_watch(self._news, folder, IN_MOVED_TO) < 0:
            raise OSError(ctypes.get_errno(), f"inotify of {folder!r}")
        self._line = self._connect()

    def ask(self, request: bytes) -> bytes:
        while True:
            try:
                self._line.send(request)
                if reply := self._line.recv(MAX_MESSAGE):
                    return reply
            except ConnectionError:
                pass
            self._line.close()
            self._line = self._connect()

    def _connect(self) -> socket.socket:
        while True:
            line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                line.connect(self._address)
            except (FileNotFoundError, ConnectionError):
                line.close()
                os.read(self._news, MAX_MESSAGE)  # if it came meanwhile, this returns at once
            else:
                return line


def call_until_told(call: Call, good: int, say: Callable[..., None]) -> None:
    """One span of calls. Says `under_way` after `good` of them."""
    calls: list[tuple[int, int, int]] = []
    last, filler, clock = 0, b"u" * (SIZE - SEQUENCE.size), time.monotonic_ns
    for number in itertools.count(1):
        data = SEQUENCE.pack(number) + filler
        begun = clock()
        life = call(data)
        calls.append((begun, clock(), life))
        if number == good:
            say(under_way=life)
        elif number > good and life != last:
            say(another=life)
        last = life
        if select.select([0], [], [], 0)[0]:
            break
    os.read(0, MAX_MESSAGE)
    say(calls=calls)


def _say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


HOW: dict[str, Callable[[str], Call]] = {"task": of_task, "lone": of_lone}


def main() -> None:
    how, whom = sys.argv[1:]
    call = HOW[how](whom)
    while told := os.read(0, MAX_MESSAGE):
        call_until_told(call, int(told), _say)


if __name__ == "__main__":
    main()
