"""The bridge: after the first failure nothing that littlefs decides reaches the disk."""

from __future__ import annotations

from littlefs import LFSConfig

from servers.fs.bridge import IO_ERROR, OK, Bridge
from servers.fs.cache import SectorCache
from servers.fs.integrity import PAYLOAD, SealedDisk
from servers.fs.mount import BLOCK
from tests.servers.disk import BadSector, Disk


def test_a_sector_that_was_remembered_is_not_believed_after_a_change() -> None:
    disk = Disk(64)
    bridge = Bridge(SectorCache(SealedDisk(disk)))
    config = LFSConfig(
        bridge, block_size=BLOCK, block_count=4, read_size=PAYLOAD, prog_size=PAYLOAD
    )
    for n in range(3):
        assert bridge.prog(config, 1, PAYLOAD, bytes([n]) * PAYLOAD) == OK
        assert bridge.read(config, 1, PAYLOAD, PAYLOAD) == bytes([n]) * PAYLOAD
    assert bridge.last_read == 1
    bridge.stop()
    assert bridge.read(config, 1, PAYLOAD, PAYLOAD) == bytes(PAYLOAD)


def test_a_failed_read_is_kept_and_stops_everything() -> None:
    disk = Disk(64)
    bridge = Bridge(SectorCache(SealedDisk(disk)))
    config = LFSConfig(
        bridge, block_size=BLOCK, block_count=4, read_size=PAYLOAD, prog_size=PAYLOAD
    )
    disk.fail_at(1, BadSector)
    assert bridge.read(config, 0, 0, PAYLOAD) == bytes(PAYLOAD)
    assert isinstance(bridge.failure, BadSector)
    assert bridge.prog(config, 0, 0, b"x" * PAYLOAD) == IO_ERROR
    assert bridge.erase(config, 0) == IO_ERROR
    assert bridge.sync(config) == IO_ERROR
    assert disk.operations == 1
