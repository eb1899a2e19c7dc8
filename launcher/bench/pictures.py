"""pictures: a result drawn: its tails, its map of the cores, what size and idleness cost.

Drawn by matplotlib, which only the extra `report` installs and only `draw` imports. A class of
paths has a panel of its own wherever several are shown: they are not rivals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path as File
from typing import Any

from launcher.bench.hops import KERNEL_HOPS, Hops
from launcher.bench.job import CLOSED, GAP
from launcher.bench.paths import KINDS, PATHS, WORD
from launcher.bench.plan import MAP, SIZE
from launcher.bench.result import Result, Row

FORMATS = ("svg", "png")
SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ukernel",  # the same picture has the same bytes
    "font.size": 9,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e6ea",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
}
PLACES = 2  # of a number on the map
NINES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999)


class NoMatplotlib(Exception):
    """Pictures cannot be drawn here."""


def require_matplotlib() -> None:
    """Better before a run of minutes than after it."""
    if find_spec("matplotlib") is None:
        raise NoMatplotlib("pictures need matplotlib: run `pip install 'ukernel[report]'`")


def draw(result: Result, folder: File) -> list[File]:
    """Write every picture that there are figures for, as SVG and PNG; the files."""
    import matplotlib as mpl  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    written: list[File] = []
    with mpl.rc_context(SETTINGS):
        for name, figure in _figures(result):
            written += save(figure, folder, name)
    return written


def save(figure: Any, folder: File, name: str) -> list[File]:
    """Write a matplotlib figure in each of the FORMATS, without the date, so that it is the same
    each time; the files."""
    files = [folder / f"{name}.{suffix}" for suffix in FORMATS]
    for file, suffix in zip(files, FORMATS, strict=True):
        meta = {"Date": None} if suffix == "svg" else None
        figure.savefig(file, format=suffix, dpi=150, metadata=meta)
    return files


def _figures(result: Result) -> Iterable[tuple[str, Any]]:
    """Every picture there is; those of one pair of cores, for a pair of each class."""
    rows = [row for row in result.results if row.n]
    places: dict[str, str] = {}
    for row in rows:
        places.setdefault(row.distance, _place(row))
    for name, of_place in PICTURES.items():
        for distance, place in places.items():
            figure = of_place([row for row in rows if _place(row) == place], place)
            if figure is not None:
                yield f"{name}-{_slug(distance)}", figure
    for name, of_all in MAPS.items():
        figure = of_all(rows)
        if figure is not None:
            yield name, figure
    if result.hops:
        yield "hops", hops(result.hops)


def _place(row: Row) -> str:
    return f"{row.distance}, {row.cores['client']} to {row.cores['server']}"


def _slug(place: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in place).lower().split())


# --- of one placement ---------------------------------------------------------------------------


def percentiles(rows: list[Row], place: str) -> Any:
    """The whole distribution: how many round trips took longer than that."""
    usual = [row for row in rows if row.mode == CLOSED and row.size in (WORD, SIZE)]
    closed = [row for row in usual if PATHS[row.peer].ends > 1]

    def plot(axes: Any, row: Row) -> None:
        points = [(1 / (1 - at), value / 1e3) for at, value in row.curve if at < 1]
        axes.plot(*zip(*points, strict=True), label=_named(row))

    figure, panels = _panels(closed, plot, f"Round trip of {SIZE} B, {place}")
    for axes in panels:
        axes.set_xscale("log")
        axes.set_xticks([1 / (1 - at) for at in NINES], [f"{at * 100:g}" for at in NINES])
        axes.minorticks_off()
        axes.set_xlabel("percentile")
    return figure


def sizes(rows: list[Row], place: str) -> Any:
    """What more bytes cost."""
    closed = [row for row in rows if row.mode == CLOSED]
    if len({row.size for row in closed}) < 3:
        return None
    return _lines(closed, lambda row: row.size, "bytes", f"p50 by size, {place}")


def gaps(rows: list[Row], place: str) -> Any:
    """What a pause before the call costs: everybody has gone to sleep."""
    idle = [r for r in rows if r.mode == GAP or (r.mode == CLOSED and r.size == SIZE)]
    idle = [row for row in idle if any(o.mode == GAP and o.peer == row.peer for o in idle)]
    if not idle:
        return None
    figure = _lines(
        idle, lambda row: row.gap_us or 10, "pause before the call, µs", f"p50 by pause, {place}"
    )
    for axes in figure.axes:
        axes.set_xticks([10, 100, 1000, 10_000], ["0", "100", "1000", "10000"])
        axes.minorticks_off()
    return figure


def _lines(rows: list[Row], at: Callable[[Row], float], label: str, title: str) -> Any:
    of_peer: dict[str, list[Row]] = {}
    for row in sorted(rows, key=at):
        of_peer.setdefault(row.peer, []).append(row)
    lines = [of_path for of_path in of_peer.values() if len(of_path) > 1]

    def plot(axes: Any, row: Row) -> None:
        of_path = of_peer[row.peer]
        p50s = [one.summary["p50"] / 1e3 for one in of_path]
        axes.plot([at(one) for one in of_path], p50s, marker="o", markersize=3, label=_named(row))

    figure, panels = _panels([of_path[0] for of_path in lines], plot, title)
    for axes in panels:
        axes.set_xscale("log")
        axes.set_xlabel(label)
    return figure


def _panels(rows: list[Row], plot: Callable[[Any, Row], None], title: str) -> tuple[Any, list[Any]]:
    """A panel for each class, side by side, with one scale."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    kinds = [kind for kind in KINDS if any(row.kind == kind for row in rows)]
    figure = Figure(figsize=(4.2 * len(kinds), 4.6), layout="constrained")
    figure.suptitle(title)
    panels = list(figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]) if kinds else []
    for axes, kind in zip(panels, kinds, strict=True):
        for row in rows:
            if row.kind == kind:
                plot(axes, row)
        axes.set_title(kind)
        axes.set_yscale("log")
        axes.legend()
    if panels:
        panels[0].set_ylabel("µs, round trip")
    return figure, panels


def _named(row: Row) -> str:
    return row.peer if row.status == "ok" else f"{row.peer} ({row.status})"


# --- of all pairs -------------------------------------------------------------------------------


def core_map(rows: list[Row]) -> Any:
    """From which core to which a call takes how long: a square for each path that was mapped."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    closed = [row for row in rows if row.mode == CLOSED and row.size in (WORD, SIZE)]
    paths = [name for name in MAP if any(row.peer == name for row in closed)]
    if not paths:
        return None
    cores = sorted({core for row in closed for core in row.cores.values()})
    side = max(2.6, 0.4 * len(cores))
    figure = Figure(figsize=((side + 0.7) * len(paths), side + 1.2), layout="constrained")
    figure.suptitle("p50 of a round trip between cores, µs")
    for axes, name in zip(figure.subplots(1, len(paths), squeeze=False)[0], paths, strict=True):
        _square(axes, name, cores, [row for row in closed if row.peer == name])
    return figure


def hops(found: list[Hops]) -> Any:
    """Where the time of a call goes: a bar for each path, in parts."""
    from matplotlib import colormaps  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(9, 1.6 + 0.5 * len(found)), layout="constrained")
    axes = figure.subplots()
    colours = colormaps["tab20"]
    for line, one in enumerate(found):
        at = 0.0
        for number, name in enumerate(KERNEL_HOPS):
            share = one.parts.get(name, 0.0) / one.sum_ns
            label = name if one.path == found[0].path and line == 0 else None
            axes.barh(line, share, left=at, color=colours(number), label=label)
            at += share
    names = [f"{one.path}, {one.where}\n{one.sum_ns / 1e3:.1f} µs" for one in found]
    axes.set_yticks(range(len(found)), names)
    axes.invert_yaxis()
    axes.set_xlabel("share of the round trip")
    axes.set_title("Where a call goes, from the client's hands to the server's and back")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _square(axes: Any, name: str, cores: list[int], rows: list[Row]) -> None:
    grid = [[float("nan")] * len(cores) for _ in cores]
    for row in rows:
        client, server = cores.index(row.cores["client"]), cores.index(row.cores["server"])
        grid[client][server] = row.summary["p50"] / 1e3
        if len(cores) <= 16:
            text = f"{grid[client][server]:.{PLACES if grid[client][server] < 100 else 0}f}"
            axes.text(server, client, text, ha="center", va="center")
    axes.imshow(grid, cmap="Blues", alpha=0.5)
    axes.set_xticks(range(len(cores)), cores)
    axes.set_yticks(range(len(cores)), cores)
    axes.grid(visible=False)
    axes.set_title(f"{name} ({rows[0].kind})")
    axes.set_xlabel("server's core")
    axes.set_ylabel("client's core")


# One entry a picture: of the rows between one pair of cores, and of all rows. A picture for which
# there is nothing to show is None.
PICTURES: dict[str, Callable[[list[Row], str], Any]] = {
    "percentiles": percentiles,
    "sizes": sizes,
    "gaps": gaps,
}
MAPS: dict[str, Callable[[list[Row]], Any]] = {"cores": core_map}
