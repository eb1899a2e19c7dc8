"""net_ping: `ukernel net ping`: ICMP echoes from a network stack of the system, as ping(8)."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from launcher.client import ASK_S, Answered, Client, Refused
from launcher.commands.common import SystemName, finish
from launcher.commands.stack import StackName, find_stack

ICMP_HEADER = 8
LARGEST = 65_535 - 20 - ICMP_HEADER  # what fits into one IPv4 packet
LONGEST_S = 60.0
RESOLVE_S = 30.0  # a name server may be asked more than once


@dataclass
class Echo:
    """What came of one echo. Without a time, why there was no reply."""

    number: int
    ns: int | None = None
    why: str = ""

    def line(self, address: str, size: int) -> str:
        if self.ns is None:
            return f"icmp_seq={self.number}: {self.why}"
        ms = f"time={self.ns / 1e6:.3f} ms"
        return f"{size + ICMP_HEADER} bytes from {address}: icmp_seq={self.number} {ms}"

    def document(self) -> dict[str, Any]:
        ms = None if self.ns is None else self.ns / 1e6
        return {"icmp_seq": self.number, "ms": ms, "why": self.why}


@dataclass
class Tally:
    """All echoes so far; `took_s` from the first until now."""

    host: str
    address: str
    echoes: list[Echo] = field(default_factory=list)
    took_s: float = 0.0

    @property
    def times_ms(self) -> list[float]:
        return [echo.ns / 1e6 for echo in self.echoes if echo.ns is not None]

    @property
    def status(self) -> int:
        """1 when nothing at all came back, as of ping(8)."""
        return 0 if self.times_ms else 1

    def document(self) -> dict[str, Any]:
        sent, received = len(self.echoes), len(self.times_ms)
        return {
            "host": self.host,
            "address": self.address,
            "sent": sent,
            "received": received,
            "loss_percent": 100 * (sent - received) / sent if sent else 0.0,
            "took_s": self.took_s,
            "rtt_ms": _spread(self.times_ms),
        }

    def lines(self) -> list[str]:
        d = self.document()
        counts = f"{d['sent']} packets transmitted, {d['received']} received"
        lost = f"{d['loss_percent']:.3g}% packet loss, time {1000 * self.took_s:.0f} ms"
        shown = ["", f"--- {self.host} ping statistics ---", f"{counts}, {lost}"]
        if spread := d["rtt_ms"]:
            figures = "/".join(f"{value:.3f}" for value in spread.values())
            shown.append(f"rtt {'/'.join(spread)} = {figures} ms")
        return shown


def _spread(times_ms: list[float]) -> dict[str, float] | None:
    """The figures of ping(8); None without any reply."""
    import statistics

    if not times_ms:
        return None
    mean, deviation = statistics.fmean(times_ms), statistics.pstdev(times_ms)
    return {"min": min(times_ms), "avg": mean, "max": max(times_ms), "mdev": deviation}


def ping(
    host: Annotated[str, typer.Argument(help="A host name, or a dotted IPv4 address.")],
    count: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Echoes; without, until Ctrl-C.")
    ] = None,
    size: Annotated[
        int, typer.Option(metavar="BYTES", min=0, max=LARGEST, help="Bytes in each.")
    ] = 56,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.001, max=LONGEST_S, help="For each reply.")
    ] = 2.0,
    every: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.0, help="From one echo to the next.")
    ] = 1.0,
    server: StackName = "",
    system: SystemName = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Send ICMP echoes and tell the replies, until Ctrl-C.

    Ends with 0 when a reply came, with 1 when there was none.
    """
    with Client(system) as client:
        stack = find_stack(client.ask("info"), server)
        tally = Tally(host, _address(client, stack, host))
        if not as_json:
            print(f"PING {host} ({tally.address}) {size} bytes of data", flush=True)
        begun_s = time.monotonic()
        try:
            for number in _paced(client, count, every):
                echo = _echo(client, stack, tally.address, number, size, timeout)
                tally.echoes.append(echo)
                line = json.dumps(echo.document()) if as_json else echo.line(tally.address, size)
                print(line, flush=True)
        except KeyboardInterrupt:
            pass
        finally:
            tally.took_s = time.monotonic() - begun_s
            _sum_up(tally, as_json)
    finish(tally.status)


def _address(client: Client, stack: str, host: str) -> str:
    try:
        addresses = client.ask_server(stack, "resolve", host, patience_s=RESOLVE_S)
    except Answered as answered:
        raise Refused(str(answered), 2) from None
    if not addresses:
        raise Refused(f"{host} has no IPv4 address", 2)
    return str(addresses[0])


def _paced(client: Client, count: int | None, every_s: float) -> Iterator[int]:
    """1, 2, ... as fast as that. Raises Refused when the system has ended meanwhile."""
    due_s = time.monotonic()
    for number in itertools.count(1) if count is None else range(1, count + 1):
        if client.ended(max(0.0, due_s - time.monotonic())):
            raise Refused(f"system {client.name} has ended", 3)
        due_s = max(due_s, time.monotonic() - every_s) + every_s
        yield number


def _echo(
    client: Client, stack: str, address: str, number: int, size: int, timeout_s: float
) -> Echo:
    """Send one, and wait for what becomes of it."""
    from ukernel.abi.network import TimedOut

    args, patience_s = (address, size, math.ceil(1000 * timeout_s)), timeout_s + ASK_S
    try:
        return Echo(number, client.ask_server(stack, "ping", *args, patience_s=patience_s))
    except Answered as answered:
        late = answered.name == TimedOut.__name__
        return Echo(number, why=f"no reply in {timeout_s:g} s" if late else str(answered))


def _sum_up(tally: Tally, as_json: bool) -> None:
    if as_json:
        print(json.dumps(tally.document()), flush=True)
    else:
        print("\n".join(tally.lines()), flush=True)
