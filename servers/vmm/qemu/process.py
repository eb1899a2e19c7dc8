"""process: one QEMU: how it is started, and that it ends with the monitor.

All that joins it to the monitor is inherited: memory and the ends of socket pairs. Nothing has a
path, so nothing is left of it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from servers.vmm.qemu.accel import TCG
from servers.vmm.settings import Settings

PROGRAM = "qemu-system-x86_64"
REMEDY = f"{PROGRAM} is not here: apt-get install qemu-system-x86"
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")  # of util-linux; becomes the program
TRANSLATED_MIB = 32  # of memory for code that TCG has made
CPU_CLOCK = 2  # clock_getcpuclockid(3): of all threads of a process
# `panic=-1`: it is reset at once; `reboot=t`: by the shortest way, which ends QEMU as any does.
# `init_on_free=1`: pages that are free are zeros, which an image leaves out.
APPEND = "console=ttyS0 quiet panic=-1 reboot=t tsc=unstable mitigations=off init_on_free=1"
DENIED = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


class Sockets(NamedTuple):
    """One end of each pair: the monitor's or QEMU's."""

    control: socket.socket
    console: socket.socket
    disk: socket.socket | None
    nic: socket.socket | None

    @property
    def all(self) -> list[socket.socket]:
        return [each for each in self if each is not None]

    def close(self) -> None:
        for each in self.all:
            each.close()


def pairs(settings: Settings) -> tuple[Sockets, Sockets]:
    """Ours, and QEMU's."""
    control, console = socket.socketpair(), socket.socketpair()
    disk = socket.socketpair() if settings.disk else (None, None)
    nic = socket.socketpair() if settings.nic else (None, None)
    ours, its = zip(control, console, disk, nic, strict=True)
    return Sockets(*ours), Sockets(*its)


class Plan(NamedTuple):
    """What a QEMU is to be."""

    settings: Settings
    name: str
    accel: str
    mac: bytes  # of its card
    goes_on: bool  # it gets a state, and is not as after power-on


def arguments(plan: Plan, ends: Sockets, memory: int) -> list[str]:
    """The command line of one that stands still at first; its memory is the descriptor `memory`."""
    settings = plan.settings
    size = settings.memory
    found = [
        PROGRAM, "-name", plan.name, "-accel", _accel(plan.accel), "-nodefaults", "-no-user-config",
        "-display", "none", "-no-reboot", "-S", "-sandbox", DENIED, "-rtc", "base=utc,clock=vm",
        "-M", "q35,usb=off,vmport=off,hpet=off,memory-backend=ram", "-m", f"{size >> 10}K",
        "-object", f"memory-backend-file,id=ram,share=on,mem-path=/proc/self/fd/{memory},"
                   f"size={size}",
        "-chardev", f"socket,id=control,fd={ends.control.fileno()}",
        "-mon", "chardev=control,mode=control",
        "-chardev", f"socket,id=console,fd={ends.console.fileno()}", "-serial", "chardev:console",
        "-device", "virtio-rng-pci",
        "-kernel", settings.image, "-append", _command_line(plan),
    ]  # fmt: skip
    if plan.goes_on:
        found += ["-incoming", "defer"]
    if initrd := _initrd(settings):
        found += ["-initrd", initrd]
    if ends.disk is not None:
        found += ["-blockdev", f"driver=nbd,node-name=disk,export=disk,server.type=fd,"
                               f"server.str={ends.disk.fileno()}",
                  "-device", "virtio-blk-pci,drive=disk"]  # fmt: skip
    if ends.nic is not None:
        found += ["-netdev", f"stream,id=net,server=off,addr.type=fd,addr.str={ends.nic.fileno()}",
                  "-device", f"virtio-net-pci,netdev=net,romfile=,mac={plan.mac.hex(':')}"
                  ]  # fmt: skip
    return found


def _accel(name: str) -> str:
    return f"{name},tb-size={TRANSLATED_MIB}" if name == TCG else name


def _command_line(plan: Plan) -> str:
    ip = plan.settings.ip
    said = [APPEND, f"ukernel.name={plan.name}", f"ukernel.ip={ip}" if ip else ""]
    return " ".join(word for word in (*said, plan.settings.append) if word)


def _initrd(settings: Settings) -> str:
    beside = Path(settings.image).with_name("initrd")
    return settings.initrd or (str(beside) if beside.is_file() else "")


class Process:
    """A QEMU. It dies with this process, whatever kills that."""

    def __init__(self, command: Sequence[str], keeps: Sequence[int]) -> None:
        """`keeps` are descriptors that it inherits. Raises OSError."""
        self._process = subprocess.Popen(
            [*DIES_WITH_US, *command], pass_fds=keeps, stdin=subprocess.DEVNULL
        )
        self._clock = ~self._process.pid << 3 | CPU_CLOCK

    @property
    def cpu_ns(self) -> int:
        """What it has used of any processor."""
        try:
            return time.clock_gettime_ns(self._clock)
        except OSError:  # it has ended
            return 0

    def halt(self) -> None:
        """Give it no processor until `go`."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def go(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def end(self) -> int:
        """Kill it, if it has not ended by itself; with what it did."""
        self._process.kill()
        return self._process.wait()
