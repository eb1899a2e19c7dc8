"""captures: what a network card sends and receives, in a file, for as long as somebody wants it.

The machine writes it. A card is captured by one at a time; the claim is laid and given up here.
"""

from __future__ import annotations

from typing import Any

from launcher.asks import Ask, called
from launcher.board import MACHINE
from launcher.system import System
from ukernel.abi.captures import Captures
from ukernel.abi.errors import CallError
from ukernel.abi.manifest import VirtioNet

PATIENCE_S = 5.0  # with the machine


def obstacle(system: System, device: str) -> str:
    """Why a card cannot be captured now; empty when it can."""
    hardware = system.file.manifest.hardware
    cards = [name for name, each in hardware.items() if isinstance(each, VirtioNet)]
    if device not in cards:
        what = "is no network card" if device in hardware else "is no device"
        return f"{device} {what} of system {system.name}; its cards: {', '.join(cards) or 'none'}"
    if file := system.file.capture_path(device):
        return f"{device} is being captured from boot, in {file}"
    if device in system.captured:
        return f"{device} is being captured already, by somebody else"
    return ""


class Capturing:
    """A capture of a card, from the moment that it is asked for."""

    def __init__(self, system: System, device: str, path: str) -> None:
        """There must be no `obstacle`. `path` is absolute."""
        self._system, self._device = system, device
        self._start = self._ask("start_capture", device, path)
        system.captured.add(device)

    def _ask(self, operation: str, *args: str) -> Ask:
        what = called(MACHINE, Captures, operation)
        return Ask(self._system, what, list(args), PATIENCE_S)

    def begun(self) -> Any:
        """As `Ask.outcome`, of its beginning."""
        try:
            told = self._start.outcome()
        except CallError:
            self.end().abandon()
            raise
        if told and "answer" in told:
            self._system.captured.discard(self._device)
        return told

    def end(self) -> Ask:
        """End it: the machine does one thing after the other, so also one that only begins."""
        self._system.captured.discard(self._device)
        return self._ask("stop_capture", self._device)

    def abandon(self) -> None:
        """Nobody waits for its beginning any more."""
        self._start.abandon()
        self.end().abandon()
