"""redis_lists: a call is pushed to one list of a Redis server, its answer comes from another."""

from __future__ import annotations

from typing import Any, NoReturn

import redis

from launcher.bench.job import Client
from launcher.bench.peers import Answer, Peer, become, dial, pack, ready, unpack

CALLS, ANSWERS = "calls", "answers"


def broker(address: str) -> NoReturn:
    ready()
    become(
        "redis-server", "--port", "0", "--unixsocket", _path(address), "--dir", address,
        "--save", "", "--appendonly", "no",
    )  # fmt: skip


def server(address: str, answer: Answer) -> NoReturn:
    line = _connected(address)
    ready()
    while True:
        _, request = line.blpop([CALLS])
        line.rpush(ANSWERS, answer(request))


def client(address: str) -> Client:
    line = _connected(address)

    def call(data: bytes) -> Any:
        line.rpush(CALLS, pack((data,)))
        return unpack(line.blpop([ANSWERS])[1])

    return Client(call)


def _path(address: str) -> str:
    return f"{address}/redis"


def _connected(address: str) -> Any:
    dial(_path(address)).close()
    return redis.Redis(unix_socket_path=_path(address), socket_timeout=None)


PEERS = {"redis": Peer(client, server, broker)}
