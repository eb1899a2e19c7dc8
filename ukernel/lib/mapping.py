"""mapping: shared memory in this process, without a descriptor: Python's `mmap` keeps one for each.

It is unmapped when the last view of it is gone.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
)  # fmt: skip
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
FAILED = ctypes.c_void_p(-1).value
MADV_POPULATE_WRITE = 23  # not in Python's `mmap`; Linux 5.14


def map_shared(fd: int, size: int, *, writable: bool) -> memoryview:
    """The first `size` bytes behind `fd`, which stays the caller's to close. Raises OSError."""
    access = mmap.PROT_READ | mmap.PROT_WRITE if writable else mmap.PROT_READ
    address = _libc.mmap(None, size, access, mmap.MAP_SHARED, fd, 0)
    if address == FAILED:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    memory = (ctypes.c_ubyte * size).from_address(address)
    weakref.finalize(memory, _libc.munmap, address, size).atexit = False  # views may outlive us
    view = memoryview(memory).cast("B")
    return view if writable else view.toreadonly()


def populate(memory: memoryview) -> None:
    """Have its pages in place, so that who touches them later does not wait for them. `memory` is
    shared, writable and begins with a page. Linux before 5.14 makes them as they are touched."""
    _advise(memory, MADV_POPULATE_WRITE)


def forget(memory: memoryview) -> None:
    """Give its pages back to Linux, in whatever process it is mapped: it is zeros. As above."""
    _advise(memory, mmap.MADV_REMOVE)


def _advise(memory: memoryview, advice: int) -> None:
    if memory:
        _libc.madvise((ctypes.c_ubyte * len(memory)).from_buffer(memory), len(memory), advice)
