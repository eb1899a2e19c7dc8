"""sizes: `64MiB` as bytes, as system files and their servers spell it."""

from __future__ import annotations

import re

UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}  # bytes
SIZE = re.compile("([0-9]{1,19})(KiB|MiB|GiB)?")


def bytes_of(value: object) -> int | None:
    """Bytes of `4096`, `"4096"`, `"16KiB"`, `"64MiB"` or `"1GiB"`; None for anything else."""
    if type(value) is int:
        return value
    found = SIZE.fullmatch(value) if isinstance(value, str) else None
    return int(found[1]) * UNITS[found[2] or ""] if found is not None else None


def text_of(size: int) -> str:
    """The same the other way round, in the largest unit that divides it: `64MiB`."""
    unit = next(u for u in reversed(UNITS) if size % UNITS[u] == 0)
    return f"{size // UNITS[unit]}{unit}"
