"""log: the bytes of a journal. A record is there as a whole or not at all.

    0      8                                              8 + 8 + length
    magic  length  checksum  fields key operation value  padding  next record ...
           u32     u32       16 bytes, see FIELDS

The checksum is of what follows it and of where that stands. A record that reaches to the end of
the log and is wrong, or would end behind it, was being written when its writer died; so was all
that follows a length of 0. A wrong record with something behind it is damage, and never dropped.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

MAGIC = b"ukernkv1"
HEAD = struct.Struct("<II")  # bytes behind it, checksum
FIELDS = struct.Struct("<BBHIQ")  # kind, bytes of operation, of key, of value; the number
ALIGN = 8  # bytes; so the length, stored last in memory, is one word at its natural place

VALUE = 1  # `value` is kept under `key`
NUMBER = 2  # `number` is kept under `key`
REMOVE = 3  # nothing is kept under `key`
NOTHING = 4  # only the operation is remembered: its effect is in the records before

LONGEST_KEY = 255  # bytes of UTF-8
LONGEST_OPERATION = 64  # bytes


class Damaged(Exception):
    """These bytes are not a journal, or not any more; the text says where they go wrong."""


class Record(NamedTuple):
    kind: int
    key: str = ""
    number: int = 0  # also the answer to the operation
    value: bytes = b""
    operation: bytes = b""  # empty: none is remembered

    def sealed(self, at: int) -> bytes:
        """As it stands in a log at offset `at`."""
        key = self.key.encode()
        sizes = len(self.operation), len(key), len(self.value)
        packed = FIELDS.pack(self.kind, *sizes, self.number) + key + self.operation + self.value
        body = packed.ljust(_aligned(len(packed)), b"\0")
        return HEAD.pack(len(body), zlib.crc32(body, at)) + body

    @property
    def size(self) -> int:
        """Bytes of it in a log."""
        return sealed_size(len(self.key.encode()) + len(self.operation) + len(self.value))


def sealed_size(content: int) -> int:
    """Bytes in a log of a record whose key, operation and value have so many together."""
    return HEAD.size + _aligned(FIELDS.size + content)


def records(log: bytes) -> Iterator[tuple[Record, int]]:
    """Each whole record of a log and where it ends. Raises Damaged."""
    if not log.startswith(MAGIC):
        raise Damaged("it does not begin as a journal of kv does")
    at = len(MAGIC)
    while (body := _body_at(log, at)) is not None:
        at += HEAD.size + len(body)
        yield _opened(body), at


def _body_at(log: bytes, at: int) -> bytes | None:
    """What the record at `at` holds; None where the log ends."""
    if at + HEAD.size > len(log):
        return None
    length, checksum = HEAD.unpack_from(log, at)
    start, end = at + HEAD.size, at + HEAD.size + length
    if not length or end > len(log):
        return None
    body = log[start:end]
    if zlib.crc32(body, at) == checksum:
        return body
    if end < len(log):
        raise Damaged(f"the record at byte {at} of {len(log)} has a wrong checksum")
    return None


def _opened(body: bytes) -> Record:
    kind, operation_size, key_size, value_size, number = FIELDS.unpack_from(body)
    key_end = FIELDS.size + key_size
    operation_end = key_end + operation_size
    return Record(
        kind,
        body[FIELDS.size : key_end].decode(),
        number,
        body[operation_end : operation_end + value_size],
        body[key_end:operation_end],
    )


def _aligned(size: int) -> int:
    return -(-size // ALIGN) * ALIGN
