"""places: each stack set up for one visit, and taken away again.

Whatever is made lives in user and network namespaces of our own, so nobody needs to be root, and
all of it ends with the processes that are in there.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from launcher import cables
from launcher.bench import host
from launcher.bench.net import ends, room, sender
from launcher.bench.net.plan import HTTP, Variant
from launcher.config import SystemFile, load
from launcher.kernel import SystemDown
from launcher.process import describe
from launcher.system import BootError, System

SYSTEM_FILE = Path(__file__).parent.parent / "net.yaml"
PYTCP = Path(__file__).with_name("pytcp_server.py")  # for another interpreter than ours
ADDRESS, CARD, DISK = "10.77.0.2", "nic0", "disk0"  # as the system file has them
PATIENCE_S = 20.0
MESSAGE = 4096


class PlaceError(Exception):
    """A stack did not come up; the text says what is missing, or what it said."""


class Place(NamedTuple):
    """A stack that serves at `address`, for who runs in its namespace. While somebody does, `pump`
    is to be called: it waits for what `selector` has, at most so many seconds."""

    address: str
    inside: Callable[[list[str]], list[str]]
    selector: selectors.BaseSelector
    pump: Callable[[float], None]


# --- ours -------------------------------------------------------------------------------------


@contextlib.contextmanager
def ours(variant: Variant, image: Path) -> Iterator[Place]:
    """A system of ours on this disk. Raises PlaceError."""
    with _booted(system_file(variant.offload), image, variant.placement) as system:
        holder = cables.holder(system.run.path, CARD)
        yield Place(ADDRESS, partial(cables.inside, holder), system.selector, system.pump)


def system_file(offload: bool) -> SystemFile:
    """The one system file, with this card."""
    file = load(SYSTEM_FILE)
    card = file.manifest.hardware[CARD].model_copy(update={"offload": offload})
    hardware = {**file.manifest.hardware, CARD: card}
    return replace(file, manifest=file.manifest.model_copy(update={"hardware": hardware}))


@contextlib.contextmanager
def _booted(file: SystemFile, image: Path, placement: str = "") -> Iterator[System]:
    name = f"bench-{os.getpid()}"
    try:
        with System(file, name=name, images={DISK: image}, placement=placement) as system:
            system.boot()
            yield system
    except (BootError, SystemDown, OSError) as error:
        raise PlaceError(str(error)) from None


def filled(folder: Path, variants: list[Variant], count: int) -> Path:
    """A disk in this folder, with a file of so many bytes if one of them is to send it. Raises
    PlaceError."""
    image, content = folder / "net.img", folder / "big"
    if any(variant.download == HTTP for variant in variants):
        content.write_bytes(os.urandom(count))
        with _booted(system_file(offload=True), image) as system:
            _shell(system, ["mkdir", "/www"])
            _shell(system, ["put", str(content), f"/www{ends.PATH}"])
        content.unlink()
    return image


def _shell(system: System, argv: list[str]) -> None:
    with open(os.devnull, "r+b") as nothing:
        fd = nothing.fileno()
        task = system.run_task("shell", argv, (fd, fd, fd))
        while task.process is not None:
            system.pump(1.0)
    if task.status:
        raise PlaceError(f"the shell, {argv[0]}: {describe(task.status)}")


# --- others -----------------------------------------------------------------------------------


@contextlib.contextmanager
def opened_room() -> Iterator[room.Room]:
    """Namespaces for all others. Raises PlaceError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            words = ["-m", room.__name__, str(theirs.fileno()), str(os.getpid())]
            holder = _started(words, pass_fds=(theirs.fileno(),))
        try:
            ours.settimeout(PATIENCE_S)
            said = ours.recv(MESSAGE)
            if not said.startswith(b"\0"):
                raise PlaceError(said.decode() or "the holder of the namespaces has ended")
            yield room.Room(*map(int, said[1:].split()))
        finally:
            holder.kill()
            holder.wait()


@contextlib.contextmanager
def linux(where: room.Room) -> Iterator[Place]:
    """Linux's own stack at the far end of the cable."""
    with _served(where, where.far, ["-m", sender.__name__]) as selector:
        yield _near(where, room.FAR, selector)


@contextlib.contextmanager
def loopback(where: room.Room) -> Iterator[Place]:
    """The floor: client and server on one interface that is none."""
    with _served(where, where.near, ["-m", sender.__name__]) as selector:
        yield _near(where, "127.0.0.1", selector)


@contextlib.contextmanager
def pytcp(where: room.Room, python: Path) -> Iterator[Place]:
    """PyTCP at the other end of its own TAP interface."""
    words = [str(PYTCP), room.TAP, f"{room.STACK}/{room.PREFIX}"]
    with _served(where, where.near, words, python, PYTHONPATH=str(host.PROJECT)) as selector:
        yield _near(where, room.STACK, selector)


def _near(where: room.Room, address: str, selector: selectors.BaseSelector) -> Place:
    def pump(timeout_s: float) -> None:
        for key, _ in selector.select(timeout_s):
            key.data()

    return Place(address, partial(where.inside, where.near), selector, pump)


@contextlib.contextmanager
def _served(
    where: room.Room,
    namespace: int,
    words: list[str],
    python: Path = Path(sys.executable),
    **environment: str,
) -> Iterator[selectors.BaseSelector]:
    """A server while it is needed: it ends with its stdin. Yields something to wait with."""
    with selectors.DefaultSelector() as selector:
        argv = where.inside(namespace, [str(python), *words])
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, **environment},
        )
        try:
            with process:
                _await_ready(process)
                yield selector
        finally:
            process.kill()


def _await_ready(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], PATIENCE_S)[0]:
        raise PlaceError(f"{process.args!r} was not ready in {PATIENCE_S:g} s")
    if process.stdout.readline() != b"ready\n":
        raise PlaceError(f"{process.args!r} ended before it was ready")


def _started(words: list[str], pass_fds: tuple[int, ...]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *words],
        pass_fds=pass_fds,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
