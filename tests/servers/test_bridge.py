"""The bridge: after the first failure nothing that littlefs decides reaches the disk."""

from __future__ import annotations

from littlefs import LFSConfig

from servers.fs.bridge import IO_ERROR, Bridge
from servers.fs.cache import SectorCache
from tests.servers.disk import BadSector, Disk
from ukernel.abi.services import SECTOR


def test_a_failed_read_is_kept_and_stops_everything() -> None:
    disk = Disk(64)
    bridge = Bridge(SectorCache(disk))
    config = LFSConfig(bridge, block_size=4096, block_count=8, read_size=SECTOR, prog_size=SECTOR)
    disk.fail_at(1, BadSector)
    assert bridge.read(config, 0, 0, SECTOR) == bytes(SECTOR)
    assert isinstance(bridge.failure, BadSector)
    assert bridge.prog(config, 0, 0, b"x" * SECTOR) == IO_ERROR
    assert bridge.erase(config, 0) == IO_ERROR
    assert bridge.sync(config) == IO_ERROR
    assert disk.operations == 1
