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
FAILED = ctypes.c_void_p(-1).value


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
