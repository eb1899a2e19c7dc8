"""vm_console: `ukernel vm console`: what a guest shows, and what is typed to it.

On a terminal each key goes to the guest as it is, Ctrl-C too; Ctrl-] leaves. As a pipe, what comes
in is typed, and it ends when that has ended and the guest has shown nothing more for a second.
What is shown is asked for on one connection, what is typed goes by another: a call for more waits.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from launcher.client import Client, Refused
from launcher.commands.common import SystemName

LEAVE = b"\x1d"  # Ctrl-]
CHUNK = 4096  # bytes typed at once
AGAIN_S = 0.05  # until it is tried again when the guest has no room
LOOK_S = 0.2  # until it is seen that the other side is over
PATIENCE_S = 30.0  # with a monitor that starts again
ENDED = 3


def console(
    name: Annotated[str, typer.Argument(help="A virtual machine.")], system: SystemName = ""
) -> None:
    """The console of a virtual machine; Ctrl-] leaves it."""
    from launcher.commands.vm import find_vm

    with Client(system) as shows, Client(shows.name) as types:
        find_vm(shows.ask("info"), name)
        screen = Screen(shows, name)
        if sys.stdin.isatty() and sys.stdout.isatty():
            _interactive(screen, types, name)
        else:
            _piped(screen, types, name)


class Screen:
    """What a guest shows."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._name = name
        self._at = 0
        self.over = False
        self.error: Refused | None = None

    def more(self) -> bytes:
        """What is new; waits a second for it."""
        told = self._client.ask_server(self._name, "output", self._at, patience_s=PATIENCE_S)
        data = bytes.fromhex(told["data"])
        self._at = told["at"] + len(data)
        return data

    def copy(self, write: Callable[[bytes], object], stop: Callable[[bool], bool]) -> None:
        """Show it until `stop(whether nothing has come for a second)`."""
        try:
            while True:
                data = self.more()
                if data:
                    write(data)
                if stop(not data):
                    return
        except Refused as refused:
            self.error = refused
        finally:
            self.over = True


def _interactive(screen: Screen, types: Client, name: str) -> None:
    left = threading.Event()
    shower = threading.Thread(
        target=screen.copy, args=(_out, lambda quiet: left.is_set()), daemon=True
    )
    with _raw(sys.stdin.fileno()):
        print(f"console of {name}; Ctrl-] leaves", end="\r\n", file=sys.stderr, flush=True)
        shower.start()
        try:
            while not screen.over and (keys := _keys(screen)) is not None:
                before, leave, _ = keys.partition(LEAVE)
                type_in(types, name, before)
                if leave:
                    break
        finally:
            left.set()
            shower.join()
    print(file=sys.stderr)
    if screen.error is not None:
        raise screen.error


def _keys(screen: Screen) -> bytes | None:
    """Keys that were pressed; None when there are no more, or nothing to press them for."""
    stdin = sys.stdin.fileno()
    while not screen.over:
        if select.select([stdin], [], [], LOOK_S)[0]:
            return os.read(stdin, CHUNK) or None
    return None


def _piped(screen: Screen, types: Client, name: str) -> None:
    typed = threading.Event()
    errors: list[Refused] = []

    def type_all() -> None:
        try:
            while data := os.read(sys.stdin.fileno(), CHUNK):
                type_in(types, name, data)
        except Refused as refused:
            errors.append(refused)
        finally:
            typed.set()

    threading.Thread(target=type_all, daemon=True).start()
    try:
        screen.copy(_out, lambda quiet: quiet and typed.is_set())
    except BrokenPipeError:  # whoever read it has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    for error in [screen.error, *errors]:
        if error is not None:
            raise error


def type_in(client: Client, name: str, data: bytes) -> None:
    """Type all of it, as there is room for it."""
    while data:
        taken = client.ask_server(name, "enter", data.hex())
        data = data[taken:]
        if data and not taken and client.ended(AGAIN_S):
            raise Refused(f"system {client.name} has ended", ENDED)


def _out(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


@contextmanager
def _raw(fd: int) -> Iterator[None]:
    """Every key as it is, and what is shown as it comes."""
    before: list[Any] = termios.tcgetattr(fd)
    tty.setraw(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
