"""card_rules: what must hold of the network cards of a system file, and between them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from launcher.rules import Draft, Finding
from ukernel.abi.manifest import VirtioNet

# Of each back end: the keys that it needs, and those that it understands too.
KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "tap": (("interface",), ("host_address",)),
    "userns": (("host_address",), ("interface",)),
    "wire": (("wire",), ()),
    "switch": (("switch",), ()),
}
PLACES = ("interface", "host_address", "wire", "switch")
ENDS = 2  # of a wire


def cards(draft: Draft) -> dict[str, VirtioNet]:
    return {name: part for name, part in draft.hardware.items() if isinstance(part, VirtioNet)}


def cards_say_where(draft: Draft) -> Iterator[Finding]:
    for name, card in cards(draft).items():
        needed, known = KEYS[card.backend]
        for key in PLACES:
            given = getattr(card, key) is not None
            if key in needed and not given:
                text = f"hardware.{name}: backend: {card.backend} needs {key!r}; add it"
                yield Finding(("hardware", name, "backend"), text)
            elif given and key not in (*needed, *known):
                others = [backend for backend, keys in KEYS.items() if key in (*keys[0], *keys[1])]
                text = (
                    f"hardware.{name}.{key}: backend: {card.backend} has no {key}; remove it, or"
                    f" set backend: {' or '.join(others)}"
                )
                yield Finding(("hardware", name, key), text)


def wires_have_two_ends(draft: Draft) -> Iterator[Finding]:
    if len(draft.hardware) < len(draft.device_names):
        return  # the other end may be in an entry that is not well-formed
    ends: dict[str, list[str]] = {}
    for name, card in cards(draft).items():
        if card.backend == "wire" and card.wire is not None:
            ends.setdefault(card.wire, []).append(name)
    for wire, names in ends.items():
        if len(names) < ENDS:
            text = (
                f"hardware.{names[0]}.wire: nothing is at the other end of {wire}; give another"
                f" card 'wire: {wire}'"
            )
            yield Finding(("hardware", names[0], "wire"), text)
        for name in names[ENDS:]:
            text = (
                f"hardware.{name}.wire: {names[0]} and {names[1]} are the ends of {wire}; for more"
                " than two cards set backend: switch"
            )
            yield Finding(("hardware", name, "wire"), text)


def _distinct(draft: Draft, key: str, what: str, remedy: str) -> Iterator[Finding]:
    """No two cards have the same value under this key."""
    owner: dict[str, str] = {}
    for name, card in cards(draft).items():
        value = getattr(card, key)
        if value is None or (key == "interface" and card.backend != "tap"):
            continue
        same = os.path.abspath(draft.directory / value) if key == "capture" else value
        first = owner.setdefault(same, name)
        if first != name:
            text = f"hardware.{first}, hardware.{name}: both {what} {value!r}; {remedy}"
            yield Finding(("hardware", name, key), text)


def interfaces_are_distinct(draft: Draft) -> Iterator[Finding]:
    yield from _distinct(
        draft, "interface", "are plugged into", "a TAP interface has one card, name another"
    )


def addresses_are_distinct(draft: Draft) -> Iterator[Finding]:
    yield from _distinct(draft, "mac", "have the address", "give each its own, or remove them")


def captures_are_distinct(draft: Draft) -> Iterator[Finding]:
    yield from _distinct(draft, "capture", "note their frames in", "give each its own file")


RULES: tuple[Callable[[Draft], Iterator[Finding]], ...] = (
    cards_say_where,
    wires_have_two_ends,
    interfaces_are_distinct,
    addresses_are_distinct,
    captures_are_distinct,
)
