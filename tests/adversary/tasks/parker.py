"""parker: leaves CALLS calls with `net` that nothing will ever come of, and says how many of those
that do not fit into any window were refused; then it waits for the end of its input."""

from __future__ import annotations

import sys

from ukernel.abi.errors import Overload
from ukernel.abi.network import Address, Network
from ukernel.lib.stub import begin, connect

CALLS = 400
WINDOW = 64  # of net, or of any server at most
PORT = 4000


def main() -> None:
    net = connect(Network, "net", timeout_s=None)
    listener = net.listen(Address("0.0.0.0", PORT), 1, 0)
    waiting = [begin(listener.accept, tag) for tag in range(1, CALLS + 1)]
    refused = 0
    for call in waiting[WINDOW:]:
        try:
            call.result()
        except Overload:
            refused += 1
    print(refused, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
