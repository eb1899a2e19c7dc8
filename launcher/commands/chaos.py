"""chaos: experiments: check a file of one, list what it can name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from launcher.commands.chaos_run import run
from launcher.commands.common import AsJson, show_json, show_table

if TYPE_CHECKING:
    from launcher.chaos.catalogue import Described, Parameter

Experiment = Annotated[Path, typer.Argument(help="An experiment file (YAML).", show_default=False)]

app = typer.Typer(help="Experiments.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _chaos() -> None:
    """Break a running system on purpose, and check what it promises."""


app.command()(run)


@app.command()
def validate(experiment: Experiment) -> None:
    """Say everything that is wrong with an experiment file; nothing is started."""
    from launcher.chaos.experiment import load
    from launcher.chaos.plan import ends_s, legs, plan
    from launcher.words import count

    loaded = load(experiment)
    checked = loaded.experiment
    planned = plan(checked)
    what = f"{count(len(planned), 'fault')} in {ends_s(planned):g} s"
    if checked.sweep:
        stretches = legs(checked.sweep, checked.seed)
        what = f"{count(len(stretches), 'leg')} in {sum(leg.for_s for leg in stretches):g} s"
    clients, checkers = len(checked.workload), len(checked.checkers)
    counts = f"{count(clients, 'client')}, {what}, {count(checkers, 'checker')}"
    print(f"{experiment}: {checked.title}: {counts}; nothing is wrong")


@app.command("list")
def list_all(as_json: AsJson = False) -> None:
    """What an experiment file can name: actions, runs, probes and checkers, and their keys."""
    from launcher.chaos.catalogue import SECTIONS, common_parameters, described

    if as_json:
        show_json(
            {
                key: {
                    "common": [_as_json(each) for each in common_parameters(section)],
                    section.title: [_described(each) for each in described(section)],
                }
                for key, section in SECTIONS.items()
            }
        )
        return
    for key, section in SECTIONS.items():
        common = " ".join(map(str, common_parameters(section)))
        print(f"{key}: {section.title}{f'; all have {common}' if common else ''}")
        rows = [(e.name, " ".join(map(str, e.parameters)), e.meaning) for e in described(section)]
        show_table((section.title[:-1], "keys", "meaning"), rows)
        print()


def _described(each: Described) -> dict[str, Any]:
    parameters = [_as_json(parameter) for parameter in each.parameters]
    return {"name": each.name, "parameters": parameters, "meaning": each.meaning}


def _as_json(parameter: Parameter) -> dict[str, Any]:
    return parameter._asdict()
