"""Calls that wait: no client takes the place of all others."""

from __future__ import annotations

from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

from servers.net.calls import PARKED, Calls
from ukernel.abi.errors import Overload
from ukernel.lib.server import Server

WINDOW = 64
ROOM = WINDOW * PARKED // 100


class Call(SimpleNamespace):
    """A call under way."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def server() -> SimpleNamespace:
    """As much of a server as there is need for."""
    return SimpleNamespace(
        by_kernel=True,
        pending=lambda: Call(wanted=True, answer=lambda value: None),
        caller=SimpleNamespace(client=0),
        connection=SimpleNamespace(info=SimpleNamespace(window=WINDOW)),
    )


def parked(calls: Calls, net: SimpleNamespace, client: int) -> list[Any]:
    """All calls that this client can have waiting."""
    net.caller.client = client
    found: list[Any] = []
    with suppress(Overload):
        for _ in range(WINDOW):
            found.append(calls.park())
    return found


def test_who_wants_everything_leaves_room_for_the_next() -> None:
    net = server()
    calls = Calls(cast(Server, net), lambda: None)
    counts = [len(parked(calls, net, client)) for client in (1, 2, 3)]
    assert counts == [32, 11, 4]
    assert sum(counts) < ROOM


def test_what_is_answered_makes_room() -> None:
    net = server()
    calls = Calls(cast(Server, net), lambda: None)
    first = parked(calls, net, 1)
    for pending in first:
        calls.answer(pending, None)
    assert len(parked(calls, net, 2)) == len(first)
