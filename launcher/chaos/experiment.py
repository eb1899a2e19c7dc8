"""experiment: `load` reads an experiment file, or says everything that is wrong with it and where.

An ExperimentFile is whole: its system file is right, its names resolve there, every client has a
server and every fault somebody to meet. What is wrong with the system is told as the system's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter

from launcher import config
from launcher.chaos import fit, needs, roles, rules
from launcher.chaos.catalogue import SECTIONS
from launcher.chaos.checks import NAME_KEY, AnyChecker, AnyProbe, Predict
from launcher.chaos.nemesis import AnyAction, Sweep
from launcher.chaos.rules import Draft
from launcher.chaos.values import (
    IPV4_PATTERN,
    LINK_PATTERN,
    PATH_PATTERN,
    URL_PATTERN,
    Span,
    Text,
    keys_of,
)
from launcher.chaos.workload import AnyWorkload
from launcher.config import SystemFile
from launcher.explain import Grammar, validated, well_formed
from launcher.reader import read_source
from launcher.source import KEY, ConfigError, Keys, Problem, Source
from ukernel.abi.manifest import FILE_PATTERN, MAX_SEED, Listed, Part

T = TypeVar("T")

Rollback = Literal["resume_all", "clear_faults"]


class Experiment(Part):
    """A whole experiment file."""

    version: Literal[1]
    """Of this format."""
    title: Text
    """What the experiment is, in a line."""
    description: str = ""
    """What it is for."""
    system: Annotated[str, Field(pattern=FILE_PATTERN)]
    """The system file, relative to this file, or to where the command runs."""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    """Where the schedule of the faults begins; the same seed is the same schedule."""
    workload: Annotated[tuple[AnyWorkload, ...], Field(strict=False)] = ()
    """The clients."""
    steady_state: Annotated[tuple[AnyProbe, ...], Field(strict=False)] = ()
    """What must hold before the first fault and after the last."""
    predict: Predict | None = None
    """What the faults will do; without it the graph of calls says so."""
    nemesis: Annotated[tuple[AnyAction, ...], Field(strict=False)] = ()
    """The faults."""
    sweep: Sweep | None = None
    """Instead of `nemesis`."""
    calm_s: Span | None = Field(default=None, alias="calm")
    """How long the clients work before the first fault, for checkers that compare with it. The
    times of `nemesis` count from its end."""
    quiet_s: Span = Field(default=1.0, alias="quiet")
    """How long the system is left alone after the last fault."""
    checkers: Annotated[tuple[AnyChecker, ...], Field(strict=False)]
    """What is asked of the evidence."""
    rollbacks: Listed[Rollback] = ("resume_all", "clear_faults")
    """What is put right before the system is left alone."""
    reboot: bool = True
    """Whether everything is read back once more after a boot from the same image."""
    beside: Literal["micro", "hybrid", "mono"] | None = None
    """A placement in which the same is done once more, up to the first fault and its repair."""


@dataclass(frozen=True)
class ExperimentFile:
    """A checked experiment file."""

    experiment: Experiment  # every client has its server, and '*' is written out
    system: SystemFile
    path: Path
    source: Source
    text: str  # as it was read, for the journal

    def where(self, *keys: str | int) -> str:
        """`configs/experiments/full.yaml:14`: the line of `where("nemesis", 2)`, for messages."""
        return f"{self.path}:{self.source.at((*keys, KEY)).line}"


def load(path: str | os.PathLike[str]) -> ExperimentFile:
    """The experiment file at `path`. Raises ConfigError with every problem of it."""
    source = read_source(Path(path))
    experiment, problems = validated(source, Experiment, GRAMMAR)
    system, of_system = _system(source)
    problems += of_system
    if isinstance(source.value, dict):
        draft = _draft(source.value)
        found = [finding for rule in (*rules.RULES, *needs.RULES) for finding in rule(draft)]
        if system is not None:
            found += [
                finding for rule in (*roles.RULES, *fit.RULES) for finding in rule(draft, system)
            ]
        problems += [source.problem(finding.keys, finding.text) for finding in found]
    if problems or experiment is None or system is None:
        raise ConfigError(problems)
    text = source.path.read_text("utf-8-sig")
    return ExperimentFile(_resolved(experiment, system), system, source.path, source, text)


def _system(source: Source) -> tuple[SystemFile | None, list[Problem]]:
    """The system file, or what is wrong with it, or with its name."""
    name = source.value.get("system") if isinstance(source.value, dict) else None
    if not isinstance(name, str) or not name:
        return None, []  # told by the validation of the whole
    for directory in (source.path.parent, Path()):
        if os.path.isfile(directory / name):
            try:
                return config.load(directory / name), []
            except ConfigError as error:
                return None, error.problems
    beside, here = source.path.parent.absolute(), Path().absolute()
    places = f"in {beside}" if beside == here else f"in {beside} or in {here}"
    text = f"system: no file {name!r} {places}; name the system file relative to one of them"
    return None, [source.problem(("system",), text)]


def _draft(top: dict[str, Any]) -> Draft:
    return Draft(
        raw=top,
        workload=_well_formed(TypeAdapter(AnyWorkload), top.get("workload")),
        probes=_well_formed(TypeAdapter(AnyProbe), top.get("steady_state")),
        actions=_well_formed(TypeAdapter(AnyAction), top.get("nemesis")),
        checkers=_well_formed(TypeAdapter(AnyChecker), top.get("checkers")),
        predict=well_formed(TypeAdapter(Predict), top.get("predict")),
        sweep=well_formed(TypeAdapter(Sweep), top.get("sweep")),
    )


def _well_formed(kind: TypeAdapter[T], entries: Any) -> dict[int, T]:
    listed = entries if isinstance(entries, list) else []
    found = {index: well_formed(kind, entry) for index, entry in enumerate(listed)}
    return {index: entry for index, entry in found.items() if entry is not None}


def _resolved(experiment: Experiment, system: SystemFile) -> Experiment:
    """The same with the server and the card of each client, and with names instead of '*'."""
    clients = experiment.workload
    return experiment.model_copy(
        update={
            "workload": tuple(roles.with_all_known(c, system.manifest) for c in clients),
            "nemesis": tuple(fit.with_targets(a, system.manifest) for a in experiment.nemesis),
        }
    )


def _in_file(loc: Keys) -> Keys:
    """Pydantic's path without the tag of the union; that of a checker is a key of the file."""
    match loc:
        case (section, int(index), tag, *rest) if _is_tag(section, tag):
            return (section, index, *rest) if section != "checkers" else loc
        case (section, int(index), key) if key == NAME_KEY:
            return (section, index)  # which the file does not have
    return loc


def _is_tag(section: str | int, tag: str | int) -> bool:
    return section in SECTIONS and tag in SECTIONS[str(section)].models


def _known_keys(loc: Keys) -> Iterable[str]:
    """The keys that the mapping around `loc` may have."""
    match loc:
        case (section, int(), tag, _) if _is_tag(section, tag):
            return keys_of(SECTIONS[str(section)].models[str(tag)], without=(NAME_KEY,))
        case ("predict", _):
            return keys_of(Predict)
        case ("sweep", _):
            return keys_of(Sweep)
    return keys_of(Experiment)


GRAMMAR = Grammar(
    _in_file,
    _known_keys,
    {
        PATH_PATTERN: "a path inside the system such as /big",
        LINK_PATTERN: "a link such as fs->disk",
        IPV4_PATTERN: "an address such as 10.78.0.9",
        URL_PATTERN: "a URL such as http://10.77.0.2/big",
    },
)
