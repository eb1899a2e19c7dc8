"""grpc_unix: gRPC's synchronous server and client over a Unix socket, without protobuf: the body
is msgpack, as everywhere here."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc

from launcher.bench.job import Client
from launcher.bench.peers import Answer, Peer, pack, ready, unpack

SERVICE, METHOD = "bench.Echo", "Echo"


def server(address: str, answer: Answer) -> NoReturn:
    made = grpc.server(ThreadPoolExecutor(1))
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: answer(request))
    generic = grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler})
    made.add_generic_rpc_handlers((generic,))
    made.add_insecure_port(f"unix:{address}/grpc")
    made.start()
    ready()
    made.wait_for_termination()
    raise SystemExit


def client(address: str) -> Client:
    channel = grpc.insecure_channel(f"unix:{address}/grpc")
    method = channel.unary_unary(f"/{SERVICE}/{METHOD}")

    def call(data: bytes) -> Any:
        return unpack(method(pack((data,))))

    return Client(call)


PEERS = {"grpc": Peer(client, server)}
