"""reference: what needs no running system: check, schema, manual, demo, bench."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from launcher.client import Refused
from launcher.commands.common import JsonFile, finish, show_json, show_table

Config = Annotated[Path, typer.Argument(help="A system file (YAML).", show_default=False)]


def check(config: Config) -> None:
    """Say everything that is wrong with a system file; nothing is started."""
    from launcher.config import load

    manifest = load(config).manifest
    own = len(manifest.servers) - len(manifest.vms)
    counts = f"{own} servers, {len(manifest.hardware)} devices"
    if manifest.vms:
        counts += f", {len(manifest.vms)} virtual machines"
    print(f"{config}: system {manifest.system}: {counts}; nothing is wrong")


def schema() -> None:
    """The JSON Schema of a system file, for editors."""
    from ukernel.abi.manifest import schema as manifest_schema

    show_json(manifest_schema())


def manual(
    interface: Annotated[
        str, typer.Argument(help="A built-in name, kernel, control, or package.module:Class.")
    ] = "",
) -> None:
    """The manual page of an interface; without a name, the list of those that are built in."""
    from ukernel.abi.interface import manual as manual_page
    from ukernel.abi.manifest import BUILTIN_INTERFACES
    from ukernel.abi.registry import resolve_interface
    from ukernel.abi.syscalls import Control, Kernel

    sys.path.append("")  # a user's own interfaces are found where the user is
    of_kernel = {"kernel": Kernel, "control": Control}
    if not interface:
        print("\n".join([*BUILTIN_INTERFACES, *of_kernel]))
        return
    page = manual_page(of_kernel.get(interface) or resolve_interface(interface))
    if not sys.stdout.isatty():
        print(page)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(page))


def demo(
    json_file: JsonFile = None,
    seed: Annotated[int, typer.Option(help="Of the moments at which servers are killed.")] = 1,
) -> None:
    """Boot, copy real files, kill the disk driver again and again, lose nothing."""
    from launcher.demo import run_demo

    finish(run_demo(json_file, seed=seed))


bench = typer.Typer(help="Measure.", no_args_is_help=True, rich_markup_mode=None)


@bench.callback()
def _bench() -> None:
    """Measure."""


def _may_be_written(json_file: Path | None, plot: Path | None) -> None:
    """Said before minutes are spent."""
    from launcher.bench import pictures

    try:
        if json_file is not None:
            json_file.touch()
        if plot is not None:
            pictures.require_matplotlib()
            plot.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise Refused(f"--plot {plot}: it is a file; name a directory, new or old", 2) from None
    except OSError as error:
        text = f"{error.filename}: {error.strerror}; name one that can be written"
        raise Refused(text, 2) from None
    except pictures.NoMatplotlib as error:
        raise Refused(str(error), 2) from None


@bench.command("ipc")
def bench_ipc(
    json_file: JsonFile = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="DIR", help="Write pictures, SVG and PNG.")
    ] = None,
    matrix: Annotated[
        str, typer.Option(metavar="PAIRS", help="Of cores: one of each class, or the full map.")
    ] = "one",
    quick: Annotated[bool, typer.Option("--quick", help="The essentials, within 40 s.")] = False,
) -> None:
    """What a call costs, through the kernel and by channels, beside what others do."""
    if matrix not in ("one", "full"):
        raise Refused(f"--matrix {matrix}: it is one or full", 2)
    if quick and matrix == "full":
        raise Refused("--matrix full is not quick: leave one of them out", 2)

    from launcher.bench import ipc, pictures, plan
    from launcher.bench.result import INVALID
    from launcher.bench.table import print_table

    _may_be_written(json_file, plot)
    what = plan.quick() if quick else plan.full(every_pair=matrix == "full")
    result = ipc.measure(what, lambda line: print(line, file=sys.stderr, flush=True))
    if json_file is not None:
        result.write(json_file)
    print_table(result)
    for file in pictures.draw(result, plot) if plot is not None else ():
        print(file, file=sys.stderr)
    finish(1 if result.status == INVALID else 0)


@bench.command("recovery")
def bench_recovery(
    json_file: JsonFile = None,
    kills: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Of each server.", show_default="40")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="8 kills of each.")] = False,
) -> None:
    """How long a client waits when its server is killed, beside a restart loop and supervisord."""
    from launcher.bench.outages import notes, outage_table, stage_table
    from launcher.bench.recovery import KILLS, QUICK_KILLS, Plan, RunError, measure

    plan = Plan(kills or (QUICK_KILLS if quick else KILLS))
    try:
        result = measure(plan, lambda line: print(line, file=sys.stderr))
    except RunError as error:
        raise Refused(str(error), 1) from None
    if json_file is not None:
        result.write(json_file)
    show_table(*outage_table(result.results))
    print()
    show_table(*stage_table(result.results))
    for note in notes(result):
        print(note)


@bench.command("net")
def bench_net(
    json_file: JsonFile = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="DIR", help="Write a picture, SVG and PNG.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="16 MiB, and fewer rounds.")] = False,
) -> None:
    """How quick downloads and round trips are, beside Linux's stack and another in Python."""
    from launcher.bench.net import picture
    from launcher.bench.net.places import PlaceError
    from launcher.bench.net.plan import Plan
    from launcher.bench.net.plan import quick as quick_plan
    from launcher.bench.net.result import INVALID
    from launcher.bench.net.run import measure
    from launcher.bench.net.table import notes, table

    plan = quick_plan() if quick else Plan()
    _may_be_written(json_file, plot)
    try:
        result = measure(plan, lambda line: print(line, file=sys.stderr, flush=True))
    except PlaceError as error:
        raise Refused(str(error), 1) from None
    if json_file is not None:
        result.write(json_file)
    show_table(*table(result.results))
    for note in notes(result):
        print(note)
    for file in picture.draw(result, plot) if plot is not None else ():
        print(file, file=sys.stderr)
    finish(1 if result.status == INVALID else 0)


@bench.command("vm")
def bench_vm(
    json_file: JsonFile = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="DIR", help="Write a picture, SVG and PNG.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds, within 30 s.")] = False,
) -> None:
    """What a virtual machine costs: speed, boot, disk, snapshots, moves; beside QEMU."""
    from launcher.bench.vm import picture
    from launcher.bench.vm.plan import Plan
    from launcher.bench.vm.plan import quick as quick_plan
    from launcher.bench.vm.run import RunError, measure
    from launcher.bench.vm.table import exit_table, notes, stage_table, table

    plan = quick_plan() if quick else Plan()
    _may_be_written(json_file, plot)
    try:
        result = measure(plan, lambda line: print(line, file=sys.stderr, flush=True))
    except RunError as error:
        raise Refused(str(error), 1) from None
    if json_file is not None:
        result.write(json_file)
    for told in (table(result.results), stage_table(result.results), exit_table(result)):
        show_table(*told)
        print()
    for note in notes(result):
        print(note)
    for file in picture.draw(result, plot) if plot is not None else ():
        print(file, file=sys.stderr)
    finish(result.exit_code)
