"""wiretap: the frames of a network card, noted by the machine and read here while it runs.

A run may move gigabytes: what has been read is given back to the host, so the file stays small.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Sequence
from pathlib import Path

from launcher.board import MACHINE
from launcher.chaos import pcapng
from launcher.chaos.connections import Connections
from launcher.chaos.evidence import Connection
from launcher.system import System
from ukernel.abi.captures import Captures
from ukernel.abi.errors import Answer, CallError

EVERY_NS = 50_000_000  # between two looks
AT_ONCE = 4 << 20  # bytes of one read
GIVE_BACK = 64 << 20  # bytes that have been read
PUNCH_HOLE, KEEP_SIZE = 0x02, 0x01  # linux/falloc.h
TRIES = 5  # of a machine that is busy

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class WiretapError(Exception):
    """The frames cannot be noted; the text says why."""


class Wiretap:
    """A card's capture, from now on until `end`, in a file of its own."""

    def __init__(self, system: System, device: str, path: Path) -> None:
        """Raises WiretapError."""
        self.device = device
        self.lost = ""  # why not all was seen
        self._system = system
        self._seen = Connections(device)
        self._read = self._given_back = self._looked_ns = 0
        self._frames = 0
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._insist_on_start(str(path))
        except BaseException:
            os.close(self._fd)
            raise
        system.after_events.append(self.listen)

    def _insist_on_start(self, path: str) -> None:
        for _ in range(TRIES):
            try:
                return self._captures.start_capture(self.device, path)
            except CallError as error:
                why = str(error)
            except Answer as error:
                why = str(error)
                break
        raise WiretapError(f"the frames of {self.device} cannot be noted: {why}")

    @property
    def _captures(self) -> Captures:
        return self._system.reach(Captures, MACHINE)

    @property
    def connections(self) -> list[Connection]:
        return self._seen.found

    def listen(self) -> None:
        """Read what is new, now and then."""
        now_ns = time.monotonic_ns()
        if now_ns - self._looked_ns >= EVERY_NS:
            self._looked_ns = now_ns
            self._look()

    def _look(self) -> None:
        """Times become those of CLOCK_MONOTONIC, like all others of a run."""
        since_1970_ns = time.time_ns() - time.monotonic_ns()
        while not self.lost:
            data = os.pread(self._fd, AT_ONCE, self._read)
            try:
                frames, length = pcapng.frames(memoryview(data))
            except pcapng.Malformed as error:
                self.lost = f"the capture of {self.device} cannot be read: {error}"
                break
            for frame in frames:
                if frame.inbound:
                    self._seen.see(frame.octets, frame.at_ns - since_1970_ns)
            self._frames += len(frames)
            self._read += length
            if not length:
                break
        self._give_back()

    def _give_back(self) -> None:
        if self._read - self._given_back >= GIVE_BACK:
            length = self._read - self._given_back
            _libc.fallocate(self._fd, PUNCH_HOLE | KEEP_SIZE, self._given_back, length)
            self._given_back = self._read  # or the host's files cannot have holes: it stays

    def end(self) -> None:
        """No more is noted. All has been seen, or `lost` says why not."""
        try:
            whole = self._captures.stop_capture(self.device)
        except (Answer, CallError, ConnectionError) as error:
            self.lost = self.lost or f"the capture of {self.device} did not end: {error}"
            return
        self._look()
        if not self.lost and (whole.lost or whole.frames != self._frames):
            missing = whole.lost + whole.frames - self._frames
            self.lost = f"the capture of {self.device} lacks {missing} frames"

    def close(self) -> None:
        """The machine is going, or gone; what it has still noted is seen."""
        with contextlib.suppress(ValueError):
            self._system.after_events.remove(self.listen)
            self._look()
            os.close(self._fd)


class Wiretaps:
    """Those of all cards that are asked about, over all boots of a run."""

    def __init__(self, devices: Sequence[str], folder: Path) -> None:
        self.connections: list[Connection] = []  # that the host has opened
        self.unheard = ""  # why some of them are not known
        self._devices = devices
        self._folder = folder
        self._taps: list[Wiretap] = []
        self._boots = 0

    def begin(self, system: System) -> None:
        """Listen in this boot. Raises WiretapError."""
        self._boots += 1
        for device in self._devices:
            path = self._folder / f"{device}.{self._boots}.pcapng"
            self._taps.append(Wiretap(system, device, path))

    def end(self) -> None:
        """All that was to be heard has been."""
        for tap in self._taps:
            tap.end()
        self._close()

    def cut(self) -> None:
        """The system goes down, whether or not that is the end of what was to be heard."""
        if self._taps:
            self.unheard = "the system went down while frames were being noted"
        self._close()

    def _close(self) -> None:
        for tap in self._taps:
            tap.close()
            self.connections += tap.connections
            self.unheard = self.unheard or tap.lost
        self._taps.clear()
