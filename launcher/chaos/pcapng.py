"""pcapng: the frames in a capture that is still being written (draft-ietf-opsawg-pcapng). Pure.

Read are little-endian files of one interface whose times are nanoseconds, as the machine writes
them; blocks other than enhanced packets are passed over.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

PACKET = 6
INBOUND = 1  # of the option that says which way: it came to the card
HEAD = struct.Struct("<II")  # kind and length of a block
PACKET_HEAD = struct.Struct("<IIIIIII")
FLAGS = struct.Struct("<HHI")
EPB_FLAGS = 2
DIRECTION = 3  # the bits of it


class Malformed(Exception):
    """The file is no such capture."""


class Frame(NamedTuple):
    at_ns: int  # since 1970
    inbound: bool
    octets: memoryview


def frames(data: memoryview) -> tuple[list[Frame], int]:
    """The frames in the whole blocks that `data` begins with, and how many bytes these are.
    Raises Malformed."""
    found, at = [], 0
    while len(data) - at >= HEAD.size:
        kind, length = HEAD.unpack_from(data, at)
        if length < HEAD.size + 4 or length % 4:
            raise Malformed(f"a block of {length} bytes")
        if at + length > len(data):
            break
        if kind == PACKET:
            found.append(_packet(data[at : at + length]))
        at += length
    return found, at


def _packet(block: memoryview) -> Frame:
    if len(block) < PACKET_HEAD.size + 4:
        raise Malformed(f"a packet in {len(block)} bytes")
    _, _, _, high, low, size, _ = PACKET_HEAD.unpack_from(block)
    begin, options = PACKET_HEAD.size, PACKET_HEAD.size + size + -size % 4
    if options + 4 > len(block):
        raise Malformed(f"a frame of {size} bytes in {len(block)}")
    inbound = False
    if options + FLAGS.size + 4 <= len(block):
        option, _, flags = FLAGS.unpack_from(block, options)
        inbound = option == EPB_FLAGS and flags & DIRECTION == INBOUND
    return Frame(high << 32 | low, inbound, block[begin : begin + size])
