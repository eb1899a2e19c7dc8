"""blast: `ukernel blast`: who is down, who feels it and who must not, when a server dies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from launcher.commands.common import AsJson, show_json, show_table
from launcher.commands.reference import Config

if TYPE_CHECKING:
    from launcher.chaos.evidence import Blast
    from ukernel.abi.manifest import Manifest

TITLES = ["NAME", "EFFECT", "WHY"]

Name = Annotated[str, typer.Argument(help="Who dies: a server, or `machine`.")]


def blast(name: Name, config: Config, as_json: AsJson = False) -> None:
    """Who feels it when a server dies, and by which calls; read from the file, nothing is started.

    Servers with `start: demand` are counted as running. Of a server that holds objects of others,
    such as a partition, it is said which, and who has the same.
    """
    from launcher.chaos.blast import holdings, predict, reach, taken_along
    from launcher.config import load

    manifest = load(config).manifest
    also_down = taken_along(manifest, [name])
    effect = predict(manifest, [name], clients=_on_demand(manifest), also_down=also_down)
    running = [each for part in effect for each in part]
    paths = reach(manifest, running, effect.down)
    held = holdings(manifest, name)
    if as_json:
        show_json({"victim": name, **effect._asdict(), "paths": paths, "holds": held})
        return
    rows = _rows(manifest, name, effect, paths)
    show_table(TITLES, [*rows, *_held(name, held)])


def _on_demand(manifest: Manifest) -> list[str]:
    return [name for name, server in manifest.servers.items() if server.start == "demand"]


def _rows(
    manifest: Manifest, victim: str, effect: Blast, paths: dict[str, tuple[str, ...]]
) -> list[list[str]]:
    demand = _on_demand(manifest)
    rows = [[name, "down", _death(manifest, victim, name)] for name in effect.down]
    rows += [[name, "degraded", " -> ".join(paths[name])] for name in effect.degraded]
    rows += [[name, "untouched", f"cannot reach {victim}"] for name in effect.untouched]
    return [
        [name, how, f"{why}, when it runs" if name in demand else why] for name, how, why in rows
    ]


def _held(victim: str, held: dict[str, tuple[str, ...]]) -> list[list[str]]:
    """The objects of others among what a victim may call: whoever takes it over has them too."""
    objects = {what: others for what, others in held.items() if ":" in what}
    return [
        [what, "held", f"by {victim} and {', '.join(others) or 'nobody else'}"]
        for what, others in objects.items()
    ]


def _death(manifest: Manifest, victim: str, name: str) -> str:
    if name == victim:
        return "it dies"
    if victim in manifest.servers:
        return f"{victim} takes it along: strategy {manifest.servers[victim].restart.strategy}"
    return f"its device is gone: {', '.join(manifest.servers[name].devices)}"
