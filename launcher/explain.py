"""explain: from a Source to a model, or to what is wrong in the words and places of the file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from launcher.rules import hint
from launcher.source import KEY, Keys, Problem, Source, dotted, show
from ukernel.abi.manifest import FILE_PATTERN, NAME_PATTERN

Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")


@dataclass(frozen=True)
class Grammar:
    """What a kind of file has to say beside its model: where a path of pydantic's leads."""

    in_file: Callable[[Keys], Keys]  # the path without the tags of unions
    known_keys: Callable[[Keys], Iterable[str]]  # of the mapping around the path's end
    patterns: Mapping[str, str]  # regular expression -> what it means, beside PATTERNS


def validated(
    source: Source, kind: type[Model], grammar: Grammar
) -> tuple[Model | None, list[Problem]]:
    """The file as a model, and all that is wrong with its form; None when that is something."""
    try:
        return kind.model_validate(source.value), list(source.problems)
    except ValidationError as error:
        found = [_explained(source, details, grammar) for details in error.errors()]
        return None, [*source.problems, *found]


def well_formed(kind: TypeAdapter[T], value: Any) -> T | None:
    """A part of a file by itself; None when its form is wrong, which `validated` has told."""
    try:
        return kind.validate_python(value)
    except ValidationError:
        return None


def _explained(source: Source, error: ErrorDetails, grammar: Grammar) -> Problem:
    """A finding of pydantic in the words and the coordinates of the file."""
    keys, value, context = grammar.in_file(error["loc"]), error["input"], error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            remedy = hint(str(keys[-1]), grammar.known_keys(error["loc"]), "keys")
            text = f"{dotted(keys[:-1])}: unknown key {show(keys[-1])}{remedy}"
            return source.problem((*keys, KEY), text)
        case "missing":
            return _missing(source, keys[:-1], str(keys[-1]))
        case "union_tag_not_found":
            return _missing(source, keys, _tag_key(context))
        case "union_tag_invalid":
            tag = _tag_key(context)
            keys, value = grammar.in_file((*error["loc"], tag)), value[tag]
    if value is None:
        keys = (*keys, KEY)  # an empty value has no place of its own
    wanted = _expectation(error, grammar.patterns)
    return source.problem(keys, f"{dotted(keys)}: {wanted}, got {show(value)}")


def _missing(source: Source, owner: Keys, key: str) -> Problem:
    return source.problem((*owner, KEY), f"{dotted(owner)}: key {key!r} is missing; add it")


def _tag_key(context: dict[str, Any]) -> str:
    """The key that says which member of a union is meant; pydantic puts quotes around it."""
    return str(context["discriminator"]).strip("'")


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
    FILE_PATTERN: "the name of a file",
}


def _expectation(error: ErrorDetails, patterns: Mapping[str, str]) -> str:
    """What pydantic wanted; checks of our own in the models already say it in these words."""
    phrase = EXPECTED.get(error["type"])
    if phrase is None:
        return error["msg"]
    context = error.get("ctx", {})
    meaning = {**PATTERNS, **patterns}.get(context.get("pattern", ""))
    return "expected " + phrase.format(**context, meaning=meaning)
