"""config: `load` reads a system file, or says everything that is wrong with it and where.

A SystemFile is whole: its names resolve, its calls have an order, its modules and cores exist on
this machine. Nothing has been started or created, and no server's module has been imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from launcher.reader import read_source
from launcher.rules import RULES, Draft, hint
from launcher.source import KEY, ConfigError, Keys, Problem, Source, dotted, show
from ukernel.abi.manifest import (
    FILE_PATTERN,
    HARDWARE_MODELS,
    MODULE_PATTERN,
    NAME_PATTERN,
    Hardware,
    Link,
    Manifest,
    Restart,
    Server,
    VirtioBlk,
)

T = TypeVar("T")

__all__ = ["ConfigError", "Problem", "SystemFile", "load"]


@dataclass(frozen=True)
class SystemFile:
    """A checked system file."""

    manifest: Manifest
    path: Path
    source: Source

    @property
    def directory(self) -> Path:
        """What relative names in the file are relative to; belongs last on the servers' path."""
        return self.path.parent.absolute()

    def where(self, *keys: str | int) -> str:
        """`configs/full.yaml:14`: the line of `where("servers", "fs", "calls")`, for messages.

        A key that the file does not have has the line of the mapping that it would go into.
        """
        return f"{self.path}:{self.source.at((*keys, KEY)).line}"

    def image_path(self, device: str) -> Path:
        """The host's file behind a disk. Raises LookupError for what is not a disk."""
        match self.manifest.hardware.get(device):
            case VirtioBlk(image=image):
                return self.directory / image
        raise LookupError(f"{self.path}: hardware has no disk {device!r}")


def load(path: str | os.PathLike[str]) -> SystemFile:
    """The system file at `path`. Raises ConfigError with every problem of it."""
    source = read_source(Path(path))
    problems = list(source.problems)
    manifest = None
    try:
        manifest = Manifest.model_validate(source.value)
    except ValidationError as error:
        problems += [_explained(source, details) for details in error.errors()]
    problems += _broken_rules(source)
    if problems or manifest is None:
        raise ConfigError(problems)
    return SystemFile(manifest, source.path, source)


def _broken_rules(source: Source) -> Iterator[Problem]:
    draft = _draft(source)
    if draft is not None:
        for rule in RULES:
            for finding in rule(draft):
                yield source.problem(finding.keys, finding.text)


def _draft(source: Source) -> Draft | None:
    """What the rules can be asked about; None when a section is not even a mapping."""
    top = source.value if isinstance(source.value, dict) else {}
    servers, hardware = top.get("servers", {}), top.get("hardware", {})
    if not isinstance(servers, dict) or not isinstance(hardware, dict):
        return None
    return Draft(
        directory=source.path.parent,
        server_names=list(servers),
        device_names=list(hardware),
        servers=_well_formed(TypeAdapter(Server), servers),
        hardware=_well_formed(TypeAdapter(Hardware), hardware),
    )


def _well_formed(kind: TypeAdapter[T], parts: Mapping[str, Any]) -> dict[str, T]:
    found = {}
    for name, part in parts.items():
        try:
            found[name] = kind.validate_python(part)
        except ValidationError:
            continue  # told by the validation of the whole
    return found


def _explained(source: Source, error: ErrorDetails) -> Problem:
    """A finding of pydantic in the words and the coordinates of the file."""
    keys, value = _in_file(error["loc"]), error["input"]
    match error["type"]:
        case "extra_forbidden":
            remedy = hint(str(keys[-1]), _known_keys(error["loc"]), "keys")
            text = f"{dotted(keys[:-1])}: unknown key {show(keys[-1])}{remedy}"
            return source.problem((*keys, KEY), text)
        case "missing":
            return _missing(source, keys[:-1], str(keys[-1]))
        case "union_tag_not_found":
            return _missing(source, keys, "model")
        case "union_tag_invalid":
            keys, value = (*keys, "model"), value["model"]
    if value is None:
        keys = (*keys, KEY)  # an empty value has no place of its own
    return source.problem(keys, f"{dotted(keys)}: {_expectation(error)}, got {show(value)}")


def _missing(source: Source, owner: Keys, key: str) -> Problem:
    return source.problem((*owner, KEY), f"{dotted(owner)}: key {key!r} is missing; add it")


def _in_file(loc: Keys) -> Keys:
    """Pydantic's path without the tag of the union that it puts behind a device's name."""
    if loc[:1] == ("hardware",) and len(loc) > 2 and loc[2] in HARDWARE_MODELS:
        return (*loc[:2], *loc[3:])
    return loc


def _known_keys(loc: Keys) -> Iterable[str]:
    """The keys that the mapping around `loc` may have."""
    match loc:
        case ("hardware", _, str(model), _):
            return HARDWARE_MODELS[model].model_fields
        case ("servers", _, "restart", _):
            return Restart.model_fields
        case ("servers", _, "calls", *_):
            return Link.model_fields
        case ("servers", _, _):
            return Server.model_fields
    return Manifest.model_fields


EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "literal_error": "{expected}",
    "union_tag_invalid": "one of {expected_tags}",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "string_pattern_mismatch": "{meaning}",
}
PATTERNS = {
    NAME_PATTERN: "a name (a letter, then up to 31 of a-z, 0-9 and '-')",
    MODULE_PATTERN: "a module's name such as servers.disk",
    FILE_PATTERN: "the name of a file",
}


def _expectation(error: ErrorDetails) -> str:
    """What pydantic wanted; our own checks in abi.manifest already say it in these words."""
    phrase = EXPECTED.get(error["type"])
    if phrase is None:
        return error["msg"]
    context = error.get("ctx", {})
    return "expected " + phrase.format(**context, meaning=PATTERNS.get(context.get("pattern", "")))
