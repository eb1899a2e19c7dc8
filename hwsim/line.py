"""line: the far end of a serial line: a Unix socket `NAME.sock` to type into and read from.

`nc -U RUN_DIR/con0.sock` is a terminal. What is shown while nobody listens is in `logs/NAME.log`.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

from ukernel.lib.server import Server

CHUNK = 4096


class SerialLine:
    """Terminals of one console. `typed` takes what they type."""

    def __init__(self, directory: Path, name: str, server: Server) -> None:
        self.typed: Callable[[bytes], int] = len
        self._server = server
        self._log = (directory / "logs" / f"{name}.log").open("ab", buffering=0)
        self._terminals: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(directory / f"{name}.sock"))
        self._listener.listen(4)
        server.watch(self._listener.fileno(), self._accept)

    def show(self, data: bytes) -> None:
        """Output. A terminal that does not read misses some; the log does not."""
        self._log.write(data)
        for terminal in self._terminals:
            with contextlib.suppress(OSError):
                terminal.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def _accept(self) -> None:
        terminal, _ = self._listener.accept()
        self._terminals.append(terminal)
        self._server.watch(terminal.fileno(), lambda: self._input(terminal))

    def _input(self, terminal: socket.socket) -> None:
        try:
            data = terminal.recv(CHUNK)
        except OSError:
            data = b""
        if data:
            self.typed(data)
        else:
            self._server.unwatch(terminal.fileno())
            self._terminals.remove(terminal)
            terminal.close()
