"""machine: memory, disk, cable and console of one guest, and the QEMU that runs it, while one does.

Disk and cable outlive a QEMU. The next one must not begin before what the last has begun at the
server of its disk is over, or an old write would come after a new one: `idle` says so.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from servers.vmm.qemu import commands, stream
from servers.vmm.qemu.brake import Brake
from servers.vmm.qemu.disk import GOODBYE, DiskWire
from servers.vmm.qemu.nic import NicWire
from servers.vmm.qemu.process import Plan, Process, Sockets, arguments, pairs
from servers.vmm.qemu.qmp import ENDED, Failed, Line, Work
from servers.vmm.settings import Settings
from ukernel.abi.network import Card, Ethernet
from ukernel.abi.services import Block
from ukernel.lib.memory import Region
from ukernel.lib.stub import by_kernel, connect, kernel
from ukernel.lib.upstream import Upstream

T = TypeVar("T")
EXPECTED = (stream.GONE, GOODBYE)  # ends of a wire
ZEROS = bytes(1 << 20)
NO_CARD = Card(bytes(6), 0, 0)


class Host(stream.Host, Protocol):
    """What a machine needs of its monitor."""

    @property
    def connection(self) -> Any: ...
    def say(self, text: str) -> None: ...
    def show(self, data: bytes) -> None: ...


class Machine:
    """`ended` gets what a QEMU has ended with: its status, and the reason that it gave."""

    def __init__(
        self, host: Host, settings: Settings, accel: str, ended: Callable[[int, str], None]
    ) -> None:
        self._host = host
        self._settings = settings
        self._accel = accel
        self._ended = ended
        self.ram = host.region("ram", settings.memory)
        self._ram_fd = _descriptor(host.connection, self.ram)
        self._blank = True  # its memory is all zeros
        self._block = connect(Block, settings.disk, timeout_s=None) if settings.disk else None
        self._sectors = self._block.capacity() if self._block is not None else 0
        self._ethernet = connect(Ethernet, settings.nic, timeout_s=None) if settings.nic else None
        self._card = self._ethernet.card() if self._ethernet is not None else NO_CARD
        self.disk: DiskWire | None = None
        self.nic: NicWire | None = None
        self._plugged = False
        self._process: Process | None = None
        self._used_ns = 0  # by those that have ended
        self._slices = 0

    # --- QEMU -----------------------------------------------------------------------------------

    @property
    def up(self) -> bool:
        return self._process is not None

    def start(self, state: bytes | None, done: Callable[[Failed | None], None]) -> None:
        """Have a QEMU that stands still: with these devices and the memory as it is, or as after
        power-on. Raises OSError."""
        if state is None and not self._blank:
            self._wipe()
        self._blank = False
        ours = self._spawn(goes_on=state is not None)
        self._line = Line(ours.control, self._over)
        self._host.watch(self._line.fd, self._line.take)
        self._console = stream.Stream(self._host, ours.console, self._shown, lambda why: None)
        if ours.disk is not None:
            self._join_disk(ours.disk)
        if ours.nic is not None:
            self._join_cable(ours.nic)
        self.do(lambda client: commands.begin(client, state), done)

    def _wipe(self) -> None:
        view = self.ram.view
        for at in range(0, len(view), len(ZEROS)):
            piece = view[at : at + len(ZEROS)]
            piece[:] = ZEROS[: len(piece)]

    def _spawn(self, *, goes_on: bool) -> Sockets:
        """Start one; our ends of what joins it to us."""
        name, mac = self._host.connection.slot, self._card.mac
        plan = Plan(self._settings, name, self._accel, mac, goes_on)
        ours, its = pairs(self._settings)
        keeps = [self._ram_fd, *(each.fileno() for each in its.all)]
        try:
            self._process = Process(arguments(plan, its, self._ram_fd), keeps)
        except OSError:
            ours.close()
            raise
        finally:
            its.close()
        self._brake = Brake(self._process, self._settings.share, time.monotonic_ns())
        return ours

    def do(self, work: Work[T], done: Callable[[T | Failed], None]) -> None:
        """Ask something of it (see qmp.py)."""
        if self.up:
            self._line.do(work, done)
        else:
            done(Failed(ENDED))

    def close(self) -> int:
        """End it, if it has not ended; with what it did. What was asked of it has Failed then."""
        process, self._process = self._process, None
        if process is None:
            return 0
        self._used_ns += process.cpu_ns
        self._slices += self._brake.slices
        status = process.end()
        self._console.finish()
        for wire in (self.disk, self.nic, self._console):
            if wire is not None:
                wire.close()
        self._host.unwatch(self._line.fd)
        self._line.close()
        return status

    def _over(self, reason: str) -> None:
        self._ended(self.close(), reason)

    @property
    def idle(self) -> bool:
        """Another QEMU may be started."""
        return not self.up and all(wire.idle for wire in (self.disk, self.nic) if wire is not None)

    @property
    def cpu_ns(self) -> int:
        return self._used_ns + (self._process.cpu_ns if self._process is not None else 0)

    @property
    def slices(self) -> int:
        return self._slices + (self._brake.slices if self.up else 0)

    def hold(self, now_ns: int) -> int:
        """Keep it to its share; when to do so again, 0: when something has come."""
        return self._brake.look(now_ns, free=self._line.busy > 0) if self.up else 0

    # --- console --------------------------------------------------------------------------------

    def feed(self, data: bytes) -> int:
        """Somebody types: how many bytes were taken."""
        if not self.up or self._console.closed or self._console.waiting:
            return 0
        self._console.send(bytes(data))
        return len(data)

    def _shown(self, data: memoryview) -> None:
        self._host.show(bytes(data))

    # --- disk and cable -------------------------------------------------------------------------

    def plug(self, plugged: bool) -> None:
        """Whether frames for it are to come here."""
        self._plugged = plugged
        if self.nic is not None:
            self.nic.plug(plugged)

    def upstreams(self) -> list[Upstream]:
        """The servers behind its devices."""
        return [wire.upstream for wire in (self.disk, self.nic) if wire is not None]

    def _join_disk(self, ours: socket.socket) -> None:
        if self.disk is not None:
            self.disk.open(ours)
        elif self._block is not None:
            block, asked = self._block, by_kernel(self._block)
            closed = self._closed("disk")
            self.disk = DiskWire(self._host, ours, "disk", block, asked, self._sectors, closed)

    def _join_cable(self, ours: socket.socket) -> None:
        if self.nic is not None:
            self.nic.open(ours)
        elif self._ethernet is not None:
            ethernet, asked = self._ethernet, by_kernel(self._ethernet)
            closed, plugged = self._closed("nic"), self._plugged
            self.nic = NicWire(
                self._host, ours, "nic", ethernet, asked, self._card, closed, plugged
            )

    def _closed(self, name: str) -> Callable[[str], None]:
        def closed(why: str) -> None:
            if why not in EXPECTED:
                self._host.say(f"{name}: {why}")

        return closed


def _descriptor(connection: Any, region: Region) -> int:
    """Of this memory, so that another process can map it."""
    (fd,) = connection.descriptors(kernel(connection, region.token).map())
    os.set_inheritable(fd, False)
    return int(fd)
