"""python -m launcher.bench.net.client ADDRESS STEPS: the client of all stacks, on Linux sockets.

STEPS is a JSON list of {do, count, size}; what came of each is told as a JSON list on stdout. Times
are nanoseconds. Bytes are counted and thrown away: whatever is done with them would weigh on
the quick stacks more than on the slow ones.

bulk count   download so many bytes from the bulk server: from the request to the end of the stream
http count   the same of a file, by HTTP, whose answer begins with a head that is not counted
ping count   ICMP echoes of `size` bytes, one after the other
echo count   `size` bytes to the echo server and back, one after the other
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from launcher import tap
from launcher.bench.net import ends

PATIENCE_S = 20.0  # of one read
BUFFER = 1 << 20
MOST_HEAD = 64 * 1024
ICMP_ECHO, ICMP_REPLY = 8, 0
SETTLE = 10  # round trips before those that count: addresses are resolved, code is warm
Told = dict[str, Any]


@contextlib.contextmanager
def _line(address: str, port: int) -> Iterator[socket.socket]:
    with socket.create_connection((address, port), PATIENCE_S) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield line


def bulk(address: str, count: int, size: int) -> Told:
    with _line(address, ends.BULK) as line:
        begun = time.perf_counter_ns()
        line.sendall(count.to_bytes(ends.WANTED_BYTES, "big"))
        return {"bytes": _drained(line), "ns": time.perf_counter_ns() - begun}


def http(address: str, count: int, size: int) -> Told:
    """The whole file comes, or its first bytes when it has more."""
    ask = f"GET {ends.PATH} HTTP/1.1\r\nHost: {address}\r\nRange: bytes=0-{count - 1}\r\n"
    with _line(address, ends.HTTP) as line:
        begun = time.perf_counter_ns()
        line.sendall(f"{ask}Connection: close\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head and len(head) < MOST_HEAD:
            if not (piece := line.recv(MOST_HEAD)):
                break
            head += piece
        head, _, body = head.partition(b"\r\n\r\n")
        came = len(body) + _drained(line)
        if head.split(b" ")[1:2] != [b"206"]:
            came = 0  # an error has a body too
        return {"bytes": came, "ns": time.perf_counter_ns() - begun}


def _drained(line: socket.socket) -> int:
    """All bytes until the end of the stream."""
    buffer, came = bytearray(BUFFER), 0
    while count := line.recv_into(buffer):
        came += count
    return came


def echo(address: str, count: int, size: int) -> Told:
    wrong, took = 0, []
    with _line(address, ends.ECHO) as line:
        for number in range(-SETTLE, count):
            data = struct.pack(">q", number).ljust(size, b"u")
            begun = time.perf_counter_ns()
            line.sendall(data)
            came = b""
            while len(came) < size and (piece := line.recv(size - len(came))):
                came += piece
            if number >= 0:
                took.append(time.perf_counter_ns() - begun)
            wrong += came != data
    return {"rtt": took, "wrong": wrong}


def ping(address: str, count: int, size: int) -> Told:
    """By a raw socket: whoever is root of the namespace may have one."""
    wrong, took = 0, []
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as line:
        line.settimeout(PATIENCE_S)
        line.connect((address, 0))
        for number in range(-SETTLE, count):
            payload = struct.pack(">q", number).ljust(size, b"u")
            message = _echo(number & 0xFFFF, payload)
            begun = time.perf_counter_ns()
            line.send(message)
            came = _reply(line, number & 0xFFFF)
            if number >= 0:
                took.append(time.perf_counter_ns() - begun)
            wrong += came != payload
    return {"rtt": took, "wrong": wrong}


def _echo(number: int, payload: bytes) -> bytes:
    """RFC 792, echo message."""
    bare = struct.pack(">BBHHH", ICMP_ECHO, 0, 0, os.getpid() & 0xFFFF, number) + payload
    words = struct.unpack(f">{len(bare) // 2}H", bare)
    checksum: int = ~(sum(words) % 0xFFFF) & 0xFFFF
    return bare[:2] + checksum.to_bytes(2, "big") + bare[4:]


def _reply(line: socket.socket, number: int) -> bytes:
    """What the reply to this echo carries. On the way there come others' messages, and over the
    loopback our own."""
    ours = struct.pack(">HH", os.getpid() & 0xFFFF, number)
    while True:
        packet: bytes = line.recv(MOST_HEAD)
        message = packet[4 * (packet[0] & 15) :]
        if message[0] == ICMP_REPLY and message[4:8] == ours:
            return bytes(message[8:])


STEPS: dict[str, Callable[[str, int, int], Told]] = {
    "bulk": bulk, "http": http, "ping": ping, "echo": echo,
}  # fmt: skip


def main(address: str, steps: str) -> None:
    ctypes.CDLL(None).prctl(tap.PR_SET_PDEATHSIG, signal.SIGKILL)  # with the bench
    told = [STEPS[step["do"]](address, step["count"], step["size"]) for step in json.loads(steps)]
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
