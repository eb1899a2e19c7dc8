"""python -m launcher.bench.peers PEER ROLE ADDRESS CORE COUNTS: one process of a peer.

    zmq_proxy_c  REQ client, libzmq's own `zmq_proxy` between ROUTER and DEALER, REP server
    bare_router  DEALER client, ROUTER in Python that forwards by routing id, DEALER server

Both pack and unpack msgpack where the kernel path does, and use pyzmq's raw sockets as it does.
Their I/O threads are scheduled as libzmq leaves them; those of tasks are not (lib.connection),
which is part of what is compared.
A process waits for a line on stdin, sets itself up, says "ready", and dies with its parent.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import msgpack
import zmq
from zmq.backend import Socket

from launcher.bench import host
from launcher.bench.load import Counts, Run, closed_loop, pipelined, warm_up

PR_SET_PDEATHSIG = 1
SERVER = b"server"  # routing id
FAULTY = "faulty"  # a server that answers one call in a hundred wrongly, to test the gate

pack, unpack = msgpack.packb, msgpack.unpackb


def echo(faulty: bool) -> Callable[[bytes], bytes]:
    """What a server makes of a request: arguments in, result out."""
    calls = 0

    def answer(request: bytes) -> bytes:
        nonlocal calls
        (data,) = unpack(request)
        calls += 1
        packed: bytes = pack(data[::-1] if faulty and calls % 100 == 0 else data)
        return packed

    return answer


# --- zmq_proxy_c --------------------------------------------------------------------------------


def proxy_broker(context: zmq.Context[Any], address: str) -> NoReturn:
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    front.bind(address)
    back.bind(f"{address}-back")
    ready()
    zmq.proxy(front, back)
    raise SystemExit


def proxy_server(context: zmq.Context[Any], address: str, faulty: bool) -> NoReturn:
    socket, answer = Socket(context, zmq.REP), echo(faulty)
    socket.connect(f"{address}-back")
    ready()
    recv, send = socket.recv, socket.send
    while True:
        send(answer(recv()))


def proxy_client(context: zmq.Context[Any], address: str, counts: Counts) -> Run:
    one = Socket(context, zmq.REQ)
    one.connect(address)
    many = Socket(context, zmq.DEALER)
    many.connect(address)

    def call(data: bytes) -> Any:
        one.send(pack((data,)))
        return unpack(one.recv())

    def post(data: bytes) -> None:
        many.send(b"", zmq.SNDMORE)
        many.send(pack((data,)))

    def collect() -> Any:
        many.recv()
        return unpack(many.recv())

    return measure(call, post, collect, counts)


# --- bare_router --------------------------------------------------------------------------------


def router_broker(context: zmq.Context[Any], address: str) -> NoReturn:
    socket = Socket(context, zmq.ROUTER)
    socket.bind(address)
    ready()
    recv, send = socket.recv, socket.send
    while True:
        source, target, body = recv(), recv(), recv()
        send(target, zmq.SNDMORE)
        send(source, zmq.SNDMORE)
        send(body)


def router_server(context: zmq.Context[Any], address: str, faulty: bool) -> NoReturn:
    socket, answer = Socket(context, zmq.DEALER), echo(faulty)
    socket.set(zmq.ROUTING_ID, SERVER)
    socket.connect(address)
    recv, send = socket.recv, socket.send
    send(SERVER, zmq.SNDMORE)  # to itself: when it is back, the router knows this server
    send(b"")
    recv(), recv()
    ready()
    while True:
        client = recv()
        body = answer(recv())
        send(client, zmq.SNDMORE)
        send(body)


def router_client(context: zmq.Context[Any], address: str, counts: Counts) -> Run:
    socket = Socket(context, zmq.DEALER)
    socket.connect(address)
    recv, send = socket.recv, socket.send

    def post(data: bytes) -> None:
        send(SERVER, zmq.SNDMORE)
        send(pack((data,)))

    def collect() -> Any:
        recv()
        return unpack(recv())

    def call(data: bytes) -> Any:
        post(data)
        return collect()

    return measure(call, post, collect, counts)


# --- a process ----------------------------------------------------------------------------------


def measure(
    call: Callable[[bytes], bytes],
    post: Callable[[bytes], object],
    collect: Callable[[], bytes],
    counts: Counts,
) -> Run:
    """Both loads, one after the other."""
    gc.collect()
    gc.freeze()
    warm_up(call, counts)
    samples, wrong = closed_loop(call, counts)
    calls_per_s, more_wrong = pipelined(post, collect, counts)
    return Run(samples, calls_per_s, wrong + more_wrong)


def ready() -> None:
    print("ready", flush=True)


BROKERS = {"zmq_proxy_c": proxy_broker, "bare_router": router_broker}
SERVERS = {"zmq_proxy_c": proxy_server, "bare_router": router_server}
CLIENTS = {"zmq_proxy_c": proxy_client, "bare_router": router_client}


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    peer, role, address, core, counts = sys.argv[1:]
    if not sys.stdin.readline():
        return  # the parent died before it could be noticed
    os.sched_setaffinity(0, {int(core)})
    gc.freeze()
    context: zmq.Context[Any] = zmq.Context()  # its threads inherit the core
    if role == "broker":
        BROKERS[peer](context, address)
    if role != "client":
        SERVERS[peer](context, address, role == FAULTY)
    run = CLIENTS[peer](context, address, Counts(**json.loads(counts)))
    run.strays = host.strays(os.getpid(), int(core))
    print(run.dump(), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
