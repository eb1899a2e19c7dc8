"""words: numbers as people say them."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """`1 death`, `2 deaths`."""
    return f"{number} {noun}{'s' * (number != 1)}"
