"""tracing: a trace row in words, whatever bytes its bodies are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.tracing import CUT, Decoder
from ukernel.abi import wire
from ukernel.abi.errors import Code
from ukernel.abi.services import Block, Console, File, FileSystem
from ukernel.abi.syscalls import KERNEL_BADGE, TraceRow

DECODER = Decoder({"fs": FileSystem, "disk": Block, "console": Console}, ["disk0", "clock"])


def row(server: str, opcode: int, sent: Any, got: Any, **changes: Any) -> TraceRow:
    body, answer = wire.pack(sent), wire.pack(got)
    made = TraceRow(
        7, "shell#3", server, 1, opcode, 0, Code.OK, len(body), len(answer),
        1_000, 2_000, 213_000, body, answer,
    )  # fmt: skip
    return made._replace(**changes)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            row("fs", 1, [0, [0, 0, 4096]], 4096, badge=9),
            "shell -> fs File.read(offset=0, into=4096 bytes) = 4096 212 us",
        ),
        (
            row("disk", 3, [8, [0, 512, 1024]], 1024),
            "shell -> disk Block.write(first=8, data=1024 bytes at 512) = 1024 212 us",
        ),
        (
            row("fs", 1, ["/a", 0], 0),
            "shell -> fs FileSystem.open(path='/a', mode=0) = cap[File] 212 us",
        ),
        (
            row("fs", 4, ["/a"], [1, 6]),
            "shell -> fs FileSystem.stat(path='/a') = Stat(kind=1, size=6) 212 us",
        ),
        (row("disk", 4, [], None), "shell -> disk Block.flush() = ok 212 us"),
        (
            row("fs", 6, ["/a"], ["NoSuchFile", "/a"], status=Code.ANSWER),
            "shell -> fs FileSystem.remove(path='/a') = NoSuchFile('/a') 212 us",
        ),
        (
            row("fs", 6, ["/a"], ["gone", {}], status=Code.E_DEAD_UNKNOWN),
            "shell -> fs FileSystem.remove(path='/a') = E_DEAD_UNKNOWN 212 us",
        ),
        (
            row("fs", 6, ["/a"], 0, status=77),
            "shell -> fs FileSystem.remove(path='/a') = status 77 212 us",
        ),
        (
            row("machine", 1, [112], 15, badge=1 << 16),
            "shell -> disk0 Registers.load(offset=112) = 15 212 us",
        ),
        (
            row("machine", 2, [112, 1], 0, badge=(2 << 16) + 1, got_size=0, got_head=b""),
            "shell -> clock Registers.store(offset=112, value=1) = posted 212 us",
        ),
        (
            row("machine", 90, [0, 4096, 4096, True, 5], 4096, badge=KERNEL_BADGE),
            "shell -> machine Machine.map(device=0, iova=4096, size=4096, writable=True, tag=5)"
            " = 4096 212 us",
        ),
        (row("fs", 99, [1], 0), "shell -> fs operation 99(…) = 0 212 us"),
    ],
)  # fmt: skip
def test_a_call_reads_like_a_call(call: TraceRow, text: str) -> None:
    assert str(DECODER.decode(call)) == text


def test_what_is_cut_off_is_shown_as_cut() -> None:
    whole = row("console", 1, [b"x" * 500], 500)
    cut = whole._replace(sent_head=whole.sent_head[:96])
    assert f"write(data={CUT})" in DECODER.decode(cut).call
    listing = row("fs", 3, ["/", 0], [["name", 1, 5]] * 9)
    cut = listing._replace(got_head=listing.got_head[:32])
    assert DECODER.decode(cut).outcome.endswith(CUT)
    long = row("fs", 4, ["/" + "a" * 60], [1, 6])
    assert DECODER.decode(long).call.endswith(f"a{CUT})")


def test_an_object_of_a_server_is_what_its_interface_hands_out() -> None:
    assert DECODER.decode(row("fs", 5, [], None, badge=4)).call == f"{File.__name__}.sync()"


@given(
    st.binary(max_size=96),
    st.binary(max_size=32),
    st.sampled_from(["fs", "disk", "machine", "?"]),
    st.integers(0, 100),
    st.integers(0, 20),
    st.sampled_from([0, 1, 65536, KERNEL_BADGE]),
)
def test_no_bytes_break_it(
    sent: bytes, got: bytes, server: str, opcode: int, status: int, badge: int
) -> None:
    made = row(server, opcode, [], None)._replace(
        sent_head=sent, got_head=got, sent_size=96, got_size=32, status=status, badge=badge
    )
    assert " = " in str(DECODER.decode(made))
