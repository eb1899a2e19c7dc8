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

OK = 0
IO_ERROR = -5  # LFS_ERR_IO


class Bridge:
    """The callbacks of one littlefs mount. littlefs-python asks for these four names only."""

    def __init__(self, cache: SectorCache) -> None:
        self._cache = cache
        self.failure: BaseException | None = None
        self._stopped = False

    def stop(self) -> None:
        """Let nothing through from now on, so that littlefs can be torn down without a trace."""
        self._stopped = True

    def read(self, config: LFSConfig, block: int, offset: int, size: int) -> bytes | bytearray:
        if self._stopped or block >= config.block_count:  # an address out of a foreign superblock
            return bytes(size)
        try:
            return self._cache.read(_sector(config, block, offset), size // PAYLOAD)
        except BaseException as error:
            self._fail(error)
            return bytes(size)

    def prog(self, config: LFSConfig, block: int, offset: int, data: bytes) -> int:
        return self._guard(lambda: self._cache.write(_sector(config, block, offset), data))

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
        self._stopped = True


def _sector(config: LFSConfig, block: int, offset: int) -> int:
    return (block * config.block_size + offset) // PAYLOAD
