"""rehearsal: the start of a task, played through in an embryo by nobody and for nobody.

A forked process shares its memory with the zygote, and pays for each page that it reads or writes
for the first time. So an embryo does once what every task does from its first breath to its first
reply, with a kernel that is only a script: when its time comes, these pages are its own. It touches
no others: what is its own must be given back when it dies, and somebody waits for that too.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
from typing import Any

import zmq
from zmq.backend import Socket

from launcher.spawn import Spawn, take_on
from ukernel.abi import wire
from ukernel.abi.recorder import SIZE
from ukernel.abi.services import Echo
from ukernel.abi.syscalls import Boot
from ukernel.lib import connection
from ukernel.lib.connection import Connection, TaskInfo, task_info
from ukernel.lib.server import Server

NAME = "rehearsal"
ADDRESS = f"inproc://{NAME}"
SECRET = bytes(wire.TOKEN_SIZE)


class Player(Server, Echo):
    """Serves one call."""

    def echo(self, data: bytes) -> bytes:
        return data


def rehearse(context: zmq.Context[Any]) -> None:
    """Take on a task, say HELLO, serve a call, be told to stop: by messages within `context`."""
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    page = os.memfd_create(NAME, os.MFD_CLOEXEC)
    os.ftruncate(page, SIZE)
    with control:
        control.send(wire.pack(Boot(ADDRESS, SECRET, NAME)))
        info = TaskInfo(NAME, 0, os.getppid()).dump()
        take_on(Spawn(__name__, [info], []), [theirs.detach(), page, *map(os.dup, (0, 1, 2))])
        for signo in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signo, signal.getsignal(signo))
        _play(context)
    del os.environ[connection.ENVIRONMENT]
    gc.freeze()


def _play(context: zmq.Context[Any]) -> None:
    kernel: Any = Socket(context, zmq.DEALER)
    kernel.bind(ADDRESS)
    connection.prepare(ADDRESS, context)
    for frame in _script():
        kernel.send(frame)
    line = Connection(task_info())
    Player(line).serve()
    line.socket.close()  # not `line.close()`: the context is needed for the life to come
    kernel.close()


def _script() -> list[bytes]:
    """All that this kernel says: a welcome, a call, and the notice to stop."""
    call = next(number for number, operation in Echo.ops.items() if operation.name == "echo")
    welcome = wire.pack([NAME, 1, {"self": SECRET}])
    return [
        wire.encode(wire.REPLY, body=welcome),
        wire.encode(wire.DELIVER, opcode=call, seq=1, body=wire.pack([b""])),
        wire.encode(wire.NOTICE, opcode=wire.NOTICE_STOP, body=wire.pack([])),
    ]
