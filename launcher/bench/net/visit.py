"""visit: the client goes to a stack, downloads, measures round trips, and tells what it saw."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from launcher.bench.net import busy, client
from launcher.bench.net.places import Place
from launcher.bench.net.result import TRIPS, Visit
from launcher.kernel import SystemDown
from launcher.process import describe

PATIENCE_S = 120.0  # of all that it does
LOOK_S = 1.0


class NoResult(Exception):
    """The client came to none; the text says how it ended."""


def visit(place: Place, steps: list[dict[str, Any]], others: float) -> Visit:
    """One visit. `others` is the share of the processors that was not ours. Raises NoResult."""
    before = busy.ticks()
    _, download, *trips = _told(place, steps)
    _, stolen = busy.ticks().since(before)
    took = {trip: told["rtt"] for trip, told in zip(TRIPS, trips, strict=False)}
    wrong = sum(told["wrong"] for told in trips)
    return Visit(download["bytes"], download["ns"], took, wrong, others, stolen)


def _told(place: Place, steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run the client in the namespace; what it told of each step."""
    words = [sys.executable, "-m", client.__name__, place.address, json.dumps(steps)]
    with _scratch() as (out, err):
        process = subprocess.Popen(
            place.inside(words),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            _wait(place, process)
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            said = _text(err).strip().splitlines() or ["it said nothing"]
            raise NoResult(f"the client ended ({describe(process.returncode)}): {said[-1]}")
        found: list[dict[str, Any]] = json.loads(_text(out))
        return found


def _wait(place: Place, process: subprocess.Popen[bytes]) -> None:
    """Let everything go on until the client has ended."""
    deadline = time.monotonic() + PATIENCE_S
    ended = os.pidfd_open(process.pid)
    place.selector.register(ended, selectors.EVENT_READ, lambda: None)
    try:
        while process.poll() is None:
            if time.monotonic() > deadline:
                raise NoResult(f"the client did not end in {PATIENCE_S:g} s")
            place.pump(LOOK_S)
    except SystemDown as error:
        raise NoResult(str(error)) from None
    finally:
        place.selector.unregister(ended)
        os.close(ended)


@contextlib.contextmanager
def _scratch() -> Iterator[tuple[int, int]]:
    """Memory for what a process says: it never waits for a reader."""
    out, err = os.memfd_create("out"), os.memfd_create("err")
    try:
        yield out, err
    finally:
        os.close(out)
        os.close(err)


def _text(fd: int) -> str:
    return os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")
