"""source: a system file as plain values, and where each key and value of it stands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

KEY = "[key]"  # ends a path that means a key itself and not what stands behind it

Keys = tuple[str | int, ...]  # a path of keys and indices from the top of the file


class Position(NamedTuple):
    """A place in the file; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong with a system file, where it stands, and what to do about it."""

    path: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.text}"


class ConfigError(Exception):
    """A system file that cannot be used. `problems` is all that is wrong, in the file's order."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(set(problems))
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True)
class Source:
    """A parsed file: its content as `value`, and the `problems` that it has as YAML."""

    path: Path
    root: Node
    value: Any
    problems: list[Problem]

    def at(self, keys: Keys) -> Position:
        """Where the value of `keys` stands, or its key if the path ends in KEY.

        What the file does not have is placed at the key of the last part that it has. A name finds
        its entry in a list too: `calls`, `disk` is the entry `disk` or `{disk: ...}`.
        """
        want_key = keys[-1:] == (KEY,)
        node, key = self.root, self.root
        for part in keys[:-1] if want_key else keys:
            found = _child(node, part)
            if found is None:
                return position_of(key)
            key, node = found
        return position_of(key if want_key else node)

    def problem(self, keys: Keys, text: str) -> Problem:
        return Problem(str(self.path), *self.at(keys), text)


def dotted(keys: Keys) -> str:
    """`servers.fs.calls` of a path; indices and KEY are left out, the position says them."""
    return ".".join(k for k in keys if isinstance(k, str) and k != KEY) or "the file"


def show(value: object) -> str:
    """A value of the file as a message spells it."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping" if value else "an empty mapping"
        case list():
            return "a list" if value else "an empty list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]}...{text[-1]}"


def _child(node: Node, part: str | int) -> tuple[Node, Node] | None:
    """The key and the value of `part` in `node`; an item of a list is its own key."""
    if isinstance(node, MappingNode):
        return next(((k, v) for k, v in node.value if k.value == part), None)
    if not isinstance(node, SequenceNode):
        return None
    if isinstance(part, int):
        return (node.value[part], node.value[part]) if part < len(node.value) else None
    for item in node.value:
        if isinstance(item, ScalarNode) and item.value == part:
            return item, item
        if found := _child(item, part):
            return found
    return None


def position_of(node: Node) -> Position:
    return Position(node.start_mark.line + 1, node.start_mark.column + 1)
