"""plan: which stacks are measured, and how much is asked of each. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

MIB = 1 << 20
OURS, PEER, LINUX, FLOOR = "ours", "peer", "linux", "floor"
BULK, HTTP, PING, ECHO = "bulk", "http", "ping", "echo"
PING_SIZE, ECHO_SIZE = 56, 64  # bytes; the former as ping(8)
WARM_UP = 4  # a download of a quarter goes before the one that counts, of this at most:
MOST_WARM_UP = MIB


class Variant(NamedTuple):
    """A stack under one setting."""

    name: str
    kind: str
    what: str
    download: str = BULK
    share: int = 1  # it is asked for 1/share of the bytes
    placement: str = ""
    offload: bool = True

    @property
    def answers(self) -> bool:
        """Whether its round trips are measured too."""
        return self.download == BULK


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("ukernel", OURS, "source, net, nic and machine, each a process; offload"),
        Variant("ukernel-http", OURS, "the same; httpd sends a file from the disk", HTTP),
        Variant("ukernel-mono", OURS, "net, nic, fs and disk in one process", placement="mono"),
        Variant("ukernel-plain", OURS, "as the first, by a card without offload", offload=False),
        Variant(
            "pmd-pytcp", PEER, "a stack in Python on a TAP interface, without offload", share=16
        ),
        Variant("linux", LINUX, "Linux's own stack, through a veth pair"),
        Variant("loopback", FLOOR, "Linux's own stack, through its loopback"),
    )
}


class Plan(NamedTuple):
    """What is done: `bytes_` per download, `trips` round trips of each sort, `rounds` times."""

    bytes_: int = 64 * MIB
    trips: int = 200
    rounds: int = 5
    names: tuple[str, ...] = tuple(VARIANTS)

    def of(self, variant: Variant) -> int:
        """Bytes of one download."""
        return self.bytes_ // variant.share

    def steps(self, variant: Variant) -> list[dict[str, Any]]:
        """What the client is told: the first is not for the record."""
        count = self.of(variant)
        steps = [
            _step(variant.download, min(count // WARM_UP, MOST_WARM_UP)),
            _step(variant.download, count),
        ]
        if variant.answers:
            steps += [_step(PING, self.trips, PING_SIZE), _step(ECHO, self.trips, ECHO_SIZE)]
        return steps

    def order(self, names: list[str]) -> Iterator[str]:
        """Round after round, each in another order, so that what the host does hits all alike."""
        for _ in range(self.rounds):
            yield from random.sample(names, len(names))


def quick() -> Plan:
    return Plan(bytes_=16 * MIB, trips=100, rounds=3)


def _step(do: str, count: int, size: int = 0) -> dict[str, Any]:
    return {"do": do, "count": count, "size": size}
