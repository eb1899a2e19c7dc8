"""catalogue: everything that an experiment file can name: its keys, and one line for each.

The models are the catalogue: what `ukernel chaos list` shows is what a file is checked against.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from launcher.chaos.checks import CHECKERS, NAME_KEY, PROBES, Checker, Probe
from launcher.chaos.nemesis import ACTIONS, Action
from launcher.chaos.values import keys_of
from launcher.chaos.workload import RUNS, Workload

Models = Mapping[str, type[BaseModel]]


class Section(NamedTuple):
    """One list of an experiment file: what may be in it, by name."""

    title: str
    tag: str  # the key that holds the name
    common: type[BaseModel]  # what all of them have
    models: Models


# By the key of the file.
SECTIONS: dict[str, Section] = {
    "nemesis": Section("actions", "do", Action, ACTIONS),
    "workload": Section("runs", "run", Workload, RUNS),
    "steady_state": Section("probes", "probe", Probe, PROBES),
    "checkers": Section("checkers", NAME_KEY, Checker, CHECKERS),
}


class Parameter(NamedTuple):
    """One key of an entry. `default` is what it has when the file does not say."""

    name: str
    required: bool
    default: Any
    meaning: str

    def __str__(self) -> str:
        """`target`, `signal=KILL`, `block?`: required, with a default, without one."""
        if self.required:
            return self.name
        return f"{self.name}?" if self.default is None else f"{self.name}={_spelled(self.default)}"


class Described(NamedTuple):
    """One thing that a file can name."""

    name: str
    parameters: tuple[Parameter, ...]
    meaning: str


def described(section: Section) -> list[Described]:
    """What a section knows, in the order of its table; without the keys that all have."""
    common = keys_of(section.common)
    return [
        Described(name, tuple(_parameters(model, common)), _meaning(model))
        for name, model in section.models.items()
    ]


def common_parameters(section: Section) -> list[Parameter]:
    """The keys that everything of a section has, beside its name."""
    return list(_parameters(section.common, (section.tag,)))


def _parameters(model: type[BaseModel], without: Iterable[str]) -> Iterable[Parameter]:
    fields = zip(keys_of(model), model.model_fields.values(), strict=True)
    return [_parameter(key, field) for key, field in fields if key not in without]


def _parameter(name: str, field: FieldInfo) -> Parameter:
    required = field.is_required()
    default = None if required else field.default
    return Parameter(name, required, default, " ".join((field.description or "").split()))


def _spelled(value: object) -> str:
    """As a file spells it."""
    match value:
        case bool():
            return str(value).lower()
        case tuple():
            return f"[{', '.join(map(str, value))}]"
    return str(value)


def _meaning(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())
