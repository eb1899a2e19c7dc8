"""What kv takes as a key and as an operation id; what it does with them is tested beside this."""

from __future__ import annotations

import pytest

from servers.kv.log import LONGEST_KEY, LONGEST_OPERATION
from servers.kv.server import check
from ukernel.abi.errors import Protocol


@pytest.mark.parametrize(
    ("key", "operation"), [("k", b"1"), ("k" * LONGEST_KEY, b"1"), ("k", bytes(LONGEST_OPERATION))]
)
def test_names_have_a_longest_size(key: str, operation: bytes) -> None:
    check(key, operation)


@pytest.mark.parametrize(
    ("key", "operation", "text"),
    [
        ("", b"1", "a key has 1 to 255 bytes of UTF-8, not 0"),
        ("é" * 128, b"1", "not 256"),
        ("k", b"", "an operation id has 1 to 64 bytes, not 0: choose one"),
        ("k", bytes(LONGEST_OPERATION + 1), "not 65"),
    ],
)
def test_other_names_are_the_callers_fault(key: str, operation: bytes, text: str) -> None:
    with pytest.raises(Protocol, match=text):
        check(key, operation)
