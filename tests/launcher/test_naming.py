"""naming: operation numbers as names, exact where the badge is known."""

from __future__ import annotations

import pytest

from launcher.naming import carries_more_than_data, operation_name, operations
from ukernel.abi.interface import Interface
from ukernel.abi.services import Block, Console, FileSystem

SERVED = {"fs": FileSystem, "disk": Block, "unknown": Interface}


@pytest.mark.parametrize(
    ("server", "number", "badge", "name"),
    [
        ("disk", 2, 0, "Block.read"),
        ("disk", 2, None, "Block.read"),
        ("disk", 2, 1, "Block.read"),
        ("fs", 1, 0, "FileSystem.open"),
        ("fs", 1, 5, "File.read"),
        ("fs", 1, None, "FileSystem.open|File.read"),
        ("machine", 1, None, "Registers.load"),
        ("machine", 1, 1 << 16, "Registers.load"),
        ("fs", 99, None, "operation 99"),
        ("unknown", 1, 0, "operation 1"),
        ("unknown", 0xFF01, 0, "Channels.open"),
        ("fs", 0xFF02, 5, "Channels.register"),
    ],
)
def test_a_number_has_the_name_of_what_was_called(
    server: str, number: int, badge: int | None, name: str
) -> None:
    assert operation_name(SERVED, server, number, badge) == name


def test_lent_memory_is_more_than_data() -> None:
    read, write = operations(Block, 2, 0), operations(Console, 1, 0)
    assert carries_more_than_data(read["Block.read"])
    assert not carries_more_than_data(write["Console.write"])
