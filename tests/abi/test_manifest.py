"""manifest: start order, cycles, sizes, and a schema that describes every key."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from ukernel.abi.fields import parse_ms
from ukernel.abi.manifest import (
    BUILTIN_INTERFACES,
    Manifest,
    call_cycles,
    parse_size,
    schema,
    start_order,
)
from ukernel.abi.registry import resolve_interface
from ukernel.abi.services import Block
from ukernel.abi.sizes import bytes_of, text_of


def system(**calls: list[str]) -> Manifest:
    servers = {name: {"run": "x", "serves": "echo", "calls": to} for name, to in calls.items()}
    return Manifest.model_validate({"system": "s", "servers": servers})


def test_callees_start_before_callers() -> None:
    assert start_order(system(shell=["fs"], fs=["disk"], disk=[])) == ["disk", "fs", "shell"]


def test_what_is_free_starts_in_the_order_of_the_file() -> None:
    assert start_order(system(b=[], d=["c"], a=[], c=[])) == ["b", "a", "c", "d"]


def test_a_cycle_has_no_start_order() -> None:
    with pytest.raises(ValueError, match="calls form a cycle: a -> b -> a"):
        start_order(system(a=["b"], b=["a"]))


graphs = st.integers(1, 6).flatmap(
    lambda size: st.lists(
        st.lists(st.integers(0, size - 1), unique=True), min_size=size, max_size=size
    )
)


@given(graphs)
def test_cutting_the_first_call_of_each_cycle_leaves_none(graph: list[list[int]]) -> None:
    calls = {f"s{n}": [f"s{to}" for to in callees if to != n] for n, callees in enumerate(graph)}
    for caller, callee, *_ in call_cycles(calls):
        calls[caller].remove(callee)
    order = start_order(system(**calls))
    assert all(order.index(to) < order.index(name) for name, tos in calls.items() for to in tos)


@pytest.mark.parametrize(
    ("written", "size"),
    [(512, 512), ("512", 512), ("16KiB", 16384), ("64MiB", 64 << 20), ("1GiB", 1 << 30)],
)
def test_size(written: int | str, size: int) -> None:
    assert parse_size(written) == size


@pytest.mark.parametrize("written", ["", "MiB", "1 MiB", "1MB", "1.5GiB", "-1", "٣", True, 1.0, []])
def test_no_size(written: Any) -> None:
    with pytest.raises(PydanticCustomError, match="expected a size such as 64MiB"):
        parse_size(written)


def test_a_manifest_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        system(a=[]).system = "t"


def test_schema_describes_every_key() -> None:
    described = schema()
    models = [described, *described["$defs"].values()]
    assert all(
        prop.get("description") and prop.keys().isdisjoint({"gt", "le", "multiple_of"})
        for model in models
        for prop in model["properties"].values()
    )


def test_builtin_and_dotted_interfaces() -> None:
    assert {resolve_interface(name) for name in BUILTIN_INTERFACES} == {
        *BUILTIN_INTERFACES.values()
    }
    assert resolve_interface("ukernel.abi.services:Block") is Block


def test_unknown_interface_says_what_to_write() -> None:
    with pytest.raises(LookupError, match="did you mean 'block'"):
        resolve_interface("blok")


@pytest.mark.parametrize(
    ("written", "ms"), [("500ms", 500), ("2s", 2000), ("1m", 60_000), (0.25, 250), (3, 3000)]
)
def test_duration(written: str | float, ms: int) -> None:
    assert parse_ms(written) == ms


@pytest.mark.parametrize("written", ["", "ms", "1 s", "1h", "-1s", True, None, [], float("nan")])
def test_no_duration(written: Any) -> None:
    with pytest.raises(PydanticCustomError, match="expected a duration such as 500ms"):
        parse_ms(written)


@given(st.integers(0, 1 << 60))
def test_a_size_as_text_is_that_size(size: int) -> None:
    assert bytes_of(text_of(size)) == size
