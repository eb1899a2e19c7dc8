"""NBD: however a client's bytes are cut they mean the same, and none of them does harm."""

from __future__ import annotations

import random
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.vmm.qemu.nbd import MOST_BYTES, Broken, Error, Export, Request, Session
from tests.servers.vmm.qemu.client import (
    FUA,
    HELLO,
    Ask,
    OptionReply,
    go,
    option,
    option_replies,
    request,
)
from ukernel.abi.services import SECTOR

SECTORS = 4096
SIZE = SECTORS * SECTOR
EXPORT, LIST, ABORT, INFO, STRUCTURED = 1, 3, 2, 6, 8
ACK, SERVER, REP_INFO = 1, 2, 3
UNSUP, INVALID, UNKNOWN = 0x8000_0001, 0x8000_0003, 0x8000_0006
FLAGS, READ_ONLY_FLAGS = 1 | 4 | 8 | 32, 1 | 2 | 4  # flush, FUA, trim; read only, flush
MOST_KEPT = MOST_BYTES + 8192 + 64

Steps = list[bytes | Request]


def take_all(session: Session) -> Steps:
    steps: Steps = []
    while (step := session.take()) is not None:
        steps.append(step)
    return [step for step in steps if step]


def said(*messages: bytes, read_only: bool = False) -> Steps:
    """What comes of them, after the client's flags."""
    session = Session(Export("disk", SECTORS, read_only))
    session.feed(HELLO + b"".join(messages))
    return take_all(session)


def answers(*messages: bytes, read_only: bool = False) -> list[OptionReply]:
    """To options."""
    steps = said(*messages, read_only=read_only)
    return option_replies(b"".join(step for step in steps if isinstance(step, bytes)))


def kinds(*messages: bytes) -> list[int]:
    return [reply.kind for reply in answers(*messages)]


OPTIONS = st.one_of(
    st.builds(option, st.sampled_from([3, 4, 5, 6, 8, 9, 10]), st.binary(max_size=40)),
    st.sampled_from([go(number=INFO), go(b"other"), option(LIST), option(STRUCTURED)]),
)
REQUESTS = st.builds(
    request,
    st.sampled_from([Ask.READ, Ask.WRITE, Ask.FLUSH, Ask.TRIM, 6, 7]),
    st.integers(0, 2**64 - 1),
    st.sampled_from([0, 512, 4096, SIZE - 512, SIZE, 100]),
    st.sampled_from([0, 512, 4096, 5, MOST_BYTES, MOST_BYTES + 512]),
    st.integers(0, 3),
    st.binary(max_size=1100),
)


@given(
    st.lists(OPTIONS, max_size=3),
    st.lists(REQUESTS, max_size=5),
    st.lists(st.integers(0, 4000), max_size=12),
)
def test_however_it_is_cut_it_means_the_same(
    options: list[bytes], requests: list[bytes], cuts: list[int]
) -> None:
    whole = HELLO + b"".join([*options, go(), *requests, request(Ask.DISC)])
    once, many = Session(Export("disk", SECTORS)), Session(Export("disk", SECTORS))
    once.feed(whole)
    expected, steps = take_all(once), Steps()
    edges = [0, *sorted({cut for cut in cuts if cut < len(whole)}), len(whole)]
    for begin, end in pairwise(edges):
        many.feed(whole[begin:end])
        steps += take_all(many)
    assert steps == expected
    assert once.over and many.over  # noqa: PT018
    assert len([s for s in expected if isinstance(s, Request)]) == len(requests)


@given(st.randoms(use_true_random=False), st.sampled_from([b"", HELLO, HELLO + go()]))
def test_garbage_is_broken_or_kept_for_more_and_never_much(
    dice: random.Random, before: bytes
) -> None:
    """Some of it begins as what would be right."""
    session = Session(Export("disk", SECTORS))
    session.feed(before)
    take_all(session)
    starts = [b"", b"IHAVEOPT", b"%`\x95\x13", request(Ask.WRITE, data=b"x" * 9), go()]
    try:
        for _ in range(40):
            session.feed(dice.choice(starts)[: dice.choice([99, 3])] + dice.randbytes(20))
            take_all(session)
            assert len(session._came) <= MOST_KEPT
    except Broken as broken:
        assert str(broken)  # noqa: PT017


def test_go_tells_size_flags_and_block_sizes() -> None:
    export, sizes, ack = answers(go())
    assert struct.unpack(">HQH", export.data) == (0, SIZE, FLAGS)
    assert struct.unpack(">HIII", sizes.data) == (3, SECTOR, 4096, MOST_BYTES)
    assert (export.option, ack) == (7, (7, ACK, b""))
    export, *_ = answers(go(b"", number=INFO), read_only=True)
    assert struct.unpack(">HQH", export.data) == (0, SIZE, READ_ONLY_FLAGS)


def test_options_that_are_not_for_us_are_refused_and_more_may_follow() -> None:
    asked = [option(STRUCTURED), option(5), option(LIST, b"x"), option(LIST), go(b"else"),
             option(7, b"\0\0\0\7disk\0\0"), option(7), go(number=INFO), go()]  # fmt: skip
    infos = [REP_INFO, REP_INFO, ACK]
    expected = [UNSUP, UNSUP, INVALID, SERVER, ACK, UNKNOWN, INVALID, INVALID, *infos, *infos]
    assert kinds(*asked) == expected


def test_the_old_way_to_an_export() -> None:
    answer = struct.pack(">QH", SIZE, FLAGS)
    assert said(option(EXPORT, b"disk")) == [answer]
    session = Session(Export("disk", SECTORS))
    session.feed(struct.pack(">I", 1) + option(EXPORT) + request(Ask.FLUSH, 9))
    padded, flush = take_all(session)
    assert padded == answer + bytes(124)
    assert isinstance(flush, Request)
    assert (flush.command, flush.cookie, flush.error) == (Ask.FLUSH, 9, 0)


def test_an_abort_is_acknowledged_and_ends_it() -> None:
    assert kinds(option(ABORT), go()) == [ACK]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (struct.pack(">I", 4 | 1), "client flags 0x5"),
        (struct.pack(">I", 2), "client flags 0x2"),
        (HELLO + b"GET / HTTP/1.1\r\n", "begins with"),
        (HELLO + b"IHAVEOPT" + struct.pack(">II", 7, 1 << 20), "of 1048576 bytes"),
        (HELLO + option(EXPORT, b"other"), "an export b'other'"),
        (HELLO + go() + bytes(28), "a request that begins with 0x0"),
        (HELLO + go() + request(Ask.WRITE, data=bytes(MOST_BYTES + 1))[:28], "a write of"),
    ],
)
def test_what_breaks_the_protocol_says_how(data: bytes, why: str) -> None:
    session = Session(Export("disk", SECTORS))
    session.feed(data)
    with pytest.raises(Broken, match=why):
        take_all(session)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (request(Ask.READ, 0, 0, 512), Error.NONE),
        (request(Ask.READ, 0, SIZE - MOST_BYTES, MOST_BYTES), Error.NONE),
        (request(Ask.READ, 0, 0, MOST_BYTES + 512), Error.EINVAL),
        (request(Ask.READ, 0, SIZE, 512), Error.EINVAL),
        (request(Ask.READ, 0, 100, 512), Error.EINVAL),
        (request(Ask.READ, 0, 0, 0), Error.EINVAL),
        (request(Ask.READ, 0, 0, 512, flags=4), Error.EINVAL),
        (request(Ask.READ, 0, 2**64 - 512, 512), Error.EINVAL),
        (request(Ask.WRITE, 0, SIZE, data=bytes(512)), Error.ENOSPC),
        (request(Ask.WRITE, 0, 0, data=bytes(511)), Error.EINVAL),
        (request(Ask.TRIM, 0, 0, SIZE), Error.NONE),
        (request(Ask.TRIM, 0, 512, SIZE), Error.EINVAL),
        (request(Ask.FLUSH, 0, 5, 5), Error.NONE),
        (request(6, 0, 0, 512), Error.EINVAL),  # write zeroes
        (request(99), Error.EINVAL),
    ],
)
def test_what_cannot_be_done_is_refused_and_the_next_is_not(message: bytes, error: Error) -> None:
    *_, asked, after = said(go(), message, request(Ask.WRITE, 5, 512, data=b"a" * 512, flags=FUA))
    assert isinstance(asked, Request)
    assert isinstance(after, Request)
    assert (asked.error, asked.fua) == (error, False)
    assert after == Request(Ask.WRITE, 5, 512, 512, True, b"a" * 512)


def test_who_may_only_read_may_not_write() -> None:
    messages = [
        request(Ask.WRITE, data=bytes(512)),
        request(Ask.TRIM, length=512),
        request(Ask.READ, length=512),
    ]
    _, *asked = said(go(), *messages, read_only=True)
    assert [s.error for s in asked if isinstance(s, Request)] == [Error.EPERM, Error.EPERM, 0]
