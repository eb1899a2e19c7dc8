"""net: `ukernel net`: what a network stack of a running system has, asked of the stack itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from launcher.client import Client
from launcher.commands.common import AsJson, SystemName, show_json, show_table
from launcher.commands.net_ping import ping
from launcher.commands.net_run import run
from launcher.commands.stack import StackName, find_stack

PASS_THROUGH = {"ignore_unknown_options": True, "allow_interspersed_args": False}
INTERFACES = [
    "NAME", "STATE", "ADDRESS", "GATEWAY", "MAC", "MTU", "FRAMES IN", "FRAMES OUT", "BYTES IN",
    "BYTES OUT", "DROPPED", "DRIVER LIVES",
]  # fmt: skip
SOCKETS = [
    "KIND", "STATE", "LOCAL", "PEER", "RECV-Q", "SEND-Q", "RESENT", "SRTT us", "WINDOW", "LIVES",
]  # fmt: skip
NEIGHBOURS = ["ADDRESS", "MAC", "AGE s"]

app = typer.Typer(help="The network.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _net() -> None:
    """Look at the network of a running system, and reach it."""


@app.command()
def ifconfig(server: StackName = "", system: SystemName = "", as_json: AsJson = False) -> None:
    """The interfaces of a network stack, their addresses, and what has passed them."""
    with Client(system) as client:
        stack = find_stack(client.ask("info"), server)
        rows = [_with_mac(row) for row in client.ask_server(stack, "interfaces")]
    if as_json:
        show_json(rows)
        return
    show_table(INTERFACES, [_interface(row) for row in rows])


def _interface(row: dict[str, Any]) -> list[Any]:
    return [
        row["name"], "up" if row["up"] else "down", f"{row['address']}/{row['prefix']}",
        row["gateway"] or None, row["mac"], row["mtu"], row["frames_in"], row["frames_out"],
        row["bytes_in"], row["bytes_out"], row["dropped"], row["driver_lives"],
    ]  # fmt: skip


@app.command()
def sockets(server: StackName = "", system: SystemName = "", as_json: AsJson = False) -> None:
    """The sockets of a network stack: their ends, states, queues in bytes, and lives survived."""
    with Client(system) as client:
        rows = list(_sockets(client, find_stack(client.ask("info"), server)))
    if as_json:
        show_json(rows)
        return
    show_table(SOCKETS, [_socket(row) for row in rows])


def _sockets(client: Client, stack: str) -> Iterator[dict[str, Any]]:
    """All of them, page by page."""
    start = 0
    while page := client.ask_server(stack, "sockets", start):
        yield from page
        start += len(page)


def _socket(row: dict[str, Any]) -> list[Any]:
    return [
        row["kind"], row["state"], _end(row["local"]), _end(row["peer"]), row["receive_queue"],
        row["send_queue"], row["retransmits"], row["srtt_us"], row["window"], row["lives"],
    ]  # fmt: skip


def _end(address: dict[str, Any]) -> str:
    """`*` for what can be any."""
    host, port = address["host"], address["port"]
    return f"{'*' if host == '0.0.0.0' else host}:{port or '*'}"


@app.command()
def arp(server: StackName = "", system: SystemName = "", as_json: AsJson = False) -> None:
    """The neighbours that a network stack knows, by IPv4 address."""
    with Client(system) as client:
        stack = find_stack(client.ask("info"), server)
        rows = [_with_mac(row) for row in client.ask_server(stack, "neighbours")]
    if as_json:
        show_json(rows)
        return
    show_table(
        NEIGHBOURS, [[r["address"], r["mac"] or "(asked for)", r["age_ms"] / 1000] for r in rows]
    )


def _with_mac(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its MAC address as people write it; empty when there is none."""
    return {**row, "mac": bytes.fromhex(row["mac"]).hex(":")}


app.command()(ping)
app.command(context_settings=PASS_THROUGH)(run)
