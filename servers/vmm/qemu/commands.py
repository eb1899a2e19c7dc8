"""commands: what is said to a QEMU, each from its beginning to its end. See qmp.py.

The state of its devices goes as a migration stream into memory that has no name; the guest's memory
does not: it is ours, and QEMU has it only mapped (capability x-ignore-shared).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from servers.vmm.qemu.qmp import Failure
from servers.vmm.snapshots import STATE_ROOM

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

STATE = "state"  # what QEMU calls the descriptor
MOST_BYTES_S = 1 << 40


class Copied(NamedTuple):
    """A guest was copied: what came of keeping it, and when it stood still, CLOCK_MONOTONIC."""

    kept: Any
    stood_ns: int
    went_on_ns: int


async def begin(client: QMPClient, state: bytes | None) -> None:
    """Get ready, and be what was saved, if anything was. It stands still."""
    wanted = [{"capability": name, "state": True} for name in ("x-ignore-shared", "events")]
    await client.execute("migrate-set-capabilities", {"capabilities": wanted})
    await client.execute("migrate-set-parameters", {"max-bandwidth": MOST_BYTES_S})
    if state is not None:
        with _memory(state) as fd:
            await _pass(client, fd)
            await _migrate(client, "migrate-incoming")


async def stand(client: QMPClient) -> int:
    """Stop its processor, and its disk when that has ended what it had begun; when that was."""
    await client.execute("stop")
    return time.monotonic_ns()


async def go_on(client: QMPClient) -> int:
    """Let it go on; since when it does."""
    await client.execute("cont")
    return time.monotonic_ns()


async def copy(client: QMPClient, keep: Callable[[bytes, int], Any], *, runs: bool) -> Copied:
    """Have it `keep` the state of the devices, and its memory as it is then; `runs`: it goes on,
    also when nothing comes of it. One that stands since it was copied cannot be copied again."""
    stood_ns = await stand(client)
    went_on_ns = 0
    try:
        kept = keep(await _device_state(client), stood_ns)
    finally:
        if runs:
            went_on_ns = await go_on(client)
    return Copied(kept, stood_ns, went_on_ns)


async def _device_state(client: QMPClient) -> bytes:
    with _memory() as fd:
        await _pass(client, fd)
        await _migrate(client, "migrate")
        size = os.fstat(fd).st_size  # as QEMU would have it
        if size > STATE_ROOM:
            raise Failure(f"a state of {size} bytes, at most {STATE_ROOM}")
        return os.pread(fd, size, 0)


@contextlib.contextmanager
def _memory(content: bytes = b"") -> Iterator[int]:
    """A descriptor of memory that has no name, to be read from its start."""
    fd = os.memfd_create(STATE)
    try:
        os.pwrite(fd, content, 0)
        yield fd
    finally:
        os.close(fd)


async def _pass(client: QMPClient, fd: int) -> None:
    """Give QEMU this descriptor, which is used up by what follows."""
    client.send_fd_scm(fd)
    await client.execute("getfd", {"fdname": STATE})


async def _migrate(client: QMPClient, command: str) -> None:
    with client.listener(("MIGRATION",)) as told:
        await client.execute(command, {"uri": f"fd:{STATE}"})
        async for event in told:
            match event.get("data"):
                case {"status": "completed"}:
                    return
                case {"status": "failed" | "cancelled" as status}:
                    raise Failure(f"{command}: {status}{await _why(client)}")


async def _why(client: QMPClient) -> str:
    match await client.execute("query-migrate"):
        case {"error-desc": str(text)}:
            return f": {text}"
    return ""
