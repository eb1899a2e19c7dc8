"""plan: which figures there are, whom they are of, and how often each is taken. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

OURS, PEER, TASK = "ours", "peer", "task"  # classes: our monitor, QEMU, a task without a machine
MIPS, PERCENT, MS, US = "MIPS", "%", "ms", "us"
SIZES = (4, 16, 64)  # MiB of the machines whose memory is full
SHARE = 40  # percent of a processor, of the machine that has less than all of one
QUICK_SIZES = (4, 16)


def full(size: int) -> str:
    """The machine with so many MiB, as `vm.yaml` calls it."""
    return f"full-{size}"


class Figure(NamedTuple):
    """One thing that is measured, of somebody, while `subject` is visited. `limit` is a claim: the
    median is not worse."""

    name: str
    who: str
    subject: str
    kind: str
    unit: str
    what: str
    more_is_better: bool = False
    limit: float | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.who


def _of_size(size: int) -> Iterator[Figure]:
    whom = f"{size}MiB", full(size), OURS, MS
    yield Figure("snapshot", *whom, "the guest stands still for a snapshot")
    yield Figure("restore", *whom, "from SIGKILL of its monitor to the guest's next line")
    yield Figure("migrate", *whom, "the guest runs nowhere while it is moved")


FIGURES = {
    figure.key: figure
    for figure in (
        Figure("speed", "monitor", "speed", OURS, MIPS, "a tight loop", True, 100.0),
        Figure("speed", "atomics", "atomics", OURS, MIPS, "it, in a program with atomics", True),
        Figure("speed", f"share-{SHARE}", "share", OURS, MIPS, f"it, with share: {SHARE}", True),
        Figure("speed", "qemu", "qemu-speed", PEER, MIPS, "it, from the same file", True),
        Figure("cpu_speed", "monitor", "speed", OURS, MIPS, "it, by the processor time used", True),
        Figure("share", f"share-{SHARE}", "share", OURS, PERCENT, "of a processor that it had",
               limit=SHARE + 2.0),
        Figure("boot", "monitor", "hello", OURS, MS, "from the death before it to its first byte",
               limit=30.0),
        Figure("boot", "qemu", "qemu-hello", PEER, MS, "from the start of QEMU to its first byte"),
        Figure("disk", "guest", "diskcheck", OURS, US, "a request of 4 KiB and what is made of it"),
        Figure("disk", "task", "plain", TASK, US, "the same requests, and nothing made of them"),
        *(figure for size in SIZES for figure in _of_size(size)),
    )
}  # fmt: skip


class Plan(NamedTuple):
    """What is done in a round, and how many rounds there are."""

    rounds: int = 7
    boots: int = 6  # of each
    disk_s: float = 1.0  # that a disk is asked for
    beats_s: float = 1.0  # that a heartbeat is looked at
    snapshots: int = 4
    restores: int = 3
    sizes: tuple[int, ...] = SIZES
    tests: int = 5  # lives of a self-test

    @property
    def subjects(self) -> list[str]:
        """Whom each round visits."""
        ours = ["speed", "atomics", "share", "hello", "diskcheck", "heartbeat", "plain"]
        return [*ours, "qemu-speed", "qemu-hello", *(full(size) for size in self.sizes)]

    @property
    def figures(self) -> list[Figure]:
        left_out = {f"{size}MiB" for size in set(SIZES) - set(self.sizes)}
        return [figure for figure in FIGURES.values() if figure.who not in left_out]

    def order(self) -> Iterator[str]:
        """Round after round, each in another order, so that what the host does hits all alike."""
        for _ in range(self.rounds):
            yield from random.sample(self.subjects, len(self.subjects))


def quick() -> Plan:
    return Plan(
        rounds=3,
        boots=7,
        disk_s=0.4,
        beats_s=0.3,
        snapshots=2,
        restores=2,
        sizes=QUICK_SIZES,
        tests=3,
    )
