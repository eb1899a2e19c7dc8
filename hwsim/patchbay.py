"""patchbay: which cable each network card is plugged into, and what stands between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from hwsim.capture import SOON_NS, Capture
from hwsim.impairment import impaired
from hwsim.pcapng import Writer
from hwsim.switch import Switch, Wire
from hwsim.tap import Tap, Watcher
from ukernel.abi.captures import Captured, CardRow
from ukernel.lib.virtio.cable import Cable
from ukernel.lib.virtio.net import Net

Action = Callable[[], None]


class PatchError(Exception):
    """A card cannot be what the system file says; the text names the card and why."""


class Patchbay:
    """The cables of one machine. `descriptors` are those of TAP interfaces, by device; `at` does
    something at a time of CLOCK_MONOTONIC, in nanoseconds."""

    def __init__(
        self, watcher: Watcher, descriptors: Mapping[str, int], at: Callable[[int, Action], None]
    ) -> None:
        self._watcher = watcher
        self._descriptors = descriptors
        self._at = at
        self._wires: dict[str, Wire] = {}
        self._switches: dict[str, Switch] = {}
        self._backends: dict[str, str] = {}
        self._captures: dict[str, tuple[Capture, str]] = {}  # and their files

    def plug(self, spec: Mapping[str, Any]) -> Cable:
        """The cable of the card with this entry of the system file."""
        self._backends[spec["name"]] = spec["backend"]
        cable: Cable
        match spec["backend"]:
            case "wire":
                cable = self._wires.setdefault(spec["wire"], Wire()).port()
            case "switch":
                cable = self._switches.setdefault(spec["switch"], Switch()).port()
            case _:
                cable = self._tap(spec["name"])
        return impaired(cable, spec["faults"], time.monotonic_ns, self._at)

    def _tap(self, device: str) -> Tap:
        if device not in self._descriptors:
            raise PatchError(f"{device}: nobody has opened its TAP interface")
        return Tap(self._descriptors[device], self._watcher)

    def row(self, card: Net) -> CardRow:
        """What has passed a card."""
        _, path = self._captures.get(card.name, (None, ""))
        return CardRow(
            card.name,
            self._backends[card.name],
            card.mac,
            card.mtu,
            card.sent,
            card.received,
            card.bytes_sent,
            card.bytes_received,
            card.drops(),
            path,
        )

    def capture_from_boot(self, card: Net, path: str) -> None:
        """As `start_capture`. Raises PatchError."""
        try:
            self.start_capture(card, path)
        except OSError as error:
            raise PatchError(
                f"{card.name}.capture: {path} cannot be written: {error.strerror}"
            ) from None

    def start_capture(self, card: Net, path: str) -> None:
        """Note its frames in this file. Raises OSError when that cannot be made."""
        writer = Writer(path, card.name, card.mac)
        self.stop_capture(card)
        capture = Capture(writer, lambda flush: self._at(time.monotonic_ns() + SOON_NS, flush))
        card.capture = capture
        self._captures[card.name] = capture, path

    def stop_capture(self, card: Net) -> Captured | None:
        """What is in the file; None when there was no capture."""
        if card.name not in self._captures:
            return None
        capture, path = self._captures.pop(card.name)
        card.capture = None
        capture.close()
        return Captured(path, capture.writer.frames, capture.writer.octets, capture.writer.lost)

    def close(self) -> None:
        """Leave whole files."""
        for capture, _ in self._captures.values():
            capture.close()
