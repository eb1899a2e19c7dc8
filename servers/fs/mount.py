"""mount: one life of littlefs on the disk. After a failure it is discarded, never repaired.

`call` is the only way into littlefs. It raises the device's own exception if there was one, else
the Answer that littlefs's code stands for. A refusal leaves the mount as it was; anything else
discards it: whatever it had not made durable is gone, as after a power cut, which littlefs is made
to survive. The owner drops the cache and makes a new Mount.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Concatenate, NoReturn, ParamSpec, TypeVar

from littlefs import LFSConfig, LFSFile, LFSFilesystem, LittleFSError, lfs

from servers.fs.bridge import NO_BLOCK, Bridge
from servers.fs.cache import SectorCache
from servers.fs.chain import Chain, NotAChain, Piece
from servers.fs.extents import not_ours
from servers.fs.integrity import PAYLOAD
from servers.fs.paths import is_under
from ukernel.abi.errors import Answer
from ukernel.abi.services import (
    AlreadyExists,
    DeviceFailed,
    IsADirectory,
    NoSpace,
    NoSuchFile,
    NotADirectory,
    NotEmpty,
)

BLOCK_SECTORS = 16  # a part of a LINE; the cache makes long transfers of them anyway
BLOCK = BLOCK_SECTORS * PAYLOAD  # bytes
COMMIT = PAYLOAD // 4  # bytes that each change of a directory takes at least, of one BLOCK
LONG_READ = 3 * BLOCK  # bytes; below it the way through littlefs is the shorter one
SEEK_SET = 0
OPEN_FILES = 16  # each holds BLOCK bytes inside littlefs

Code = LittleFSError.Error
IF_THERE = "r+"
IF_NEED_BE = lfs.LFSFileFlag(0x103)  # LFS_O_RDWR | LFS_O_CREAT, for which there are no letters
REFUSALS: dict[int, type[Answer]] = {
    Code.LFS_ERR_NOENT: NoSuchFile,
    Code.LFS_ERR_NOTDIR: NotADirectory,
    Code.LFS_ERR_ISDIR: IsADirectory,
    Code.LFS_ERR_EXIST: AlreadyExists,
    Code.LFS_ERR_NOTEMPTY: NotEmpty,
}
FULL = {
    Code.LFS_ERR_NOSPC,
    Code.LFS_ERR_NAMETOOLONG,  # also what littlefs says when a directory cannot grow for a name
}

T = TypeVar("T")
P = ParamSpec("P")


class Mount:
    """littlefs, mounted, with the files it has open. Raises NotOurVolume if there is none."""

    def __init__(self, cache: SectorCache, blocks: int) -> None:
        self._cache = cache
        self._blocks = blocks
        self._bridge = Bridge(cache)
        self._config = _config(self._bridge, blocks)
        self._fs = LFSFilesystem()
        self._files: OrderedDict[str, LFSFile] = OrderedDict()
        self._chains: dict[str, Chain] = {}  # of files nobody has written to since
        self.discarded = False
        try:
            lfs.mount(self._fs, self._config)
        except LittleFSError as error:
            raise self._bridge.failure or not_ours(str(error)) from None
        # littlefs reads a directory wrongly while a rename that a crash cut short is pending.
        self.call("/", lfs.fs_mkconsistent)
        # What an earlier life wrote and did not flush is seen now, so it must not go away later.
        self.sync()

    def call(
        self,
        path: str,
        function: Callable[Concatenate[LFSFilesystem, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """What `function` of littlefs returns; `path` is named in what it raises instead."""
        try:
            result = function(self._fs, *args, **kwargs)
        except LittleFSError as error:
            self._refuse(path, error.code)
        if self._bridge.failure:
            self._discard()
            raise self._bridge.failure
        return result

    def open(self, path: str) -> LFSFile:
        """The file, open for reading and writing, from the ones open already if possible."""
        return self._opened(path, IF_THERE)

    def read(self, path: str, file: LFSFile, offset: int, length: int) -> bytes:
        """Bytes that the file has. Many are read past littlefs, which looks for each block anew."""
        if length >= LONG_READ:
            try:
                if chain := self._chains.get(path) or self._chain(path, file):
                    return self._read_chain(chain, offset, length)
            except NotAChain as error:
                self._discard()
                raise DeviceFailed(f"{path}: {error}: check the disk") from None
        self.call(path, lfs.file_seek, file, offset, SEEK_SET)
        return self.call(path, lfs.file_read, file, length)

    def changing(self, path: str) -> LFSFile:
        """The open file, whose blocks will soon be others."""
        self._chains.pop(path, None)
        return self.open(path)

    def create(self, path: str) -> LFSFile:
        """As `open`; the file is made if there is none."""
        return self._opened(path, IF_NEED_BE)

    def close_under(self, path: str) -> None:
        """Close the files at and below `path`: their names are about to change."""
        for name in [name for name in self._files if is_under(name, path)]:
            self._close(name)

    def sync(self) -> None:
        """Make durable what littlefs has written."""
        self.call("/", lambda fs: self._bridge.sync(self._config))

    def unmount(self) -> None:
        """Close everything. Nothing is left to write: every operation has synced."""
        for name in list(self._files):
            self._close(name)
        self._discard()

    def _opened(self, path: str, how: str | lfs.LFSFileFlag) -> LFSFile:
        file = self._files.get(path)
        if file is None:
            while len(self._files) >= OPEN_FILES:
                self._close(next(iter(self._files)))
            file = self._files[path] = self.call(path, lfs.file_open, path, how)
        self._files.move_to_end(path)
        return file

    def _close(self, name: str) -> None:
        # Popped first: closing twice frees twice, and a failed close has closed as well.
        self._chains.pop(name, None)
        self.call(name, lfs.file_close, self._files.pop(name))

    def _chain(self, path: str, file: LFSFile) -> Chain | None:
        """Where the blocks of a file lie that is longer than one; None if littlefs did not look.

        Its last byte lies in its last block, which is the one that littlefs asks for.
        """
        size = self.call(path, lfs.file_size, file)
        self.call(path, lfs.file_seek, file, size - 1, SEEK_SET)
        self._bridge.last_read = NO_BLOCK
        self.call(path, lfs.file_read, file, 1)
        head = self._bridge.last_read
        if head == NO_BLOCK:
            return None
        chain = self._chains[path] = Chain(head, size, BLOCK, self._blocks, self._start_of)
        return chain

    def _read_chain(self, chain: Chain, offset: int, length: int) -> bytes:
        try:
            return b"".join([self._content(piece) for piece in chain.pieces(offset, length)])
        except NotAChain:
            raise
        except BaseException:
            self._discard()
            raise

    def _content(self, piece: Piece) -> memoryview:
        """Content of a block, from the sectors that it lies in and no others."""
        first = piece.start // PAYLOAD
        count = -(-piece.end // PAYLOAD) - first
        sectors = self._cache.read(piece.block * BLOCK_SECTORS + first, count)
        skipped = first * PAYLOAD
        return sectors[piece.start - skipped : piece.end - skipped]

    def _start_of(self, block: int, length: int) -> memoryview:
        return self._content(Piece(block, 0, length))

    def _refuse(self, path: str, code: int) -> NoReturn:
        failure = self._bridge.failure
        if failure is None and code in REFUSALS:
            raise REFUSALS[code](path) from None
        self._discard()
        if failure is not None:
            raise failure
        if code in FULL:
            raise NoSpace(f"{path}: the volume is full; remove something") from None
        raise DeviceFailed(f"{path}: {LittleFSError(code)}: check the disk") from None

    def _discard(self) -> None:
        """Give back littlefs's memory without letting it write: closing would sync."""
        self._bridge.stop()
        for file in self._files.values():
            with suppress(LittleFSError):
                lfs.file_close(self._fs, file)
        self._files.clear()
        lfs.unmount(self._fs)
        self.discarded = True


def format_volume(cache: SectorCache, blocks: int) -> None:
    """Make an empty littlefs. What was on the disk is lost."""
    bridge = Bridge(cache)
    try:
        lfs.format(LFSFilesystem(), _config(bridge, blocks))
    except LittleFSError as error:
        raise bridge.failure or DeviceFailed(f"format: {error}: check the disk") from None
    if bridge.failure:
        raise bridge.failure


def _config(bridge: Bridge, blocks: int) -> LFSConfig:
    return LFSConfig(
        bridge,
        block_size=BLOCK,
        block_count=blocks,
        read_size=PAYLOAD,
        prog_size=COMMIT,
        cache_size=BLOCK,
        lookahead_size=(blocks + 63) // 64 * 8,  # a bit per block: one walk finds all free ones
    )
