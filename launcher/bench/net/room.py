"""python -m launcher.bench.net.room LINE PARENT: two network namespaces of one's own, joined.

    near: the client   lo        the floor
                       veth      <- cable -> far: veth, Linux's own stack
                       tap7      to be opened by a process that is a TCP/IP stack
                                 (a name that PyTCP knows as that of a TAP interface)

They last as long as this process, which ends when nobody has the other end of LINE any more.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import sys
from typing import NamedTuple

from launcher import tap
from launcher.bench.net.netlink import add_veth

NEAR, FAR = "10.78.1.1", "10.78.1.2"  # the ends of the cable
HOST, STACK = "10.78.2.1", "10.78.2.2"  # Linux and the other stack, at the ends of the TAP
PREFIX, MTU = 24, 1500
VETH, TAP = "veth", "tap7"
TUNSETPERSIST = 0x400454CB  # linux/if_tun.h

_libc = ctypes.CDLL(None, use_errno=True)


class Room(NamedTuple):
    """Where the namespaces are: of process `pid`, under these descriptors of it."""

    pid: int
    near: int
    far: int

    def inside(self, namespace: int, argv: list[str]) -> list[str]:
        """The command line that runs `argv` in one of them, with nsenter(1)."""
        mine = f"/proc/{self.pid}"
        user, net = f"--user={mine}/ns/user", f"--net={mine}/fd/{namespace}"
        return ["nsenter", user, "--preserve-credentials", net, "--", *argv]


def made() -> Room:
    """Make both, and be in the near one. Raises OSError."""
    tap.enter_a_namespace()
    near = os.open("/proc/self/ns/net", os.O_RDONLY)
    _checked(_libc.unshare(tap.CLONE_NEWNET))
    far = os.open("/proc/self/ns/net", os.O_RDONLY)
    add_veth(VETH, VETH, near)
    _configure(VETH, FAR)
    _checked(_libc.setns(near, tap.CLONE_NEWNET))
    _configure("lo", "127.0.0.1")
    _configure(VETH, NEAR)
    _add_tap()
    return Room(os.getpid(), near, far)


def _checked(outcome: int) -> None:
    if outcome:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _add_tap() -> None:
    """One that stays when its opener goes. Who opens it next says whether it offloads."""
    fd = tap.opened(TAP)
    try:
        fcntl.ioctl(fd, TUNSETPERSIST, 1)
        _configure(TAP, HOST)
    finally:
        os.close(fd)


def _configure(interface: str, address: str) -> None:
    file = f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"
    with contextlib.suppress(OSError), open(file, "w") as setting:
        setting.write("1")  # nobody speaks it, and it would be heard on the line
    if interface == "lo":
        tap.configure(interface, f"{address}/8", 65536)
    else:
        tap.configure(interface, f"{address}/{PREFIX}", MTU)


def hold(line: socket.socket, parent: int) -> None:
    """Make them and say where they are, or why there are none; then stay."""
    try:
        room = made()
    except OSError as error:
        line.send(str(error).encode())
        return
    _libc.prctl(tap.PR_SET_PDEATHSIG, signal.SIGKILL)
    line.send(b"\0" + f"{room.pid} {room.near} {room.far}".encode())
    while os.getppid() == parent and line.recv(1):
        continue


if __name__ == "__main__":
    hold(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
