"""observe: looking at a running system: ps, caps, kstat, logs. Nothing here changes it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from launcher.client import Client, Refused
from launcher.commands.common import AsJson, SystemName, show_json, show_table, without_idle
from ukernel.abi.syscalls import rights_text

LOOK_AGAIN_S = 0.2  # between two looks of `--follow`
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")]

# --- ps -----------------------------------------------------------------------------------------

PS_COLUMNS = [
    "name", "life", "state", "pid", "restarts", "cpu_percent", "rss_bytes", "calls", "replies",
    "channel_calls", "channel_served", "direct_calls", "errors", "faults", "queued",
]  # fmt: skip
PS_TITLES = [
    "NAME", "LIFE", "STATE", "PID", "RESTARTS", "CPU %", "RSS K", "CALLS", "REPLIES",
    "BY CHANNEL", "SERVED SO", "DIRECT", "ERRORS", "FAULTS", "QUEUE",
]  # fmt: skip
PAST = ("BY CHANNEL", "SERVED SO", "DIRECT")  # of systems in which calls pass the kernel by


def ps(system: SystemName = "", as_json: AsJson = False) -> None:
    """The tasks of a system, and its kernel."""
    with Client(system) as client:
        tasks, info = client.ask("ps"), client.ask("info")
    rows = [_kernel_row(info), *tasks]
    rows = [{**row, **_usage(row["pid"])} for row in rows]
    if as_json:
        show_json(rows)
        return
    for row in rows:
        if row["process"] == "stopped":
            row["state"] += ", suspended"
        row["rss_bytes"] = row["rss_bytes"] and row["rss_bytes"] // 1024
        row["pid"] = row["pid"] or None
    table = [[row.get(column) for column in PS_COLUMNS] for row in rows]
    show_table(*without_idle(PS_TITLES, table, PAST))


def _kernel_row(info: dict[str, Any]) -> dict[str, Any]:
    return {"name": "kernel", "life": 1, "state": "ready", "pid": info["kernel"], "restarts": 0}


def _usage(pid: int) -> dict[str, Any]:
    """What Linux says of a process; the CPU's share is over its whole life."""
    import psutil

    nothing = {"cpu_percent": None, "rss_bytes": None, "process": None}
    if not pid:
        return nothing
    try:
        process = psutil.Process(pid)
        used, age_s = process.cpu_times(), time.time() - process.create_time()
        share = 100 * (used.user + used.system) / max(age_s, 0.01)
        rss, status = process.memory_info().rss, process.status()
    except psutil.Error:
        return nothing
    return {"cpu_percent": round(share, 1), "rss_bytes": rss, "process": status}


# --- caps ---------------------------------------------------------------------------------------


def caps(
    name: Annotated[str, typer.Argument(help="Only what this server holds or is.")] = "",
    system: SystemName = "",
    as_json: AsJson = False,
) -> None:
    """Who holds which capability, and from which one it was derived."""
    with Client(system) as client:
        rows = client.ask("caps")
        known = client.ask("info")["tasks"]
    if name and name not in known:
        raise Refused(f"no task {name!r}; there are {', '.join(known)}", 2)
    chosen = _concerning(rows, name) if name else rows
    for row in chosen:
        row["rights"] = rights_text(row["rights"])
    if as_json:
        show_json(chosen)
    else:
        _show_tree(chosen)


def _concerning(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The capabilities that `name` holds, those to its own endpoint, and what they come from."""
    wanted: set[int] = set()
    for row in reversed(rows):  # children before their parents
        holder = row["holder"].partition("#")[0]
        its_own = row["kind"] == "endpoint" and row["object"] == name
        if holder == name or its_own or row["number"] in wanted:
            wanted |= {row["number"], row["parent"]}
    return [row for row in rows if row["number"] in wanted]


def _label(row: dict[str, Any]) -> str:
    what = f"{row['kind']} {row['object']}: {row['rights']}"
    badge = f", badge {row['badge']}" if row["badge"] else ""
    return f"{row['number']} {row['holder']} {what}{badge}"


def _show_tree(rows: list[dict[str, Any]]) -> None:
    if not sys.stdout.isatty():
        depths = {0: -1}
        for row in rows:
            depths[row["number"]] = depth = depths[row["parent"]] + 1
            print("  " * depth + _label(row))
        return
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    nodes = {0: Tree("capabilities", hide_root=True)}
    for row in rows:
        nodes[row["number"]] = nodes[row["parent"]].add(Text(_label(row)))
    Console().print(nodes[0])


# --- kstat --------------------------------------------------------------------------------------


def kstat(system: SystemName = "", as_json: AsJson = False) -> None:
    """What the kernel counts."""
    with Client(system) as client:
        counts = client.ask("kstat")
    if as_json:
        show_json(counts)
    else:
        show_table(["COUNTER", "VALUE"], list(counts.items()))


# --- logs ---------------------------------------------------------------------------------------


def logs(
    name: Annotated[str, typer.Argument(help="A server; or kernel, machine, launcher, zygote.")],
    follow: Follow = False,
    system: SystemName = "",
) -> None:
    """What a server has printed."""
    with Client(system) as client, suppress(KeyboardInterrupt):
        path = client.run_dir / "logs" / f"{name}.log"
        if "/" in name or not path.is_file():
            known = sorted(p.stem for p in path.parent.glob("*.log"))
            raise Refused(f"nothing has been logged by {name!r}; by {', '.join(known)}", 2)
        for piece in _pieces(path, client, follow):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()


def _pieces(path: Path, client: Client, follow: bool) -> Iterable[bytes]:
    with path.open("rb") as log:
        while True:
            if piece := log.read(1 << 16):
                yield piece
            elif not follow or client.ended(LOOK_AGAIN_S):
                return
