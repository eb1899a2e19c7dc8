"""paths: the table of what is measured, and what each needs to be there.

Floors carry bytes and nothing else; direct paths are two processes; brokered ones have a third
between them. What is of one class can be ranked. `floors` names what a path is made of and so
cannot be quicker than, between the same cores.
"""

from __future__ import annotations

import importlib.util
import shutil
from typing import NamedTuple

FLOOR, DIRECT, BROKERED = "floor", "direct", "brokered"
KINDS = (FLOOR, DIRECT, BROKERED)
WORD = 8  # bytes of payload of what carries a word
KERNEL = "kernel"


class Path(NamedTuple):
    """One way from a client to a server and back."""

    name: str
    kind: str
    floors: tuple[str, ...] = ()
    module: str = ""  # of launcher.bench.peers; empty: a system of ours
    program: str = ""  # that must be installed; its Debian package is called the same
    package: str = ""  # of Python; the module is called the same
    ends: int = 2  # 1: nobody is called
    same_core: bool = True  # False: it spins, and would wait for Linux to take the core away
    only_word: bool = False
    deep: bool = False  # it can have many calls under way
    spin_us: int | None = None  # of a channel
    trace: bool = True  # of a kernel

    @property
    def is_ours(self) -> bool:
        return not self.module

    @property
    def is_channel(self) -> bool:
        return self.spin_us is not None


def _brokered(name: str, floor: str, module: str, program: str = "", package: str = "") -> Path:
    return Path(name, BROKERED, (floor,), module, program, package)


PATHS = {
    path.name: path
    for path in (
        Path("timer", FLOOR, (), "words", ends=1, only_word=True),
        Path("cache_line", FLOOR, ("timer",), "words", same_core=False, only_word=True),
        Path("eventfd", FLOOR, ("timer", "cache_line"), "words", only_word=True),
        Path("pipe", FLOOR, ("timer", "cache_line"), "streams"),
        Path("unix_socket", FLOOR, ("timer", "cache_line"), "streams"),
        Path("zmq_pair", FLOOR, ("unix_socket",), "zeromq", deep=True),
        Path("ring_spin", DIRECT, ("timer", "cache_line"), "rings", same_core=False),
        Path("ring_block", DIRECT, ("timer", "cache_line"), "rings"),
        Path("channel_spin", DIRECT, ("timer", "cache_line"), same_core=False, deep=True,
             spin_us=1000),
        Path("channel_hybrid", DIRECT, ("timer", "cache_line"), deep=True, spin_us=20),
        Path("channel_block", DIRECT, ("timer", "cache_line"), deep=True, spin_us=0),
        Path("mp_pipe", DIRECT, ("unix_socket",), "streams"),
        Path("zmq_req_rep", DIRECT, ("zmq_pair",), "zeromq"),
        Path("grpc", DIRECT, ("unix_socket",), "grpc_unix", package="grpc"),
        Path(KERNEL, BROKERED, ("zmq_pair",), deep=True),
        Path("kernel_untraced", BROKERED, ("zmq_pair",), deep=True, trace=False),
        _brokered("zmq_proxy_c", "zmq_pair", "zeromq")._replace(deep=True),
        _brokered("bare_router", "zmq_pair", "zeromq")._replace(deep=True),
        _brokered("dbus_daemon", "unix_socket", "dbus", "dbus-daemon", "jeepney"),
        _brokered("redis", "unix_socket", "redis_lists", "redis-server", "redis"),
        _brokered("nats", "eventfd", "nats", "nats-server"),
    )
}  # fmt: skip


def absent(path: Path) -> str:
    """Why a path cannot be measured here and what installs it; empty when it can."""
    remedies = []
    if path.program and not shutil.which(path.program):
        remedies.append(f"apt-get install {path.program}")
    if path.package and not importlib.util.find_spec(path.package):
        remedies.append("pip install 'ukernel[bench]'")
    return f"not installed: {' and '.join(remedies)}" if remedies else ""
