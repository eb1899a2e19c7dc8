"""liar: a file server that is wrong in the two ways that a comparison has to find out.

What it reads of a large file has one bit flipped; a small file of a burst keeps its first content,
although every later write is acknowledged.
"""

from __future__ import annotations

from servers.fs import FileServer
from servers.fs.server import OpenFile
from ukernel.abi.interface import Interface, Lent
from ukernel.abi.services import File


class Lying(OpenFile):
    def read(self, offset: int, into: Lent) -> int:
        count = super().read(offset, into)
        if self._path() == "/load/large":
            self.server.memory(into, write=True)[0] ^= 1
        return count

    def write(self, offset: int, data: Lent) -> int:
        if "/kept-" in self._path() and self.stat().size:
            return data.length
        return super().write(offset, data)


class Liar(FileServer):
    def open(self, path: str, mode: int) -> File:
        badge = super().open(path, mode).badge
        lying = Lying(self, badge)
        self.export(lying, badge)
        return lying

    def restore(self, badge: int) -> Interface | None:
        return Lying(self, badge)


if __name__ == "__main__":
    Liar.run()
