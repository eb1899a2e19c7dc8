"""tap: a cable into the host: frames go between its TAP interface and the driver's memory, and no
copy of ours is made.

The launcher has opened the interface and made it up; the descriptor came with this process. Frames
for which the driver has no buffer wait in the host's queue of the interface, unseen by us.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable
from typing import Protocol

from hwsim.inbox import NUMBER, ONE, Inbox
from ukernel.abi.virtio import NET_F_GUEST_CSUM, NET_F_GUEST_TSO4, NET_HEADER_BYTES, NET_MOST_BYTES
from ukernel.lib.virtio.cable import NONE, nothing
from ukernel.lib.virtio.offload import suits
from ukernel.lib.virtio.queue import Views, scatter

TUNSETOFFLOAD = 0x400454D0  # linux/if_tun.h
TUNSETVNETHDRSZ = 0x400454D8
TUN_F_CSUM = 1
TUN_F_TSO4 = 2


class Watcher(Protocol):
    """Whoever waits for descriptors: `ukernel.lib.server.Server`."""

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Call `ready` whenever `fd` is readable."""

    def unwatch(self, fd: int) -> None:
        """Stop that."""


class Tap:
    """A TAP interface by its descriptor, which does not block: a cable."""

    def __init__(self, fd: int, watcher: Watcher) -> None:
        self.arrived: Callable[[], None] = nothing
        self._fd = fd
        self._watcher = watcher
        self._watched = False
        self._gone = False  # somebody has deleted the interface
        self._dropped = 0
        self._early = Inbox()  # read, and not as its driver wants it
        self._spill = memoryview(bytearray(1))  # is reached by a frame that is too long
        fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", NET_HEADER_BYTES))
        self.accept(0)

    def accept(self, features: int) -> None:
        """What the host may give us: nothing else is in its queue from now on."""
        self._early.accepted = features
        wanted = TUN_F_CSUM if features & NET_F_GUEST_CSUM else 0
        wanted |= TUN_F_TSO4 if wanted and features & NET_F_GUEST_TSO4 else 0
        try:
            fcntl.ioctl(self._fd, TUNSETOFFLOAD, wanted)
        except OSError:
            self._gone = True

    def listen(self, wanted: bool) -> None:
        wanted = wanted and not self._gone
        if wanted != self._watched:
            self._watched = wanted
            if wanted:
                self._watcher.watch(self._fd, self._readable)
            else:
                self._watcher.unwatch(self._fd)

    def send(self, header: bytes, parts: Views) -> None:
        try:
            os.writev(self._fd, [header, *parts])
        except OSError:  # the link is down, or the host does not like the frame
            self._dropped += 1

    def flush(self) -> None:
        """The host has been told of each."""

    def receive(self, into: Views) -> int:
        if self._early:
            return self._early.take(into)
        first = into[0]
        if len(first) < NET_HEADER_BYTES:
            return self._by_copy(into)
        room = sum(map(len, into))
        while (length := self._read([*into, self._spill])) > room:
            self._dropped += 1
        if length != NONE:
            first[NUMBER:NET_HEADER_BYTES] = ONE
            if (first[0] or first[1]) and not suits(first[0], first[1], self._early.accepted):
                return self._otherwise(into, length)
        return length

    def drops(self) -> int:
        return self._dropped + self._early.dropped

    def _readable(self) -> None:
        self.arrived()

    def _read(self, into: Views) -> int:
        try:
            return os.readv(self._fd, into)
        except BlockingIOError:
            return NONE
        except OSError:
            self._gone = True
            self.listen(False)
            return NONE

    def _by_copy(self, into: Views) -> int:
        """For a driver that parts a header."""
        whole = memoryview(bytearray(NET_HEADER_BYTES + NET_MOST_BYTES))
        length = self.receive([whole])
        if length > sum(map(len, into)):
            self._dropped += 1
            return self.receive(into)
        return length if length == NONE else scatter(whole[:length], into)

    def _otherwise(self, into: Views, length: int) -> int:
        """A frame of before the driver said what it takes."""
        frame = b"".join(into)[:length]
        self._early.put_real(frame[:NET_HEADER_BYTES], frame[NET_HEADER_BYTES:])
        return self.receive(into)
