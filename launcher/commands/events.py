"""events: `ukernel events`: what has happened in a running system."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Annotated, Any

import typer

from launcher.client import Client, Refused
from launcher.commands.common import SystemName
from launcher.commands.observe import LOOK_AGAIN_S, Follow

KINDS = (
    "ready", "serving", "died", "killed", "failed", "suspect", "poison", "denied", "fault", "lost",
    "log", "asked", "unscheduled",
)  # fmt: skip


def events(
    system: SystemName = "",
    follow: Follow = False,
    kinds: Annotated[
        list[str] | None,
        typer.Option("--kind", metavar="KIND", help=f"Only this one: {', '.join(KINDS)}."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """What has happened: deaths, new lives, kills, refusals, poison, requests; oldest first."""
    for kind in kinds or []:
        if kind not in KINDS:
            raise Refused(f"no kind {kind!r}; there are {', '.join(KINDS)}", 2)
    with Client(system) as client, suppress(KeyboardInterrupt):
        for event in _events(client, follow):
            if not kinds or "forgotten" in event or event["kind"] in kinds:
                print(json.dumps(event) if as_json else _line(event), flush=follow)


def _events(client: Client, follow: bool) -> Iterator[dict[str, Any]]:
    """Events, and `{"forgotten": count}` where the system no longer knows some."""
    start = 0
    while True:
        page = client.ask("events", start)
        if page and page[0]["number"] > start:
            yield {"forgotten": page[0]["number"] - start}
        yield from page
        if page:
            start = page[-1]["number"] + 1
        elif not follow or client.ended(LOOK_AGAIN_S):
            return


def _line(event: dict[str, Any]) -> str:
    if "forgotten" in event:
        return f"... {event['forgotten']} events are forgotten here"
    at, text = event["at"], TEXTS.get(event["kind"], str)(event["text"])
    clock = f"{time.strftime('%H:%M:%S', time.localtime(at))}.{int(at * 1000) % 1000:03}"
    return f"{clock} {event['who']} {event['kind']}{': ' if text else ''}{text}"


def _of_serving(text: str) -> str:
    hello_ns, _, reply_ns = map(int, text.split())
    return f"its first good reply, {(reply_ns - hello_ns) / 1e6:.1f} ms after its HELLO"


# What the kernel says for programs, for people: `ready` comes with a fingerprint.
TEXTS: dict[str, Callable[[str], str]] = {"serving": _of_serving, "ready": lambda _: ""}
