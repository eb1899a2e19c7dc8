"""client: the task that measures a path of ours from the inside. Prints a Run on stdout.

An ordinary application of an ordinary system: a stub, a checked capability, a traced call. The
program is the same whether the system file sends its calls through the kernel or by a channel.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from typing import Any

from launcher.bench import host
from launcher.bench.job import Client, Job, carry_out
from ukernel.abi import wire
from ukernel.abi.services import Echo
from ukernel.lib import task
from ukernel.lib.connection import Connection
from ukernel.lib.stub import begin, connect


def main() -> None:
    job, by_channel = Job.parsed(sys.argv[1]), sys.argv[2] == "channel"
    host.place(os.getpid(), job.core)
    connection = task.connection()
    stub = connect(Echo, "echo")
    client = of_stub(stub) if by_channel else of_kernel(stub, connection)
    print(carry_out(job, client).dump(), flush=True)
    connection.leave()


def of_kernel(stub: Echo, connection: Connection) -> Client:
    """Only its pipelined load goes below the stub: nothing but sending and receiving."""
    token = connection.capability("echo")
    opcode = next(number for number, o in Echo.ops.items() if o.name == "echo")

    def post(data: bytes) -> None:
        connection.post(token, opcode, wire.pack((data,)))

    def collect() -> Any:
        return wire.unpack(connection.collect().body)

    return Client(stub.echo, post, collect)


def of_stub(stub: Echo) -> Client:
    """Calls under way as any task has them."""
    under_way: deque[Any] = deque()

    def post(data: bytes) -> None:
        under_way.append(begin(stub.echo, data))

    def collect() -> Any:
        return under_way.popleft().result()

    return Client(stub.echo, post, collect)


if __name__ == "__main__":
    main()
