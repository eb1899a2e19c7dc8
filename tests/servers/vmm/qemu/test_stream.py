"""A stream in the loop of its owner."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from servers.vmm.qemu.stream import READ_BYTES, Stream
from tests.servers.vmm.qemu.rig import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.mark.parametrize("gone", [True, False])
def test_what_a_dead_one_has_said_last_is_not_lost(loop: Loop, gone: bool) -> None:
    """Also when another process has its end of the socket still."""
    came, ends = bytearray(), list[str]()
    stream = Stream(loop, loop.ours, came.extend, ends.append)
    said = bytes(range(256)) * (READ_BYTES // 256 // 2)
    loop.theirs.setblocking(False)
    sent = loop.theirs.send(said)
    if gone:
        loop.theirs.close()
    stream.finish()
    assert came == said[:sent]
    stream.close()
    stream.finish()
    assert not loop.watched
    assert not ends
