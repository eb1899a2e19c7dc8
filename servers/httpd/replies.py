"""replies: what a request gets, from what is known of the file (RFC 9110). Pure.

Files have no time of change, so there is no Last-Modified. A file that fits into one piece has a
strong ETag, the digest of its bytes, which are at hand anyway; a longer one has none. Without an
ETag, If-Range never holds and the whole file is sent; a plain Range works for every file.
"""

from __future__ import annotations

from http import HTTPStatus
from mimetypes import MimeTypes
from typing import NamedTuple

from servers.httpd.pages import notice
from servers.httpd.ranges import Span, Unsatisfiable, parse_range
from servers.httpd.target import Target

METHODS = ("GET", "HEAD")
KNOWN = {*METHODS, "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
HTML = "text/html; charset=utf-8"
TYPES = MimeTypes()  # what Python knows; the host's files are none of ours
PACKED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}


class Request(NamedTuple):
    """A well-formed GET or HEAD. Field names are in small letters."""

    method: str
    target: Target
    fields: dict[str, str]


class Document(NamedTuple):
    """What is known of a file."""

    size: int
    tag: str  # a strong entity tag with its quotes; empty: there is none
    kind: str  # media type


class Reply(NamedTuple):
    """A status, fields, and as body either some bytes or a span of the file."""

    status: HTTPStatus
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    span: Span | None = None

    @property
    def length(self) -> int:
        """Bytes of the body, also when none is sent because only the head was asked for."""
        return self.span.end - self.span.start if self.span is not None else len(self.body)

    def also(self, name: str, value: str) -> Reply:
        """The same with one more field."""
        return self._replace(headers=(*self.headers, (name, value)))


def page(body: bytes) -> Reply:
    """An HTML page."""
    return Reply(HTTPStatus.OK, (("Content-Type", HTML),), body)


def refusal(status: HTTPStatus, why: str) -> Reply:
    """What there is in place of a file."""
    return Reply(status, (("Content-Type", HTML),), notice(status, why))


def moved(target: Target) -> Reply:
    """A directory is asked for with a slash at the end, or its links would lead elsewhere."""
    reply = refusal(HTTPStatus.MOVED_PERMANENTLY, "a directory ends in a slash")
    return reply.also("Location", target.url)


def document(request: Request, found: Document) -> Reply:
    """A file, a part of it, or why not. Preconditions in the order of §13.2.2."""
    fields, tag = request.fields, found.tag
    tagged = (("ETag", tag),) if tag else ()
    if "if-match" in fields and not _matches(fields["if-match"], tag, weakly=False):
        return refusal(HTTPStatus.PRECONDITION_FAILED, "the file is another")
    if "if-none-match" in fields and _matches(fields["if-none-match"], tag, weakly=True):
        return Reply(HTTPStatus.NOT_MODIFIED, tagged)
    headers = (("Content-Type", found.kind), ("Accept-Ranges", "bytes"), *tagged)
    whole = Reply(HTTPStatus.OK, headers, span=Span(0, found.size))
    if request.method != "GET" or "range" not in fields:
        return whole
    if "if-range" in fields and (not tag or fields["if-range"].strip() != tag):
        return whole
    try:
        span = parse_range(fields["range"], found.size)
    except Unsatisfiable:
        reply = refusal(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "the file has no such bytes")
        return reply.also("Content-Range", f"bytes */{found.size}")
    if span is None:
        return whole
    said = f"bytes {span.start}-{span.end - 1}/{found.size}"
    headers = (*headers, ("Content-Range", said))
    return Reply(HTTPStatus.PARTIAL_CONTENT, headers, span=span)


def _matches(field: str, tag: str, *, weakly: bool) -> bool:
    """Whether a list of entity tags names this one; `*` is any there is (§13.1.1, §13.1.2). Our
    tags have no comma in them."""
    if field.strip() == "*":
        return True
    items = [item.strip(" \t") for item in field.split(",")]
    return bool(tag) and any((i.removeprefix("W/") if weakly else i) == tag for i in items)


def media_type(name: str) -> str:
    """What a file is, by the end of its name."""
    kind, packed = TYPES.guess_type(name.rpartition("/")[2])
    if packed is not None:
        return PACKED.get(packed, "application/octet-stream")
    if kind is None:
        return "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
