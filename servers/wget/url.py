"""url: http://host[:port]/path, and where a redirection leads from there (RFC 3986). Pure."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit

HTTP = 80
KEPT = "/?&=+,;:@%!$'()*~"  # what stays as it is in a target; `quote` keeps letters, digits and _.-


class BadUrl(Exception):
    """No URL of this kind; the text says what is wrong."""


class Url(NamedTuple):
    host: str
    port: int
    target: str  # path and query, as HTTP sends them

    def __str__(self) -> str:
        return f"http://{self.authority}{self.target}"

    @property
    def authority(self) -> str:
        """What the Host field says."""
        return self.host if self.port == HTTP else f"{self.host}:{self.port}"

    @property
    def name(self) -> str:
        """What a file of it would be called."""
        name = unquote(self.target.partition("?")[0].rpartition("/")[2]).replace("/", "_")
        return name if name.strip(".\0") else "index.html"


def parse_url(text: str) -> Url:
    """Raises BadUrl."""
    if "://" not in text:
        text = f"http://{text}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise BadUrl(f"{text!r}: {error}") from None
    if parts.scheme != "http":
        raise BadUrl(f"{text!r}: only http:// is spoken here")
    if not parts.hostname or parts.username is not None:
        raise BadUrl(f"{text!r}: write http://HOST[:PORT]/PATH")
    target = quote(parts.path or "/", KEPT)
    if parts.query:
        target += "?" + quote(parts.query, KEPT)
    return Url(parts.hostname, HTTP if port is None else port, target)


def redirected(url: Url, location: str) -> Url:
    """Where `location` leads from `url`. Raises BadUrl."""
    return parse_url(urljoin(str(url), location))
