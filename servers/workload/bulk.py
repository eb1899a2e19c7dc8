"""bulk: one large file, read from begin to end, over and over, as fast as it comes.

While a block is being summed up the next is being read: two windows, two calls under way. That is
below the stub, which makes one call at a time; a call that a death cut short is made again, as the
stub would. Besides its history the run tells, as it goes on, `{"moved": bytes so far, "at": ns}`.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections import deque
from pathlib import PurePosixPath
from typing import NamedTuple

from servers.workload.client import VERIFY, Client, Setting, close
from servers.workload.history import OK
from servers.workload.memory import Windows
from ukernel.abi import wire
from ukernel.abi.errors import Answer, CallError, Code
from ukernel.abi.services import CREATE, READ_ONLY, TRUNCATE, File, FileSystem
from ukernel.lib.connection import error_of
from ukernel.lib.memory import Region
from ukernel.lib.stub import Stub, answer_of

CALLS = 2  # under way at the same time
TOLD_NS = 50_000_000  # between two lines about what has moved
FIRST_NUMBER = 1 << 32  # of these calls: the connection numbers its own from 1
READ = next(number for number, operation in File.ops.items() if operation.name == "read")


class BulkRun(Client):
    interface = FileSystem
    defaults = (
        Client.defaults
        | VERIFY
        | {
            "every_ms": 0,
            "path": "/big",
            "size": 16 << 20,  # bytes
            "block": 128 << 10,  # bytes of one File.read
        }
    )

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.fs: FileSystem = setting.server
        self.path = str(self.options["path"])
        self.size, self.block = self.number("size"), self.number("block")
        self.windows = Windows(self.memory, self.block, CALLS)
        self.reads: Reads | None = None
        self.moved_bytes = 0
        self.told_ns = 0

    def step(self) -> bool:
        return self.history.attempt("read", self.path, self._pass) == OK

    def _pass(self) -> str:
        """The SHA-256 of the whole file."""
        if self.reads is None:
            self.reads = Reads(self.fs.open(self.path, READ_ONLY), self.windows)
        try:
            return self._sum(self.reads)
        except (Answer, CallError, wire.Malformed):
            self.reads.close()
            self.reads = None
            raise

    def _sum(self, reads: Reads) -> str:
        digest = hashlib.sha256()
        for offset in range(0, self.size, self.block):
            reads.ask(offset, min(self.block, self.size - offset))
            if len(reads.under_way) == CALLS:
                self._take(reads, digest)
        while reads.under_way:
            self._take(reads, digest)
        return digest.hexdigest()

    def _take(self, reads: Reads, digest: hashlib._Hash) -> None:
        block = reads.take()
        digest.update(block)
        self.moved_bytes += len(block)
        now_ns = time.monotonic_ns()
        if now_ns - self.told_ns >= TOLD_NS:
            self.told_ns = now_ns
            self.history.say(moved=self.moved_bytes, at=now_ns)

    def prepare(self) -> dict[str, str]:
        """Make the file; its SHA-256."""
        self.fs.mkdir(str(PurePosixPath(self.path).parent))
        window, digest = self.windows.take(), hashlib.sha256()
        file = self.fs.open(self.path, CREATE | TRUNCATE)
        for offset in range(0, self.size, self.block):
            piece = self.dice.randbytes(min(self.block, self.size - offset))
            window.view[: len(piece)] = piece
            file.write(offset, window.show(0, len(piece)))
            digest.update(piece)
        close(file)
        return {"sha256": digest.hexdigest()}


class Read(NamedTuple):
    """One call of File.read."""

    number: int
    offset: int
    length: int
    window: Region


class Reads:
    """Reads of one open file, answered in the order in which they were asked for."""

    numbers = itertools.count(FIRST_NUMBER)

    def __init__(self, file: File, windows: Windows) -> None:
        assert isinstance(file, Stub)
        self.file = file
        self.windows = windows
        self.connection = file.connection
        self.under_way: deque[Read] = deque()
        self._come: dict[int, wire.Message] = {}

    def ask(self, offset: int, length: int) -> None:
        """Begin to read. At most one for each window may be under way."""
        self.under_way.append(self._begin(offset, length, self.windows.take()))

    def take(self) -> memoryview:
        """What the oldest brought; valid until its window's next turn. Raises as a stub does."""
        read, stats = self.under_way[0], self.connection.stats
        while (m := self._outcome(read.number)).status == Code.E_DEAD_UNKNOWN:
            stats.retried += 1
            read = self.under_way[0] = self._begin(read.offset, read.length, read.window)
        self.under_way.popleft()
        if m.status == Code.OK:
            stats.ok += 1
            return read.window.view[: wire.unpack(m.body)]
        if m.status == Code.ANSWER:
            stats.ok += 1
            raise answer_of(File, m)
        stats.failed += 1
        self._settle(read, m)
        raise error_of(m)

    def close(self) -> None:
        """Let what is under way come to its end, and close the file."""
        while self.under_way:
            read = self.under_way.popleft()
            self._settle(read, self._outcome(read.number))
        close(self.file)

    def _begin(self, offset: int, length: int, window: Region) -> Read:
        number, lent, timeout_ns = next(self.numbers), window.lend(0, length), self.file.timeout_ns
        self.connection.transmit(
            wire.encode(
                wire.CALL,
                flags=wire.ASYNC,
                opcode=READ,
                seq=number,
                deadline_ns=time.monotonic_ns() + timeout_ns if timeout_ns else 0,
                token=self.file.token,
                caps=(lent.token,),
                body=wire.pack((offset, (0, lent.offset, lent.length))),
            )
        )
        return Read(number, offset, length, window)

    def _outcome(self, number: int) -> wire.Message:
        while number not in self._come:
            m = self.connection.collect()
            self._come[m.seq] = m
        return self._come.pop(number)

    def _settle(self, read: Read, m: wire.Message) -> None:
        if m.status == Code.E_DEADLINE:  # it may still be filled
            self.windows.spoil(read.window)
