"""stranger: a process that says HELLO as it is told and prints what it got. No task library."""

from __future__ import annotations

import sys

import zmq

from ukernel.abi import wire

ANSWERED = "answered"


def main() -> None:
    address, secret = sys.stdin.readline().split()
    with zmq.Context() as context, context.socket(zmq.DEALER) as line:
        line.connect(address)
        line.send(wire.encode(wire.HELLO, token=bytes.fromhex(secret)))
        reply = wire.decode(line.recv())
        assert isinstance(reply, wire.Message), reply
        print(ANSWERED, reply.status, flush=True)


if __name__ == "__main__":
    main()
