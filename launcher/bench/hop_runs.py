"""hop_runs: a system with notes at both ends, for each path of ours; what hops makes of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from launcher.bench import host
from launcher.bench.cores import Placement
from launcher.bench.hops import CHANNEL_HOPS, KERNEL_HOPS, Hops, Passage, attribute, by_channel
from launcher.bench.hops import by_kernel as cut_by_kernel
from launcher.bench.ours import output_of, system_file, with_servers
from launcher.bench.paths import KERNEL, PATHS, Path
from launcher.bench.stamps import BLOCK, Stamps
from launcher.config import SystemFile
from launcher.system import System
from ukernel.abi.syscalls import TraceRow

BLOCKS = 10  # with notes, and as many without: what the kernel's trace has room for
ECHO = next(number for number, operation in Stamps.ops.items() if operation.name == "echo")
SHOWN = (KERNEL, "channel_spin", "channel_block")


def measure_hops(
    places: Sequence[Placement], size: int, progress: Callable[[str], None]
) -> list[Hops]:
    """Every path of ours between every pair of cores on which it makes sense."""
    found = []
    for where in places:
        for path in map(PATHS.__getitem__, SHOWN):
            if where.is_cross or path.same_core:
                progress(f"hops of {path.name}, {where.distance}")
                found.append(hops_of(path, where, size))
    return found


def hops_of(path: Path, where: Placement, size: int, blocks: int = BLOCKS) -> Hops:
    """Boot, let the client call, take its notes, the server's and the kernel's together."""
    with host.pinned(where.broker), System(_file(path), name=f"hops-{os.getpid()}") as system:
        system.boot()
        assert system.kernel is not None
        host.place(system.kernel.process.pid, where.broker)
        echo = system.tasks["echo"].process
        assert echo is not None
        host.place(echo.pid, where.server)
        way = "channel" if path.is_channel else "kernel"
        told = output_of(system, [str(where.client), str(blocks * BLOCK), str(size), way])
        said = json.loads(told)
        cut = _cut(path, system, said)
    names = CHANNEL_HOPS if path.is_channel else KERNEL_HOPS
    return attribute(path.name, where.distance, names, cut, said["plain"], said["clock_ns"])


def _cut(path: Path, system: System, said: dict[str, Any]) -> list[tuple[int, ...]]:
    pairs = zip(said["client"], said["server"], strict=True)
    if path.is_channel:
        return [by_channel(client, server) for client, server in pairs]
    counters = {count.name: count.value for count in system.control().counters()}
    busy_ns = counters["busy_ns"] // counters["events"]
    passed = _passages(system, len(said["client"]))
    return [
        cut_by_kernel(client, server, passage, busy_ns)
        for (client, server), passage in zip(pairs, passed, strict=True)
    ]


def _passages(system: System, count: int) -> list[Passage]:
    """The echoes that were noted, `count` of them, in the kernel's trace."""
    rows: list[TraceRow] = []
    while page := system.control().trace(rows[-1].number + 1 if rows else 0):
        rows += page
    echoes = [row for row in rows if row.client.startswith("client#") and row.opcode == ECHO]
    noted = [row for at, row in enumerate(echoes[-2 * count :]) if at // BLOCK % 2]
    return [Passage(row.queued_ns, row.taken_ns, row.done_ns) for row in noted]


def _file(path: Path) -> SystemFile:
    """The system of the bench, with notes at both ends."""
    return with_servers(
        system_file(path),
        client={"run": "launcher.bench.stamped_client"},
        echo={"run": "launcher.bench.stamped_echo", "serves": "launcher.bench.stamps:Stamps"},
    )
