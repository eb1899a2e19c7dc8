"""vm: `ukernel vm`: the virtual machines of a running system, asked of their monitors."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from launcher.client import Client, Refused
from launcher.commands.common import AsJson, SystemName, show_json, show_table, without_idle
from launcher.commands.vm_console import console
from launcher.commands.vm_top import top

SERVES = "vm"
LOOK_S = 1.0  # for a monitor that may be hung
QUARANTINED = "QUARANTINED"  # requests that its monitor died of twice, and gets no more
TITLES = [
    "NAME", "STATE", "ENGINE", "MEMORY K", "UP s", "RAN s", "FAULTS", "RESETS", "SNAPSHOTS",
    "LAST s", "PAUSE ms", "LIFE", QUARANTINED,
]  # fmt: skip

app = typer.Typer(help="Virtual machines.", no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(help="A virtual machine.")]


@app.callback()
def _vm() -> None:
    """Look at the virtual machines of a running system, and move them."""


def find_vm(info: dict[str, Any], name: str) -> str:
    """The monitor that is asked. Raises Refused, naming those that there are."""
    known = [each for each, what in info["serves"].items() if what == SERVES]
    if not known:
        raise Refused(
            f"system {info['system']} has no virtual machine: add one under `vms:` "
            f"({info['config']})",
            2,
        )
    if name not in known:
        have = ", ".join(known)
        raise Refused(f"system {info['system']} has no virtual machine {name!r}; it has {have}", 2)
    return name


# --- what there is -------------------------------------------------------------------------------


@app.command()
def ls(system: SystemName = "", as_json: AsJson = False) -> None:
    """The virtual machines: what they do, and what their guests have done."""
    with Client(system) as client:
        info = client.ask("info")
        slots = {row["name"]: row for row in client.ask("ps")}
        names = [name for name, what in info["serves"].items() if what == SERVES]
        kept = Counter(case["server"] for case in client.ask("quarantine"))
        rows = [{**look_at(client, slots[n]), "quarantined": kept[n]} for n in names]
    if as_json:
        show_json(rows)
        return
    show_table(*without_idle(TITLES, [_row(row) for row in rows], (QUARANTINED,)))


def look_at(client: Client, slot: dict[str, Any]) -> dict[str, Any]:
    """The status of a virtual machine; of a monitor that does not answer, the state of that."""
    found = {"name": slot["name"], "life": slot["life"]}
    try:
        return {**found, **client.ask_server(slot["name"], "status", patience_s=LOOK_S)}
    except Refused as refused:
        if refused.code == 3:  # the system has ended
            raise
        return {**found, "state": f"monitor {slot['state']}", "why": str(refused)}


def _row(row: dict[str, Any]) -> list[Any]:
    ends = [row["life"], row["quarantined"]]
    if "engine" not in row:
        return [row["name"], row["state"], *[None] * (len(TITLES) - 4), *ends]
    last_s = row["snapshot_age_ms"] / 1000 if row["snapshots"] else None
    return [
        row["name"], row["state"], row["engine"], row["memory"] >> 10, row["uptime_ms"] / 1000,
        row["run_us"] / 1e6, row["faults"], row["resets"], row["snapshots"], last_s,
        row["snapshot_pause_us"] / 1000, *ends,
    ]  # fmt: skip


# --- deeds ---------------------------------------------------------------------------------------


def _do(name: str, system: str, operation: str) -> None:
    with Client(system) as client:
        client.ask_server(find_vm(client.ask("info"), name), operation)


@app.command()
def pause(name: Name, system: SystemName = "") -> None:
    """Stop a virtual machine's processor and clock."""
    _do(name, system, "pause")


@app.command()
def resume(name: Name, system: SystemName = "") -> None:
    """Let a paused virtual machine go on."""
    _do(name, system, "resume")


@app.command()
def discard(name: Name, system: SystemName = "") -> None:
    """Forget a virtual machine: its monitor is empty then, and another may move there."""
    _do(name, system, "discard")


@contextmanager
def _copying(name: str, file: Path, system: str) -> Iterator[Client]:
    """The system with that virtual machine; what is wrong with the file is bad input."""
    from launcher.vmfile import BadFile

    with Client(system) as client:
        find_vm(client.ask("info"), name)
        try:
            yield client
        except BadFile as error:
            raise Refused(str(error), 2) from None
        except OSError as error:
            raise Refused(f"{file}: {error.strerror}", 2) from None


def _tell(as_json: bool, fields: dict[str, Any], text: str) -> None:
    if as_json:
        show_json(fields)
    else:
        print(text)


@app.command()
def snapshot(
    name: Name,
    file: Annotated[Path, typer.Argument(help="Where to; what was there is replaced.")],
    system: SystemName = "",
    as_json: AsJson = False,
) -> None:
    """Copy a virtual machine into a file, and let it go on."""
    from launcher import vmfile

    with _copying(name, file, system) as client, vmfile.writing(file) as out:
        told = client.ask("vm_save", name, fds=(out.fileno(),))
        about = vmfile.finish(out, vmfile.Written(name, told["engine"], told["memory"]))
    _tell(
        as_json,
        {**about._asdict(), "file": str(file), "pause_ms": told["pause_ms"]},
        f"{file}: {about.size} bytes; {name} stood still for {told['pause_ms']} ms",
    )


@app.command()
def restore(
    name: Name,
    file: Annotated[Path, typer.Argument(help="A file that `snapshot` has written.")],
    system: SystemName = "",
    as_json: AsJson = False,
) -> None:
    """Continue a copy in place of what the virtual machine does now, which is lost."""
    from launcher import vmfile

    with _copying(name, file, system) as client, file.open("rb", buffering=0) as copy:
        about = vmfile.check(copy, file)
        told = client.ask("vm_load", name, about.engine, about.memory, fds=(copy.fileno(),))
    _tell(
        as_json,
        {**about._asdict(), "file": str(file), "ms": told["ms"]},
        f"{name} goes on from {file}, after {told['ms']} ms",
    )


@app.command()
def migrate(
    name: Name,
    to: Annotated[str, typer.Argument(help="An empty monitor: `standby_for` in the file.")],
    system: SystemName = "",
    as_json: AsJson = False,
) -> None:
    """Move a virtual machine to another monitor; if that fails it goes on where it was."""
    with Client(system) as client:
        info = client.ask("info")
        source, target = find_vm(info, name), find_vm(info, to)
        if sys.stderr.isatty():
            print(f"moving {source} to {target}", file=sys.stderr)
        told = client.ask("vm_migrate", source, target)
    _tell(
        as_json,
        {"from": source, "to": target, **told},
        f"{target} runs what {source} was: {told['size']} bytes; pause {told['pause_ms']} ms",
    )


app.command()(console)
app.command()(top)
