"""mapping: pages are there before they are touched, and gone when nobody needs them."""

from __future__ import annotations

import mmap
import os

from ukernel.lib.mapping import forget, map_shared, populate

SIZE = 64 * mmap.PAGESIZE


def test_pages_are_put_in_place_and_given_back() -> None:
    fd = os.memfd_create("pages")
    os.ftruncate(fd, SIZE)
    ours, theirs = (map_shared(fd, SIZE, writable=True) for _ in range(2))

    def held() -> int:
        return os.fstat(fd).st_blocks * 512

    assert held() == 0
    populate(ours[: SIZE // 2])
    assert held() == SIZE // 2
    populate(ours[:0])
    ours[:] = b"x" * SIZE
    forget(ours[SIZE // 2 :])
    assert held() == SIZE // 2
    assert bytes(theirs) == b"x" * (SIZE // 2) + bytes(SIZE // 2)
    os.close(fd)
