"""reader: YAML 1.2 text to a Source. Nodes only: the text can make no object.

Bounded before anything is built: bytes, values (with aliases written out) and nesting. Whatever
the text is, the outcome is a Source or a ConfigError.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StreamMark, YAMLError
from ruamel.yaml.events import (
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    NodeEvent,
)
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from launcher.source import (
    KEY,
    ConfigError,
    Keys,
    Position,
    Problem,
    Source,
    dotted,
    position_of,
    show,
)

MAX_BYTES = 1 << 20
MAX_VALUES = 10_000  # keys and values, each use of an alias counted in full
MAX_NESTING = 20

YAML_TAG = "tag:yaml.org,2002:"
START = Position(1, 1)


def read_source(path: Path) -> Source:
    """The file at `path`. Raises ConfigError when it cannot be read or is not one YAML document."""
    text = _text(path)
    try:
        _check_bounds(path, text)
        root = _yaml().compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        why = " ".join(str(error.problem or error.context).split())
        raise _refusal(path, f"not YAML: {why}", _position_of_mark(mark)) from None
    except (YAMLError, ValueError, ArithmeticError, LookupError) as error:
        # Beside its own errors the parser lets those of chr() and int() through: "\UFFFFFFFF".
        why = " ".join(str(error).split())
        raise _refusal(path, f"not YAML: {why}", _position_in_text(error, text)) from None
    if root is None:
        raise _refusal(path, "the file is empty; it needs at least 'system:' and 'servers:'")
    reader = _Reader(path)
    return Source(path, root, reader.value(root, ()), reader.problems)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise _refusal(path, f"cannot be read: {why}") from None
    if len(content) > MAX_BYTES:
        raise _refusal(path, f"larger than {MAX_BYTES} bytes; split the system")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8-sig")
        raise _refusal(path, "not UTF-8 text; save it as UTF-8", _end_of(before)) from None


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.composer.warn_double_anchors = False  # the last one counts, as YAML 1.2 §3.2.2.2 says
    return yaml


def _check_bounds(path: Path, text: str) -> None:
    """Refuse what would make the parser recurse or work too much, before it builds anything."""
    count = depth = documents = 0
    for event in _yaml().parse(text):
        documents += isinstance(event, DocumentStartEvent)
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        count += isinstance(event, NodeEvent)
        why = _bound_crossed(count, depth)
        if documents > 1:
            why = "a second document; a system file is one document, without '---' inside"
        if why:
            raise _refusal(path, why, _position_of_mark(event.start_mark))


def _bound_crossed(count: int, depth: int) -> str:
    if depth > MAX_NESTING:
        return f"nested deeper than {MAX_NESTING}"
    if count > MAX_VALUES:
        return f"more than {MAX_VALUES} values; aliases count each time they are used"
    return ""


class _Reader:
    """Nodes to plain values: dict, list, str, int, float, bool, None. Collects what is wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self.count = 0

    def value(self, node: Node, keys: Keys) -> Any:
        self.count += 1
        if why := _bound_crossed(self.count, len(keys)):
            raise _refusal(self.path, why, position_of(node))
        if node.tag not in TAGS:
            tag = str(node.tag).replace(YAML_TAG, "!!")
            self._refuse(node, keys, f"tag {tag} means nothing here; remove it")
        if isinstance(node, MappingNode):
            return self._mapping(node, keys)
        if isinstance(node, SequenceNode):
            return [self.value(item, (*keys, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, keys)

    def _mapping(self, node: MappingNode, keys: Keys) -> dict[str, Any]:
        found: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = self.value(key_node, (*keys, KEY))
            if not isinstance(key, str):
                self._refuse(key_node, keys, f"a key is text, got {show(key)}; quote it")
            elif key_node.tag == MERGE:
                self._refuse(key_node, keys, "YAML 1.2 has no merge key '<<'; write the keys out")
            elif key in found:
                why = f"key {show(key)} is there twice, first in line {lines[key]}; remove one"
                self._refuse(key_node, keys, why)
            else:
                found[key] = self.value(value_node, (*keys, key))
                lines[key] = position_of(key_node).line
        return found

    def _scalar(self, node: Node, keys: Keys) -> Any:
        if not _is_text(node.value):
            self._refuse(node, keys, "half of a surrogate pair is no text; remove it")
            return ""
        return _plain(str(node.tag), node.value)

    def _refuse(self, node: Node, keys: Keys, text: str) -> None:
        whole = f"{dotted(keys)}: {text}"
        self.problems.append(Problem(str(self.path), *position_of(node), whole))


def _plain(tag: str, text: str) -> Any:
    """A scalar by its tag. What does not read as its tag says stays text, and fails as such."""
    try:
        return CONVERT.get(tag, str)(text)
    except (ValueError, KeyError):
        return text


def _null(text: str) -> None:
    return None


def _bool(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _int(text: str) -> int:
    digits = text.replace("_", "").lower()
    return int(digits, 0 if digits.lstrip("+-")[:2] in ("0x", "0o", "0b") else 10)


def _float(text: str) -> float:
    lowered = text.replace("_", "").lower()
    return float(lowered.replace(".inf", "inf").replace(".nan", "nan"))


CONVERT: dict[str, Callable[[str], Any]] = {
    f"{YAML_TAG}null": _null,
    f"{YAML_TAG}bool": _bool,
    f"{YAML_TAG}int": _int,
    f"{YAML_TAG}float": _float,
}
MERGE = f"{YAML_TAG}merge"
PLAIN_TAGS = ("map", "seq", "str", "timestamp", "merge", "value")  # the last three are read as text
TAGS = {*CONVERT, *(YAML_TAG + kind for kind in PLAIN_TAGS)}


def _is_text(value: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in value)


def _position_of_mark(mark: StreamMark | None) -> Position:
    return Position(mark.line + 1, mark.column + 1) if mark else START


def _position_in_text(error: Exception, text: str) -> Position:
    index = getattr(error, "position", None)
    return _end_of(text[:index]) if isinstance(index, int) else START


def _end_of(text: str) -> Position:
    return Position(text.count("\n") + 1, len(text) - text.rfind("\n"))


def _refusal(path: Path, text: str, position: Position = START) -> ConfigError:
    return ConfigError([Problem(str(path), *position, text)])
