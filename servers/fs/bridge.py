"""bridge: what littlefs sees as its block device. The first failure is kept, and is the last word.

littlefs swallows what a callback raises, and `read` cannot even report an error: littlefs-python
ignores its result. So after a failure nothing is written any more, reads give zeros, and whoever
called littlefs asks for `failure` before it believes the outcome.
"""

from __future__ import annotations

from collections.abc import Callable

from littlefs import LFSConfig

from servers.fs.cache import SectorCache
from servers.fs.integrity import PAYLOAD

REMEMBERED = 1024  # sectors
OK = 0
NO_BLOCK = -1
IO_ERROR = -5  # LFS_ERR_IO


class Bridge:
    """The callbacks of one littlefs mount. littlefs-python asks for these four names only."""

    def __init__(self, cache: SectorCache) -> None:
        self._cache = cache
        self.failure: BaseException | None = None
        self.last_read = NO_BLOCK
        self._stopped = False
        self._recent: dict[tuple[int, int], bytes] = {}  # single sectors, by block and offset

    def stop(self) -> None:
        """Let nothing through from now on, so that littlefs can be torn down without a trace."""
        self._stopped = True
        self._recent.clear()

    def read(self, config: LFSConfig, block: int, offset: int, size: int) -> bytes:
        """Single sectors are asked for over and over: a directory's while it is compacted, and
        those that say where the blocks of a file are."""
        self.last_read = block
        found = self._recent.get((block, offset)) if size == PAYLOAD else None
        return self._read(config, block, offset, size) if found is None else found

    def _read(self, config: LFSConfig, block: int, offset: int, size: int) -> bytes:
        if self._stopped or block >= config.block_count:  # an address out of a foreign superblock
            return bytes(size)
        try:
            found = bytes(self._cache.read(_sector(config, block, offset), size // PAYLOAD))
        except BaseException as error:
            self._fail(error)
            return bytes(size)
        if size == PAYLOAD:
            if len(self._recent) >= REMEMBERED:
                self._recent.clear()
            self._recent[block, offset] = found
        return found

    def prog(self, config: LFSConfig, block: int, offset: int, data: bytes) -> int:
        self._recent.clear()
        first, skipped = divmod(block * config.block_size + offset, PAYLOAD)
        return self._guard(lambda: self._cache.write(first, data, skipped))

    def erase(self, config: LFSConfig, block: int) -> int:
        """Nothing: a disk overwrites in place, and littlefs asks no more than that it works."""
        return self._guard(lambda: None)

    def sync(self, config: LFSConfig) -> int:
        return self._guard(self._cache.sync)

    def _guard(self, action: Callable[[], None]) -> int:
        if self._stopped:
            return IO_ERROR
        try:
            action()
        except BaseException as error:
            self._fail(error)
            return IO_ERROR
        return OK

    def _fail(self, error: BaseException) -> None:
        self.failure = error
        self.stop()


def _sector(config: LFSConfig, block: int, offset: int) -> int:
    return (block * config.block_size + offset) // PAYLOAD
