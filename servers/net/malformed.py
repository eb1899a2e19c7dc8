"""malformed: the one exception of every parser of foreign bytes."""

from __future__ import annotations


class Malformed(Exception):
    """These bytes are not what they should be; the text says what is wrong. Nothing was changed."""
