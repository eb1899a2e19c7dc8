"""wire: the one message format. A fixed header, then capability tokens, then a msgpack body.

A message is one frame. The kernel reads the header and the tokens and never the body of a call.
`decode` returns a Message or the reason why the bytes are not one; it never raises.

    0   1   2     3     4       6       8         16            24          40
    ver op  flags ncaps opcode  status  seq       deadline_ns   token       ncaps * 16  body
    u8  u8  u8    u8    u16     u16     u64       u64           16 bytes    tokens      msgpack

On a delivered call the token field holds the kernel's stamp instead: badge and client (u64 each).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import msgpack

VERSION = 1

HEADER = struct.Struct("<BBBBHHQQ16s")
STAMP = struct.Struct("<QQ")  # badge, client: a u64 that names one life of one task
HEADER_SIZE = HEADER.size
TOKEN_SIZE = 16
NO_TOKEN = bytes(TOKEN_SIZE)

# Bounds. Each is checked before the bytes behind it are looked at.
MAX_CAPS = 4
MAX_BODY = 288 * 1024  # 256 KiB of payload and room for the arguments around it
MAX_FRAME = HEADER.size + MAX_CAPS * TOKEN_SIZE + MAX_BODY
MAX_DEPTH = 16
MAX_ELEMENTS = 8192

# Operations of a task: what the kernel may receive.
HELLO = 1  # body {secret}: bind this connection to the task that the launcher announced
CALL = 2  # token: an endpoint; answered by exactly one REPLY
SEND = 3  # token: an endpoint; one-way
REPLY = 4  # seq: the kernel's number of the call; gives one credit back
RECV = 5  # token: an endpoint with RECV; seq: how many more messages may be delivered
SYS = 6  # opcode: a system call (abi.syscalls); token: the capability that it acts on
# Operations of the kernel: what a task may receive, besides REPLY.
DELIVER = 7  # a call or a send, stamped with badge and client
NOTICE = 8  # opcode: one of the NOTICE_* below

# Flags.
ASYNC = 1  # the caller goes on; the call takes no part in the wait graph
ONEWAY = 2  # on DELIVER: no reply is expected; give the credit back with RECV
BOUND_LIFE = 4  # fail with E_DEAD_NOTRUN rather than reach a later life of the server
MOVE = 8  # the capabilities of this message leave their sender

# Notices.
NOTICE_UNHELD = 1  # body [badge, ...]: nobody holds a capability with one of these any more
NOTICE_STOP = 2  # leave in order: stop serving, save, exit 0
NOTICE_EVENT = 3  # to the root task: body [kind, slot, life, detail], see syscalls.EVENT_*
NOTICE_DEVICE = 4  # to the machine: body [device, epoch, driver, tag]; tag 0: no driver now
NOTICE_UNMAP = 5  # to the machine: body [device, bus address]
NOTICE_PING = 6  # say something, if the loop still takes messages

NESTING = frozenset((list, dict))

# Every message passes here twice in each process: bound once, not looked up each time.
_pack_header, _unpack_header = HEADER.pack, HEADER.unpack_from
_packer, _unpackb = msgpack.Packer(), msgpack.unpackb
_new = tuple.__new__


class Message(NamedTuple):
    """One decoded message. `body` is still packed."""

    op: int
    flags: int
    opcode: int
    status: int
    seq: int
    deadline_ns: int
    token: bytes
    caps: tuple[bytes, ...]
    body: bytes


def encode(
    op: int,
    *,
    flags: int = 0,
    opcode: int = 0,
    status: int = 0,
    seq: int = 0,
    deadline_ns: int = 0,
    token: bytes = NO_TOKEN,
    caps: tuple[bytes, ...] = (),
    body: bytes = b"",
) -> bytes:
    """The frame of one message. `deadline_ns` is absolute CLOCK_MONOTONIC, 0 for none."""
    head = _pack_header(VERSION, op, flags, len(caps), opcode, status, seq, deadline_ns, token)
    return b"".join((head, *caps, body)) if caps else head + body


def decode(frame: bytes) -> Message | str:
    """The message in `frame`, or the reason why there is none."""
    size, start = len(frame), HEADER_SIZE
    if size < start:
        return f"truncated: {size} bytes, the header alone has {start}"
    if size > MAX_FRAME:
        return f"too large: {size} bytes, at most {MAX_FRAME}"
    version, op, flags, ncaps, opcode, status, seq, deadline_ns, token = _unpack_header(frame)
    if version != VERSION:
        return f"version {version}, this kernel speaks {VERSION}"
    caps: tuple[bytes, ...] = ()
    if ncaps:
        if ncaps > MAX_CAPS:
            return f"{ncaps} capabilities, at most {MAX_CAPS}"
        start += ncaps * TOKEN_SIZE
        if size < start:
            return f"truncated: {ncaps} capabilities announced, {size} bytes in all"
        caps = tuple(frame[at : at + TOKEN_SIZE] for at in range(HEADER_SIZE, start, TOKEN_SIZE))
    # Message(...) in half the time
    return _new(Message, (op, flags, opcode, status, seq, deadline_ns, token, caps, frame[start:]))


pack: Callable[[object], bytes] = _packer.pack
"""A value as msgpack."""


class Malformed(Exception):
    """A body that is not what it must be; `unpack` raises it, the caller answers E_PROTO."""


def unpack(body: bytes) -> Any:
    """The value in `body`. Raises Malformed, and nothing else, whatever the bytes are."""
    try:
        value = _unpackb(
            body, max_array_len=MAX_ELEMENTS, max_map_len=MAX_ELEMENTS, object_pairs_hook=_unique
        )
    except Malformed:
        raise
    except (ValueError, RecursionError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise Malformed(str(error) or type(error).__name__) from None
    kind = type(value)
    if kind is list:  # mostly a few arguments, none of which holds others
        for each in value:
            if type(each) in NESTING:
                break
        else:
            return value
    if kind in NESTING and _too_deep(value):
        raise Malformed(f"nested deeper than {MAX_DEPTH}")
    return value


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed("duplicate key in a map")
    return found


def _too_deep(value: list[Any] | dict[Any, Any], left: int = MAX_DEPTH) -> bool:
    """Whether lists and maps nest in more than `left` levels, which bounds the recursion too."""
    if not left:
        return True
    held = value.values() if type(value) is dict else value
    if NESTING.isdisjoint(map(type, held)):
        return False
    return any(_too_deep(each, left - 1) for each in held if type(each) in NESTING)
