"""quarantine: `ukernel quarantine`: requests that lives died of, and what to do about them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from launcher.client import Client, Refused
from launcher.commands.common import AsJson, SystemName, finish, show_json, show_table
from launcher.commands.interfaces import decoder

if TYPE_CHECKING:
    from launcher.tracing import Decoded, Decoder

TITLES = ["NUMBER", "SERVER", "REQUEST", "BYTES", "DEATHS", "LAST"]
STATUS = {"answered": 0, "died": 1, "refused": 1, "unknown": 3}  # exit status by outcome


def quarantine(
    system: SystemName = "",
    replay: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Send this request to its server again.")
    ] = None,
    release: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Let this request be sent again.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The requests of which two lives of a server died; nobody gets them any more.

    One more death brings a request that was replayed or released back. `--replay` ends with 0 when
    it was answered, 1 when it was not or another life died of it, 3 when that is not known.
    """
    if replay is not None and release is not None:
        raise Refused("--replay releases too: give one of the two", 2)
    with Client(system) as client:
        info, rows = client.ask("info"), client.ask("quarantine")
        if release is not None:
            _release(client, release, as_json)
        elif replay is not None:
            _replay(client, info, rows, replay, as_json)
        else:
            _list(info, rows, as_json)


def _release(client: Client, number: int, as_json: bool) -> None:
    answer = client.ask("release", number)
    if as_json:
        show_json(answer)
    else:
        print(f"request {number} may reach {answer['server']} again; one more death brings it back")


def _list(info: dict[str, Any], rows: list[dict[str, Any]], as_json: bool) -> None:
    known = decoder(info)
    rows = [{**row, "call": _decoded(known, row).call} for row in rows]
    if as_json:
        show_json(rows)
        return
    cells = [
        [r["number"], r["server"], r["call"], r["length"], r["deaths"], _clock(r["seen"])]
        for r in rows
    ]
    show_table(TITLES, cells)


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _replay(
    client: Client, info: dict[str, Any], rows: list[dict[str, Any]], number: int, as_json: bool
) -> None:
    verdict = client.ask("replay", number)
    row = next(row for row in rows if row["number"] == number)
    told = _decoded(decoder(info), row, verdict)
    if as_json:
        show_json({**verdict, "server": row["server"], "call": told.call, "result": told.outcome})
    else:
        why = f": {verdict['why']}" if verdict["why"] else ""
        print(f"{row['server']} {told.call} = {told.outcome}, {verdict['outcome']}{why}")
    finish(STATUS[verdict["outcome"]])


def _decoded(known: Decoder, row: dict[str, Any], verdict: dict[str, Any] | None = None) -> Decoded:
    """A request, and what became of it if anything did, as a trace shows a call."""
    from ukernel.abi.syscalls import TraceRow

    status, body = (verdict["status"], verdict["body"]) if verdict else (0, "")
    sent, got = bytes.fromhex(row["body"]), bytes.fromhex(body)
    call = TraceRow(
        row["number"], "", row["server"], 0, row["opcode"], row["badge"], status, row["length"],
        len(got), 0, 0, 0, sent, got,
    )  # fmt: skip
    return known.decode(call)
