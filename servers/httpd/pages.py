"""pages: what a person reads who asked for a directory, or for what there is not. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from http import HTTPStatus

from servers.httpd.target import Target, encoded
from ukernel.abi.services import DIRECTORY, Entry

HEAD = '<!DOCTYPE html>\n<html><head><meta charset="utf-8"><title>{0}</title></head>\n<body>'
MOST_ENTRIES = 10_000  # of one listing


def listing(target: Target, entries: Iterable[Entry], more: bool) -> bytes:
    """A directory as links; `more`: it has entries that are not told."""
    title = escape("".join(f"/{part}" for part in target.parts) + "/")
    lines = [HEAD.format(title), f"<h1>{title}</h1>", "<ul>"]
    if target.parts:
        lines.append('<li><a href="../">../</a></li>')
    for name, kind, size in entries:
        slash = "/" if kind == DIRECTORY else ""
        told = "" if slash else f" {size} bytes"
        # `./`: a name with a colon would be taken for a scheme (RFC 3986 §4.2)
        link = f'<a href="./{encoded(name)}{slash}">{escape(name)}{slash}</a>'
        lines.append(f"<li>{link}{told}</li>")
    lines.append("</ul>")
    if more:
        lines.append("<p>and more</p>")
    return ("\n".join(lines) + "\n</body></html>\n").encode()


def notice(status: HTTPStatus, text: str) -> bytes:
    """Why there is nothing else."""
    title = f"{status.value} {status.phrase}"
    text = escape(text)
    return f"{HEAD.format(title)}\n<h1>{title}</h1>\n<p>{text}</p>\n</body></html>\n".encode()
