"""page: the sections of a report in the order in which they are read. A part without data is left
out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from launcher.chaos import journal
from launcher.chaos.evidence import Result
from launcher.chaos.journal import Journal
from launcher.chaos.report import clients, downloads, faults, guests, numbers
from launcher.chaos.report.markup import Markup, fold, join, table, tag
from launcher.chaos.report.theme import css
from launcher.chaos.report.words import SIGNS, badge, figures, moment, short

LEADS = {
    Result.HELD: "Everything that was checked held.",
    Result.BROKEN: "Something that was checked did not hold:",
    Result.UNKNOWN: "Not everything could be judged, and that is not a pass:",
}


def summary(run: Journal) -> Markup:
    """What must be seen first: the result, why, and the figures that matter."""
    wrong = [verdict for verdict in run.verdicts if verdict.result is run.result]
    wrong = [] if run.result is Result.HELD else wrong
    said = [tag("li", tag("strong", each.checker), f": {each.why}") for each in wrong]
    lead = "No checker gave a verdict." if not run.verdicts else LEADS[run.result]
    result = f"{SIGNS[run.result]} {run.result.value.upper()}"
    return join([
        tag("h1", run.title),
        tag("div", f"seed {run.seed} · {moment(run.origin.date)} · {_place(run)}", class_="faint"),
        tag("div", result, class_=f"result {run.result.value}"),
        tag("p", lead),
        tag("ul", *said) if said else "",
        tag("dl", *tiles(run), class_="tiles"),
    ])  # fmt: skip


def _place(run: Journal) -> str:
    host = run.origin.host
    cores = f"{host['cores']} cores" if "cores" in host else ""
    kernel = f"Linux {host['kernel']}" if "kernel" in host else ""
    return ", ".join(filter(None, (str(host.get("cpu", "")), cores, kernel))) or "unknown host"


def tiles(run: Journal) -> list[Markup]:
    evidence = run.evidence
    found = journal.figures(evidence)
    held = sum(verdict.result is Result.HELD for verdict in run.verdicts)
    when = numbers.ends(evidence)
    shown = [
        ("checkers held", f"{held}", f" of {len(run.verdicts)}"),
        ("injections landed", f"{found['injections']['landed']:,}",
         f" of {found['injections']['planned']:,}"),
        ("deaths", f"{len(evidence.recoveries):,}", ""),
        ("operations", f"{len(evidence.history):,}", ""),
        ("duration", short(when.second(when.ended_ns)), " s"),
    ]  # fmt: skip
    if reply := found["recovery_ms"].get("first_good_reply"):
        shown.insert(3, ("kill to reply, p50", short(reply["p50"]), " ms"))
        shown.insert(4, ("kill to reply, p99", short(reply["p99"]), " ms"))
    return [
        tag("div", tag("dt", name), tag("dd", value, tag("small", unit)))
        for name, value, unit in shown
    ]


def verdicts(run: Journal) -> Markup:
    rows = [
        [each.checker, badge(each.result), each.why, figures(each.figures)] for each in run.verdicts
    ]
    return table(["checker", "result", "why", "counted"], rows, "Verdicts") if rows else Markup()


def experiment(run: Journal) -> Markup:
    facts = {"seed": run.seed, "date": run.origin.date, "commit": run.origin.commit or "unknown"}
    facts |= run.origin.host | run.origin.versions
    rows = [[name.replace("_", " "), figures({"": value}).strip()] for name, value in facts.items()]
    return join([
        tag("p", "The fault schedule replays exactly from the seed."),
        tag("pre", tag("code", run.experiment), tabindex="0", aria_label="The experiment's file"),
        fold("The host and the versions", table(["fact", "value"], rows, "Host")),
    ])  # fmt: skip


# Anchor, title, and what makes the inside; without an inside there is no section.
SECTIONS: tuple[tuple[str, str, Callable[[Journal], Markup]], ...] = (
    ("verdicts", "Verdicts", verdicts),
    ("timeline", "Timeline", clients.timeline),
    ("recovery", "Recovery", faults.recovery),
    ("throughput", "Throughput under kills", faults.sweep),
    ("downloads", "Downloads", downloads.downloads),
    ("guests", "Virtual machines", guests.guests),
    ("blast", "Blast radius", faults.blast),
    ("outcomes", "Outcomes", clients.outcomes),
    ("clients", "Clients and bystanders", clients.clients),
    ("resources", "Resources", faults.resources),
    ("injections", "Injections", faults.injections),
    ("experiment", "Experiment", experiment),
)


def page(document: dict[str, Any]) -> str:
    """The HTML of a journal. Raises BadJournal."""
    run = journal.parse(document)
    made = [(anchor, title, make(run)) for anchor, title, make in SECTIONS]
    made = [(anchor, title, inside) for anchor, title, inside in made if inside]
    links = [tag("a", title, href=f"#{anchor}") for anchor, title, _ in made]
    sections = [tag("section", tag("h2", title), inside, id=at) for at, title, inside in made]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width,initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{run.result.value.upper()}: {run.title}"),
        tag("style", Markup(css())),
    )
    header = tag("header", summary(run), tag("nav", *links, aria_label="Sections"))
    footer = tag("footer", f"Made from a journal of {journal.SCHEMA}, which holds every number.")
    body = tag("body", header, tag("main", *sections), footer)
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"
