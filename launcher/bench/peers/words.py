"""words: floors of a few bytes: the clock, a cache line between two cores, a pair of eventfds."""

from __future__ import annotations

import mmap
import os
from typing import NoReturn

from launcher.bench.job import Client
from launcher.bench.peers import Answer, Peer, hand_over, taken

APART = 16  # words between ping and pong: two cache lines, for a prefetcher fetches pairs


def timer_client(address: str) -> Client:
    """Nothing at all: what is left is reading the clock twice, a bias of every other sample."""
    return Client(lambda data: data, batch=1)


# --- cache_line ---------------------------------------------------------------------------------


def cache_line_server(address: str, answer: Answer) -> NoReturn:
    fd = os.memfd_create("bench-words")
    os.ftruncate(fd, mmap.PAGESIZE)
    words = _words(fd)
    hand_over(address, fd)
    expected = 1
    while True:
        while words[0] != expected:
            pass
        words[APART] = expected
        expected += 1


def cache_line_client(address: str) -> Client:
    """The number goes there and comes back: that is its check, and all that it carries."""
    (fd,) = taken(address, 1)
    words, number = _words(fd), 0

    def call(data: bytes) -> bytes:
        nonlocal number
        number += 1
        words[0] = number
        while words[APART] != number:
            pass
        return data

    return Client(call)


def _words(fd: int) -> memoryview:
    return memoryview(mmap.mmap(fd, mmap.PAGESIZE)).cast("Q")


# --- eventfd ------------------------------------------------------------------------------------


def eventfd_server(address: str, answer: Answer) -> NoReturn:
    ping, pong = os.eventfd(0), os.eventfd(0)
    hand_over(address, ping, pong)
    read, write = os.eventfd_read, os.eventfd_write
    while True:
        write(pong, read(ping))


def eventfd_client(address: str) -> Client:
    ping, pong = taken(address, 2)
    read, write = os.eventfd_read, os.eventfd_write

    def call(data: bytes) -> bytes:
        write(ping, 1)
        return data if read(pong) == 1 else b""

    return Client(call)


PEERS = {
    "timer": Peer(timer_client, packed=False),
    "cache_line": Peer(cache_line_client, cache_line_server, packed=False),
    "eventfd": Peer(eventfd_client, eventfd_server, packed=False),
}
