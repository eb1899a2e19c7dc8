"""volume: a littlefs on a disk. What a call has returned survives a power cut.

    Volume > Mount > littlefs > Bridge > SectorCache > Extents > SealedDisk > Disk > its driver
                   > Chain (long reads)  >

`write`, `create`, `truncate`, `rename` and `remove` happen as a whole or not at all, whatever
their size; `mkdir` does for each directory it makes. Paths have passed `check_path`. One thread.

What the device raises comes out of the call that met it. After that, or when the disk is full, the
next call mounts again: a restart is a start, and nothing is built upon a half-done state. Wrong
data from the disk is such a failure; it is seen by the checksum that every sector carries.
"""

from __future__ import annotations

from contextlib import suppress

from littlefs import LFSDirectory, LFSFile, LFSFilesystem, LFSStat, lfs

from servers.fs.cache import SectorCache
from servers.fs.extents import Extents, NotOurVolume
from servers.fs.integrity import LINE, SealedDisk, Sectors
from servers.fs.mount import BLOCK, BLOCK_SECTORS, SEEK_SET, Mount, format_volume
from servers.fs.paths import ROOT, is_under, parents
from ukernel.abi.services import (
    DIRECTORY,
    FILE,
    PAGE,
    SECTOR,
    AlreadyExists,
    BadName,
    DeviceFailed,
    Entry,
    NoSpace,
    OutOfRange,
    Stat,
)

FEWEST_SECTORS = LINE + 8 * BLOCK_SECTORS  # the header's, and blocks for littlefs to turn round in
LARGEST_FILE = 2**31 - 1  # bytes; littlefs keeps sizes in 31 bits
ZEROS = bytes(64 * 1024)
DOTS = (".", "..")

Data = bytes | bytearray | memoryview


class Volume:
    """A mounted volume. Make it with `Volume.mount`; not to be used after `unmount`."""

    def __init__(self, extents: Extents) -> None:
        self._cache = SectorCache(extents)
        self._blocks = extents.capacity // BLOCK_SECTORS
        self._mount: Mount | None = None

    @classmethod
    def mount(cls, sectors: Sectors, format_if_blank: bool) -> Volume:
        """The volume on this disk; on a blank disk a new one, if `format_if_blank`.

        Raises NotOurVolume rather than format anything that is not blank.
        """
        if sectors.capacity < FEWEST_SECTORS:
            raise NotOurVolume(
                f"the disk has {sectors.capacity * SECTOR} bytes and a volume needs "
                f"{FEWEST_SECTORS * SECTOR}: set a larger size for the disk"
            )
        extents = Extents(SealedDisk(sectors))
        volume = cls(extents)
        if not volume._formatted():
            if not format_if_blank:
                raise NotOurVolume("the disk is blank: set format_if_blank: true to make a volume")
            extents.save()
            format_volume(volume._cache, volume._blocks)
        volume._live()
        return volume

    def unmount(self) -> None:
        """Close every file and let go of the disk."""
        if self._mount is not None and not self._mount.discarded:
            self._mount.unmount()

    def sync(self) -> None:
        """Make everything done so far durable. It is already, so this costs nothing."""
        self._live().sync()

    def create(self, path: str, truncate: bool) -> None:
        """Make `path` a file if it is not there; if `truncate`, an empty one either way."""
        mount = self._live()
        file = mount.create(path)
        if truncate and mount.call(path, lfs.file_size, file):
            self.truncate(path, 0)

    def open(self, path: str) -> None:
        """Find the file, so that what is done to it next need not. Raises if there is none."""
        self._live().open(path)

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer only at the end of the file."""
        mount = self._live()
        file = mount.open(path)
        wanted = min(length, mount.call(path, lfs.file_size, file) - offset)
        if wanted <= 0:
            return b""
        return mount.read(path, file, offset, wanted)

    def write(self, path: str, offset: int, data: Data) -> int:
        """Write all of `data` at `offset`, zeros before it if the file ends earlier; its length.

        Raises OutOfRange beyond 2 GiB, and NoSpace with the file as it was.
        """
        mount = self._live()
        file = mount.changing(path)
        if not data:
            return 0
        self._check_size(path, offset + len(data))
        self._extend(path, file, offset)
        mount.call(path, lfs.file_seek, file, offset, SEEK_SET)
        mount.call(path, lfs.file_write, file, bytes(data))
        mount.call(path, lfs.file_sync, file)
        return len(data)

    def truncate(self, path: str, size: int) -> None:
        """Cut or extend with zeros to `size` bytes. Raises as `write` does."""
        mount = self._live()
        file = mount.changing(path)
        self._check_size(path, size)
        self._extend(path, file, size)
        mount.call(path, lfs.file_truncate, file, size)
        mount.call(path, lfs.file_sync, file)

    def stat(self, path: str) -> Stat:
        """Kind and size; a directory has size 0."""
        return _stat(self._live().call(path, lfs.stat, path))

    def mkdir(self, path: str) -> None:
        """Make the directory and those above it; well if it is there already."""
        if path == ROOT:
            return
        mount = self._live()
        for above in parents(path):
            with suppress(AlreadyExists):  # if as a file, the next step says NotADirectory
                mount.call(above, lfs.mkdir, above)
        try:
            mount.call(path, lfs.mkdir, path)
        except AlreadyExists:
            if self.stat(path).kind != DIRECTORY:
                raise

    def entries(self, path: str, start: int) -> list[Entry]:
        """Up to PAGE entries in the order of their names, from number `start`."""
        found = sorted(self._live().call(path, _list, path))
        return found[start : start + PAGE]

    def rename(self, old: str, new: str) -> None:
        """Give `old` the name `new`; a file or an empty directory there is replaced."""
        if ROOT in (old, new) or (old != new and is_under(new, old)):
            raise BadName(f"{old} cannot become {new}: a directory does not fit into itself")
        mount = self._live()
        mount.close_under(old)
        mount.close_under(new)
        mount.call(f"{old} -> {new}", lfs.rename, old, new)

    def remove(self, path: str) -> None:
        """Remove a file or an empty directory."""
        if path == ROOT:
            raise BadName("/ cannot be removed: remove what is in it")
        mount = self._live()
        mount.close_under(path)
        mount.call(path, lfs.remove, path)

    def _formatted(self) -> bool:
        """Whether littlefs has begun one of its two superblocks; the power may have gone before."""
        return any(any(self._cache.read(block * BLOCK_SECTORS, 1)) for block in (0, 1))

    def _live(self) -> Mount:
        """The mount, made anew if the last one was discarded."""
        if self._mount is None or self._mount.discarded:
            self._cache.drop()
            self._mount = Mount(self._cache, self._blocks)
        return self._mount

    def _check_size(self, path: str, size: int) -> None:
        if size > LARGEST_FILE:
            raise OutOfRange(f"{path}: {size} bytes, a file has at most {LARGEST_FILE}")
        if size > self._blocks * BLOCK:  # rather than find out after filling the disk with zeros
            raise NoSpace(f"{path}: {size} bytes, the volume has {self._blocks * BLOCK}")

    def _extend(self, path: str, file: LFSFile, size: int) -> None:
        """Append zeros up to `size`; littlefs does it as well, but byte by byte."""
        mount = self._live()
        end = mount.call(path, lfs.file_size, file)
        if end < size:
            mount.call(path, lfs.file_seek, file, end, SEEK_SET)
        for start in range(end, size, len(ZEROS)):
            mount.call(path, lfs.file_write, file, ZEROS[: size - start])


def _stat(found: LFSStat) -> Stat:
    if found.type == LFSStat.TYPE_DIR:
        return Stat(DIRECTORY, 0)  # littlefs leaves its size uninitialised
    return Stat(FILE, found.size)


def _list(fs: LFSFilesystem, path: str) -> list[Entry]:
    directory = lfs.dir_open(fs, path)
    try:
        found = list(iter(lambda: _next(fs, directory), None))
    except UnicodeDecodeError as error:  # an image from elsewhere
        raise DeviceFailed(f"{path} holds a name that is not UTF-8: {error.object!r}") from None
    finally:
        lfs.dir_close(fs, directory)
    return [entry for entry in found if entry.name not in DOTS]


def _next(fs: LFSFilesystem, directory: LFSDirectory) -> Entry | None:
    found = lfs.dir_read(fs, directory)
    return None if found is None else Entry(found.name, *_stat(found))
