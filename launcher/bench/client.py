"""client: the task that measures the kernel path from the inside. Prints a Run on stdout.

An ordinary application of an ordinary system: a stub, a checked capability, a traced call. Only
the pipelined load goes below the stub, to have many calls under way.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from launcher.bench import host
from launcher.bench.load import Counts
from launcher.bench.peers import measure
from ukernel.abi import wire
from ukernel.abi.services import Echo
from ukernel.lib import task
from ukernel.lib.stub import connect


def main() -> None:
    core, counts = int(sys.argv[1]), Counts(**json.loads(sys.argv[2]))
    stub = connect(Echo, "echo")
    connection = task.connection()
    token = connection.capability("echo")
    opcode = next(number for number, o in Echo.ops.items() if o.name == "echo")

    def post(data: bytes) -> None:
        connection.post(token, opcode, wire.pack((data,)))

    def collect() -> Any:
        return wire.unpack(connection.collect().body)

    run = measure(stub.echo, post, collect, counts)
    run.strays = host.strays(os.getpid(), core)
    print(run.dump(), flush=True)
    connection.close()


if __name__ == "__main__":
    main()
