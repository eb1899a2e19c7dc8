"""target: from the target of a request to a path below the root (RFC 9112 §3.2, RFC 3986). Pure.

A path is built from parts that each name one thing in a directory, so nothing above the root can
be named: there is no part `..`, and a part contains no slash, however it was written.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

LONGEST = 4096  # bytes of a target


class BadTarget(Exception):
    """What was asked for is not the name of anything; the text says why."""


class Target(NamedTuple):
    """What a request is for."""

    parts: tuple[str, ...]  # below the root, from the top
    directory: bool  # it ends in a slash

    @property
    def path(self) -> str:
        """As the file system spells it, below the root: empty for the root itself."""
        return "".join(f"/{part}" for part in self.parts)

    @property
    def url(self) -> str:
        """As a client spells it, in its one form, with a slash at the end."""
        return "".join(f"/{encoded(part)}" for part in self.parts) + "/"


def parse_target(target: bytes) -> Target:
    """The parts of a target in origin-form or absolute-form; a query is dropped. Raises
    BadTarget."""
    path = target.partition(b"?")[0]
    if not path.startswith(b"/"):
        path = _path_of_absolute(path)
    parts = [_decoded(part) for part in path.split(b"/")]
    return Target(tuple(part for part in parts if part not in ("", ".")), parts[-1] in ("", "."))


def _path_of_absolute(target: bytes) -> bytes:
    scheme, colon, rest = target.partition(b"://")
    if not colon or scheme.lower() != b"http":
        raise BadTarget("a target is a path, or http:// with a host and a path")
    return b"/" + rest.partition(b"/")[2]


def _decoded(part: bytes) -> str:
    try:
        text = unquote_to_bytes(part).decode()
    except UnicodeDecodeError:
        raise BadTarget("a path is text in UTF-8") from None
    if text == "..":
        raise BadTarget("a path goes down only")
    if "/" in text or "\0" in text:
        raise BadTarget("a name contains neither a slash nor a zero byte")
    return text


def encoded(name: str) -> str:
    """A name as one part of a URL."""
    return quote(name, safe="")
