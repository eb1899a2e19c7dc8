"""One annotated class is the stub, the dispatcher, the manual page and the fingerprint."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from ukernel.abi import syscalls, wire
from ukernel.abi.errors import Answer
from ukernel.abi.interface import (
    Interface,
    Lent,
    checker,
    fingerprint,
    interface_of,
    manual,
    op,
    typed,
    u8,
    u16,
    u32,
    u64,
)
from ukernel.abi.manifest import BUILTIN_INTERFACES
from ukernel.abi.wire import Malformed


class Point(NamedTuple):
    x: u16
    y: u16


class Wider(NamedTuple):
    x: u16
    y: u32


class NoSuchThing(Answer):
    """It is not there."""


class Things(Interface):
    """Where things are."""

    answers = (NoSuchThing,)

    @op(1, idempotent=True)
    def find(self, name: str, near: list[Point]) -> Point:
        """The thing of that name."""
        raise NotImplementedError

    @op(2)
    def fill(self, into: Lent, value: u8) -> u64:
        """Write it there."""
        raise NotImplementedError


def declared(number: int, annotations: dict[str, Any], name: str = "go") -> type[Interface]:
    """An interface called Made with one operation."""

    def method(self: Interface) -> None: ...

    method.__annotations__ = annotations
    method.__name__ = name
    return type("Made", (Interface,), {name: op(number)(method)})


BASE = fingerprint(declared(1, {"a": u8, "return": None}))


@pytest.mark.parametrize(
    "other",
    [
        declared(2, {"a": u8, "return": None}),
        declared(1, {"a": u16, "return": None}),
        declared(1, {"b": u8, "return": None}),
        declared(1, {"a": u8, "b": u8, "return": None}),
        declared(1, {"a": u8, "return": u8}),
        declared(1, {"a": u8, "return": None}, name="come"),
        declared(1, {"a": list[u8], "return": None}),
    ],
)
def test_the_fingerprint_changes_with_the_interface(other: type[Interface]) -> None:
    assert fingerprint(other) != BASE


def test_the_fingerprint_changes_with_a_record_inside() -> None:
    one, other = (declared(1, {"a": kind, "return": None}) for kind in (Point, Wider))
    assert fingerprint(one) != fingerprint(other)


def test_the_fingerprint_does_not_change_with_who_implements_it() -> None:
    class Server(Things):
        """Does it."""

    assert fingerprint(Server) == fingerprint(Things)
    assert interface_of(Server) is Things
    assert fingerprint(declared(1, {"a": u8, "return": None})) == BASE


def test_a_number_is_used_once() -> None:
    with pytest.raises(TypeError, match="op number is used twice"):

        class Twice(Interface):
            @op(1)
            def one(self) -> None: ...

            @op(1)
            def two(self) -> None: ...


def test_a_result_is_annotated() -> None:
    with pytest.raises(TypeError, match="annotate the result"):
        declared(1, {"a": u8})


@pytest.mark.parametrize("kind", [object, dict, set, complex, dict[str, int], int | None, Any])
def test_a_kind_that_cannot_cross_is_refused_where_it_is_declared(kind: Any) -> None:
    with pytest.raises(TypeError, match="cannot cross a process border"):
        declared(1, {"a": kind, "return": None})
    with pytest.raises(TypeError, match="cannot cross a process border"):
        declared(1, {"return": kind})


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (u8, [0, 255], [-1, 256, True, 1.0, "1", None]),
        (u64, [0, 2**64 - 1], [-1, 2**64]),
        (int, [-5, 0], [True, 1.5]),
        (bool, [True, False], [0, 1, None]),
        (str, ["", "x"], [b"x", 1]),
        (bytes, [b""], ["", None]),
        (float, [0.5], [1]),
        (type(None), [None], [0, False, ""]),
        (list[u8], [[], [1, 2]], [[256], (1,), None, [[1]]]),
        (Point, [[1, 2]], [[1], [1, 2, 3], [1, 65536], {"x": 1, "y": 2}]),
        (list[Point], [[[1, 2]], []], [[[1]], [1, 2]]),
        (Lent, [[0, 0, 2**64 - 1]], [[256, 0, 0], [0, -1, 0], [0, 0], b""]),
        (Things, [0, 3], [-1, 256, None]),
    ],
)
def test_what_a_kind_admits(kind: Any, good: list[Any], bad: list[Any]) -> None:
    check = checker(kind)
    assert [value for value in good if not check(value)] == []
    assert [value for value in bad if check(value)] == []


def test_records_get_their_names_back() -> None:
    assert typed(Point, [1, 2]) == Point(1, 2)
    assert typed(list[Point], [[1, 2]])[0].y == 2
    assert typed(u8, 5) == 5


@pytest.mark.parametrize("value", [None, 5, {}, [], ["x"], ["x", [[1, 2]], 3], ["x", [[1]]]])
def test_arguments_that_are_not_as_declared_are_malformed(value: Any) -> None:
    with pytest.raises(Malformed, match="find"):
        Things.ops[1].arguments(wire.pack(value))


def test_arguments_in_the_order_of_the_parameters() -> None:
    assert Things.ops[1].arguments(wire.pack(["x", [[1, 2]]])) == ["x", [[1, 2]]]


def test_the_manual_page_says_everything() -> None:
    page = manual(Things)
    assert page.startswith(f"# Things ({fingerprint(Things)})\n\nWhere things are.")
    record = "Point(x: u16, y: u16)"
    find = f"find(name: str, near: list[{record}]) -> {record}"
    assert f"| 1 | `{find}` | yes | The thing of that name. |" in page
    assert "| 2 | `fill(into: Lent, value: u8) -> u64` | no | Write it there. |" in page
    assert "- `NoSuchThing`: It is not there." in page


@pytest.mark.parametrize(
    "interface",
    [*BUILTIN_INTERFACES.values(), syscalls.Kernel, syscalls.Control, syscalls.Machine],
    ids=lambda interface: interface.__name__,
)
def test_every_operation_of_ours_is_explained(interface: type[Interface]) -> None:
    assert interface.ops
    assert [o.name for o in interface.ops.values() if not o.summary] == []
    assert [a.__name__ for a in interface.answers if not a.__doc__] == []


def test_system_calls_have_one_number_each() -> None:
    assert not set(syscalls.Kernel.ops) & set(syscalls.Control.ops)
