"""zeromq: pyzmq between two processes, and two brokers made of it.

    zmq_pair     PAIR to PAIR, bare bytes: the floor of everything that uses ZeroMQ
    zmq_req_rep  REQ to REP
    zmq_proxy_c  REQ client, libzmq's own `zmq_proxy` between ROUTER and DEALER, REP server
    bare_router  DEALER client, ROUTER in Python that forwards by routing id, DEALER server

All but the floor pack and unpack msgpack where the kernel path does, and use pyzmq's raw sockets
as it does. Their I/O threads are scheduled as libzmq leaves them; those of tasks are not
(lib.connection), which is part of what is compared.
"""

from __future__ import annotations

from typing import Any, NoReturn

import zmq
from zmq.backend import Socket

from launcher.bench.job import Client
from launcher.bench.peers import Answer, Peer, call_packed, pack, ready, unpack

SERVER = b"server"  # routing id


def opened(kind: int, *, bind: str = "", connect: str = "") -> Any:
    """A raw socket. Its context's threads inherit the core of this process."""
    made = Socket(zmq.Context.instance(), kind)
    if bind:
        made.bind(bind)
    if connect:
        made.connect(connect)
    return made


def front(address: str) -> str:
    return f"ipc://{address}/front"


def serve(socket: Any, answer: Answer) -> NoReturn:
    ready()
    recv, send = socket.recv, socket.send
    while True:
        send(answer(recv()))


# --- zmq_pair and zmq_req_rep -------------------------------------------------------------------


def pair_server(address: str, answer: Answer) -> NoReturn:
    serve(opened(zmq.PAIR, bind=front(address)), answer)


def pair_client(address: str) -> Client:
    socket = opened(zmq.PAIR, connect=front(address))
    recv, send = socket.recv, socket.send

    def call(data: bytes) -> bytes:
        send(data)
        answer: bytes = recv()
        return answer

    return Client(call, send, recv)


def rep_server(address: str, answer: Answer) -> NoReturn:
    serve(opened(zmq.REP, bind=front(address)), answer)


def req_client(address: str) -> Client:
    socket = opened(zmq.REQ, connect=front(address))
    return call_packed(socket.send, socket.recv)


# --- zmq_proxy_c --------------------------------------------------------------------------------


def proxy_broker(address: str) -> NoReturn:
    context: zmq.Context[Any] = zmq.Context.instance()
    ends = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    ends[0].bind(front(address))
    ends[1].bind(f"ipc://{address}/back")
    ready()
    zmq.proxy(*ends)
    raise SystemExit


def proxy_server(address: str, answer: Answer) -> NoReturn:
    serve(opened(zmq.REP, connect=f"ipc://{address}/back"), answer)


def proxy_client(address: str) -> Client:
    one = opened(zmq.REQ, connect=front(address))
    many = opened(zmq.DEALER, connect=front(address))

    def call(data: bytes) -> Any:
        one.send(pack((data,)))
        return unpack(one.recv())

    def post(data: bytes) -> None:
        many.send(b"", zmq.SNDMORE)
        many.send(pack((data,)))

    def collect() -> Any:
        many.recv()
        return unpack(many.recv())

    return Client(call, post, collect)


# --- bare_router --------------------------------------------------------------------------------


def router_broker(address: str) -> NoReturn:
    socket = opened(zmq.ROUTER, bind=front(address))
    ready()
    recv, send = socket.recv, socket.send
    while True:
        source, target, body = recv(), recv(), recv()
        send(target, zmq.SNDMORE)
        send(source, zmq.SNDMORE)
        send(body)


def router_server(address: str, answer: Answer) -> NoReturn:
    socket = opened(zmq.DEALER)
    socket.set(zmq.ROUTING_ID, SERVER)
    socket.connect(front(address))
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


def router_client(address: str) -> Client:
    socket = opened(zmq.DEALER, connect=front(address))
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

    return Client(call, post, collect)


PEERS = {
    "zmq_pair": Peer(pair_client, pair_server, packed=False),
    "zmq_req_rep": Peer(req_client, rep_server),
    "zmq_proxy_c": Peer(proxy_client, proxy_server, proxy_broker),
    "bare_router": Peer(router_client, router_server, router_broker),
}
