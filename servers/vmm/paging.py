"""paging: where a virtual address leads (privileged architecture 1.12 §4.3-4.5: Sv39, Sv48). Pure.

Permissions are not looked at: the processor has done that.
"""

from __future__ import annotations

from collections.abc import Callable

PAGE_BITS, INDEX_BITS, ENTRY_BYTES = 12, 9, 8
LEVELS = {8: 3, 9: 4}  # by mode of satp
VALID, LEAF = 1, 0b1110
PPN = (1 << 44) - 1


def physical(satp: int, address: int, entry: Callable[[int], int]) -> int | None:
    """The physical address behind `address`, or None. `entry` loads one of the page table."""
    levels = LEVELS.get(satp >> 60)
    if levels is None:
        return address
    table = satp & PPN
    for level in reversed(range(levels)):
        shift = PAGE_BITS + INDEX_BITS * level
        index = address >> shift & (1 << INDEX_BITS) - 1
        found = entry((table << PAGE_BITS) + index * ENTRY_BYTES)
        table = found >> 10 & PPN
        if not found & VALID:
            return None
        if found & LEAF:
            inside = (1 << shift) - 1
            return (table << PAGE_BITS) & ~inside | address & inside
    return None
