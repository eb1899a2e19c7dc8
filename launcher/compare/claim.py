"""claim: something that must hold whatever the machine does."""

from __future__ import annotations

from typing import NamedTuple


class Claim(NamedTuple):
    """`why` says what was counted, or what broke it."""

    claim: str
    held: bool
    why: str
