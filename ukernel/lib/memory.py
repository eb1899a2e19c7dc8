"""memory: regions of one's own, and windows of other tasks' regions lent with a call."""

from __future__ import annotations

import os
from collections import OrderedDict

from ukernel.abi.errors import Protocol
from ukernel.abi.interface import Lent
from ukernel.abi.syscalls import GRANT, READ, WRITE
from ukernel.lib.connection import Connection
from ukernel.lib.mapping import forget, map_shared
from ukernel.lib.stub import kernel, together

MAPPINGS = 64  # regions of other tasks that stay mapped


class Region:
    """Memory that the kernel made for this task. `view` is all of it."""

    def __init__(
        self, connection: Connection, name: str, size: int, *, persistent: bool = False
    ) -> None:
        self.connection = connection
        self.token = kernel(connection).region(name, size, persistent)
        self.view = map_region(connection, self.token, writable=True)[:size]
        self._shown: bytes | None = None

    def lend(self, offset: int, length: int) -> Lent:
        """A window that the callee may read and write."""
        return Lent(self.token, offset, length)

    def show(self, offset: int, length: int) -> Lent:
        """A window that the callee may only read."""
        if self._shown is None:
            self._shown = kernel(self.connection, self.token).mint(READ | GRANT, 0)
        return Lent(self._shown, offset, length)

    def end(self) -> None:
        """Give it back: nobody reaches it any more. Who has it mapped still sees zeros."""
        forget(self.view)
        together(self.connection, (self.token, "revoke", ()), (self.token, "delete", ()))


class Borrowed:
    """Windows of other tasks' memory, mapped once per capability."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._known: OrderedDict[bytes, memoryview] = OrderedDict()

    def view(self, lent: Lent, *, write: bool = False) -> memoryview:
        """The lent bytes. Raises Protocol when the loan does not cover them."""
        memory = self._known.get(lent.token) or self._map(lent.token)
        if write and memory.readonly:
            raise Protocol("the memory was lent for reading only")
        if lent.offset + lent.length > len(memory):
            raise Protocol(f"lent {lent.length} bytes at {lent.offset} of {len(memory)}")
        return memory[lent.offset : lent.offset + lent.length]

    def _map(self, token: bytes) -> memoryview:
        found = kernel(self.connection, token).describe()
        mapped = map_region(self.connection, token, writable=bool(found.rights & WRITE))
        self._known[token] = mapped
        if len(self._known) > MAPPINGS:
            self._known.popitem(last=False)  # unmapped when its last view is gone
        return mapped


def map_region(connection: Connection, token: bytes, *, writable: bool) -> memoryview:
    """The whole region behind a capability, in this process."""
    return map_tag(connection, kernel(connection, token).map(), writable=writable)


def map_tag(connection: Connection, tag: int, *, writable: bool) -> memoryview:
    """The region whose descriptor was announced as `tag`, in this process."""
    (fd,) = connection.descriptors(tag)
    try:
        return map_shared(fd, os.fstat(fd).st_size, writable=writable)
    finally:
        os.close(fd)
