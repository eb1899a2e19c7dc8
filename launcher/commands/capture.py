"""capture: `ukernel capture`: what passes a network card of a running system, in a pcapng file.

The machine writes the file, and this command shows how it grows. The capture belongs to the
command's connection: however the command ends, so does the capture, and the file is whole.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from launcher.client import Answered, Client, Refused, value_of
from launcher.commands.common import SystemName

LOOK_AGAIN_S = 0.2
MACHINE = "machine"  # the task that simulates the hardware


class Counts(NamedTuple):
    frames: int
    octets: int

    @property
    def told(self) -> str:
        return f"{self.frames} frames, {self.octets} bytes"


def capture(
    device: Annotated[str, typer.Argument(help="A network card of the machine.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE.pcapng", help="Where to; what was there is gone.")
    ],
    system: SystemName = "",
    count: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="End when there are so many frames.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(metavar="S", min=0.0, help="End after so long.")
    ] = None,
) -> None:
    """Write what a network card sends and receives into a file for Wireshark, until Ctrl-C."""
    with Client(system) as client:
        begun_s = time.monotonic()
        _begin(client, device, str(file.absolute()))
        print(f"capturing {device} into {file}", flush=True)
        with _ctrl_c() as pressed:
            for counts in _growing(client, device, seconds):
                _show(counts)
                if pressed() or (count is not None and counts.frames >= count):
                    break
            done = value_of(client.ask("end"))
    _show(None)
    counts = Counts(done["frames"], done["octets"])
    print(f"{file}: {counts.told} in {time.monotonic() - begun_s:.1f} s")
    if done["lost"]:
        raise Refused(f"{file} could not take {done['lost']} more frames", 1)


@contextmanager
def _ctrl_c() -> Iterator[Callable[[], bool]]:
    """Whether it was pressed. It must not cut a request in two: one more is to follow."""
    times: list[int] = []
    before = signal.signal(signal.SIGINT, lambda signo, _: times.append(signo))
    try:
        yield lambda: bool(times)
    finally:
        signal.signal(signal.SIGINT, before)


def _begin(client: Client, device: str, path: str) -> None:
    try:
        value_of(client.ask("capture", device, path))
    except Answered as answered:
        raise Refused(str(answered), 2) from None


def _growing(client: Client, device: str, seconds: float | None) -> Iterator[Counts]:
    """What has passed since it began, or little less, again and again for so long.

    Raises Refused when the system has ended.
    """
    end_s = float("inf") if seconds is None else time.monotonic() + seconds
    before = _passed(client, device)
    while (left_s := end_s - time.monotonic()) > 0:
        if client.ended(min(LOOK_AGAIN_S, left_s)):
            raise Refused(f"system {client.name} has ended; the file is whole until then", 3)
        now = _passed(client, device)
        yield Counts(now.frames - before.frames, now.octets - before.octets)


def _passed(client: Client, device: str) -> Counts:
    """All that has passed a card since the system began."""
    cards = client.ask_server(MACHINE, "cards")
    card = next(each for each in cards if each["device"] == device)
    frames, octets = card["sent"] + card["received"], card["bytes_sent"] + card["bytes_received"]
    return Counts(frames, octets)


def _show(counts: Counts | None) -> None:
    """How it grows, in one line of a terminal; None: that line is over."""
    if sys.stdout.isatty():
        print(f"\r{counts.told if counts else ''}\x1b[K", end="", flush=True)
