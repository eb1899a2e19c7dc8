"""qemu: the same guests on QEMU's machine `virt`, as processes beside ours."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from launcher.bench.vm.guest import PATIENCE_S, NoResult

PROGRAM = "qemu-system-riscv64"
REMEDY = f"{PROGRAM} is not installed: apt-get install qemu-system-misc"
MACHINE = ("-M", "virt", "-global", "virtio-mmio.force-legacy=false", "-nographic")


class Told(NamedTuple):
    """What a guest has shown until it switched itself off; nanoseconds on CLOCK_MONOTONIC."""

    begun_ns: int
    first_ns: int  # its first byte came
    text: str


def absent() -> str:
    """Why it cannot be measured here, and what to do about it; empty when it can."""
    return "" if shutil.which(PROGRAM) else REMEDY


def run(image: Path, patience_s: float = PATIENCE_S) -> Told:
    """Run a guest to its end. Raises NoResult."""
    begun_ns = time.monotonic_ns()
    with _started(image) as process:
        pieces, first_ns = [], 0
        for piece in _pieces(process, begun_ns + int(patience_s * 1e9)):
            first_ns = first_ns or time.monotonic_ns()
            pieces.append(piece)
    text = b"".join(pieces).decode(errors="replace")
    if not first_ns:
        raise NoResult(f"{PROGRAM} ended and has shown nothing of {image.stem}")
    return Told(begun_ns, first_ns, text)


@contextmanager
def _started(image: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [PROGRAM, *MACHINE, "-bios", "none", "-kernel", str(image)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _pieces(process: subprocess.Popen[bytes], until_ns: int) -> Iterator[bytes]:
    assert process.stdout is not None
    fd = process.stdout.fileno()
    while True:
        left_s = (until_ns - time.monotonic_ns()) / 1e9
        if left_s <= 0 or not select.select([fd], [], [], left_s)[0]:
            raise NoResult(f"{PROGRAM} did not end in time")
        piece = os.read(fd, 1 << 16)
        if not piece:
            return
        yield piece
