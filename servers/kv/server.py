"""server: a small table. What its next life has of it is what `state:` says in the system file.

    disk        all that was answered: a journal on a file system
    persistent  the same, until the system ends: a journal in memory that outlives the process
    stateless   nothing

A change that was done is not done again, in whichever life it is said again, while it is among
the last `remember` changes. Reads see all changes that were answered.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from servers.kv.file import BULK, FileStore, WrongPath
from servers.kv.journal import Journal, Store, longest
from servers.kv.log import LONGEST_KEY, LONGEST_OPERATION
from servers.kv.stores import NoStore, RegionStore, region_size
from servers.kv.table import Table
from ukernel.abi.errors import Protocol
from ukernel.abi.exits import NO_RESTART
from ukernel.abi.services import DeviceFailed, FileSystem, KeyValue, NoSpace
from ukernel.lib.server import Server
from ukernel.lib.stub import connect

LIMIT_BYTES = 1 << 20  # of values and numbers, with what a journal adds to each
REMEMBER = 4096  # operations
FS_TIMEOUT_S = 5.0  # of a call to it: callers hear from us before their own deadline


class KvServer(Server, KeyValue):
    """Args: limit_bytes, remember; with `state: disk` also fs (who keeps the journal), journal."""

    def setup(self) -> None:
        if self.state not in STORES:
            self._leave(f"state: {self.state} is not for kv; choose one of {', '.join(STORES)}")
        self.journal = Journal(STORES[self.state](self), self.blank)
        try:
            self.journal.load()
        except WrongPath as error:
            self._leave(f"args.journal: {error}")
        except (DeviceFailed, NoSpace) as error:  # it may pass: each call tries again
            print(error, file=sys.stderr)

    def blank(self) -> Table:
        limit = int(self.args.get("limit_bytes", LIMIT_BYTES))
        return Table(limit, int(self.args.get("remember", REMEMBER)))

    def _leave(self, why: str) -> NoReturn:
        info = self.connection.info
        print(f"servers.{info.name}.{why} ({info.origin})", file=sys.stderr)
        sys.exit(NO_RESTART)

    def get(self, key: str) -> bytes:
        return self.journal.table.get(key)

    def number(self, key: str) -> int:
        return self.journal.table.number(key)

    def keys(self, start: int) -> list[str]:
        return self.journal.table.keys(start)

    def put(self, key: str, value: bytes, operation: bytes) -> None:
        check(key, operation)
        self.journal.change(operation, lambda table: table.put(key, value, operation))

    def add(self, key: str, amount: int, operation: bytes) -> int:
        check(key, operation)
        return self.journal.change(operation, lambda table: table.add(key, amount, operation))

    def remove(self, key: str, operation: bytes) -> None:
        check(key, operation)
        self.journal.change(operation, lambda table: table.remove(key, operation))


def check(key: str, operation: bytes) -> None:
    """Raise Protocol unless these can name a value and a change."""
    if not 0 < len(key.encode()) <= LONGEST_KEY:
        raise Protocol(f"a key has 1 to {LONGEST_KEY} bytes of UTF-8, not {len(key.encode())}")
    if not 0 < len(operation) <= LONGEST_OPERATION:
        raise Protocol(
            f"an operation id has 1 to {LONGEST_OPERATION} bytes, not {len(operation)}: choose one "
            "for each change, and the same when it is said again"
        )


def on_disk(server: KvServer) -> Store:
    fs = connect(FileSystem, str(server.args.get("fs", "fs")), timeout_s=FS_TIMEOUT_S)
    path = str(server.args.get("journal", "/kv/journal"))
    return FileStore(fs, path, server.region("bulk", BULK))


def in_memory(server: KvServer) -> Store:
    size = region_size(longest(server.blank().largest_log))
    return RegionStore(server.region("journal", size, persistent=True).view)


STORES: dict[str, Callable[[KvServer], Store]] = {
    "disk": on_disk, "persistent": in_memory, "stateless": lambda server: NoStore(),
}  # fmt: skip
