"""python -m launcher.bench.vm.plain SECONDS: a task that asks a disk what the guest diskcheck asks.

It writes a whole partition by 4 KiB, flushes, and reads all of it, one request at a time, until so
much time is over at the end of a pass. Then it prints `[requests, nanoseconds]`.
"""

from __future__ import annotations

import json
import sys
import time

from ukernel.abi.services import SECTOR, Block
from ukernel.lib import task
from ukernel.lib.memory import Region
from ukernel.lib.stub import connect

CHUNK = 8 * SECTOR  # as guests/diskcheck.c has it


def main() -> None:
    for_ns = int(float(sys.argv[1]) * 1e9)
    connection = task.connection()
    block, region = connect(Block, "parts"), Region(connection, "chunk", CHUNK)
    sectors = range(0, block.capacity(), CHUNK // SECTOR)
    requests, begun_ns = 0, time.monotonic_ns()
    while (took_ns := time.monotonic_ns() - begun_ns) < for_ns:
        for sector in sectors:
            block.write(sector, region.show(0, CHUNK))
        block.flush()
        for sector in sectors:
            block.read(sector, region.lend(0, CHUNK))
        requests += 2 * len(sectors) + 1
    print(json.dumps([requests, took_ns]), flush=True)
    connection.leave()


if __name__ == "__main__":
    main()
