"""amounts: how much of each job one run does."""

from __future__ import annotations

from typing import NamedTuple

MIB = 1 << 20


class Amounts(NamedTuple):
    """Enough that a job takes several times as long as what happens by chance."""

    rounds: int = 5
    calls: int = 2000  # empty ones, and as many words with the kernel
    rested: int = 150  # empty calls after a pause of 2 ms
    files: int = 400
    write: int = 16  # MiB of the large file
    read: int = 12  # passes over it
    metadata: int = 120  # rounds
    writes: int = 24  # of one burst

    def jobs(self) -> dict[str, int]:
        """In the order in which they are done; `read` reads what `write` has written."""
        return {
            "call": self.calls,
            "rested": self.rested,
            "trap": self.calls,
            "files": self.files,
            "write": self.write,
            "read": self.read,
            "metadata": self.metadata,
        }

    def fitting(self, disk_bytes: int) -> Amounts:
        """With a large file that takes at most a quarter of the disk."""
        return self._replace(write=max(1, min(self.write, disk_bytes // 4 // MIB)))


QUICK = Amounts(rounds=3, calls=600, rested=60, files=80, write=6, read=5, metadata=20, writes=16)
