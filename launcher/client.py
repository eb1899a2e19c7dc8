"""client: the other end of `control`: asks a running system. One request at a time."""

from __future__ import annotations

import os
import select
import socket
from typing import Any

from launcher.frames import MAX_ANSWER, BadFrame, Inflow, dump
from launcher.rundir import CONTROL, base, running
from ukernel.abi.syscalls import TraceRow

ASK_S = 5.0  # for the answer of a server


class Refused(Exception):
    """What was asked cannot be done. `code` is the exit status that says how."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class Answered(Refused):
    """A server's own refusal; `name` is that of the interface's Answer."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text or name, 1)
        self.name = name


def find_system(name: str) -> str:
    """`name` if that system runs; without a name, the only one that does. Raises Refused."""
    names = running()
    if not names:
        raise Refused("no system is running: start one with `ukernel up CONFIG`", 2)
    if name and name not in names:
        raise Refused(f"no system {name} is running; there is {', '.join(names)}", 2)
    if not name and len(names) > 1:
        raise Refused(f"several systems are running: {', '.join(names)}; say --system NAME", 2)
    return name or names[0]


def value_of(told: dict[str, Any]) -> Any:
    """The result in what a server was made to say. Raises Answered when it is a refusal."""
    if "answer" in told:
        raise Answered(told["answer"], told["text"])
    return told["result"]


class Client:
    """A connection to a system; `name` may be empty when only one runs. Raises Refused."""

    def __init__(self, name: str = "") -> None:
        self.name = find_system(name)
        self.run_dir = base() / self.name
        self._inflow = Inflow(MAX_ANSWER)
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._line.connect(str(self.run_dir / CONTROL))
        except OSError:
            self._line.close()
            raise Refused(f"system {self.name} is starting or stopping: try again", 3) from None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        self._inflow.close()
        self._line.close()

    def ask(self, request: str, *args: Any, fds: tuple[int, ...] = ()) -> Any:
        """The answer to a request. Raises Refused; with code 3 when the system ended meanwhile."""
        try:
            socket.send_fds(self._line, [dump([request, *args])], fds)
            while (answer := self._inflow.take()) is None:
                if not self._inflow.receive(self._line):
                    raise ConnectionResetError
        except (ConnectionError, BadFrame):
            text = f"system {self.name} ended before it answered: whether it was done is unknown"
            raise Refused(text, 3) from None
        if "error" in answer:
            raise Refused(answer["error"], answer["code"])
        return answer["ok"]

    def ask_server(self, server: str, operation: str, *args: Any, patience_s: float = ASK_S) -> Any:
        """What a server says, of what may be asked of it. Raises Answered, and as `ask` does."""
        told = self.ask("ask", server, operation, list(args), int(1000 * patience_s))
        return value_of(told)

    def trace(self, start: int) -> list[TraceRow]:
        """Finished calls from number `start`, a page of them."""
        rows = [TraceRow(*row) for row in self.ask("trace", start)]
        return [
            row._replace(
                sent_head=bytes.fromhex(str(row.sent_head)),
                got_head=bytes.fromhex(str(row.got_head)),
            )
            for row in rows
        ]

    def run(self, name: str, argv: list[str], stdio: tuple[int, int, int] = (0, 1, 2)) -> int:
        """Run a `start: demand` server here, with these streams; its exit status, -9: SIGKILL."""
        status: int = self.ask("run", name, argv, os.getcwd(), fds=stdio)["status"]
        return status

    def down(self) -> None:
        """Take the system down; returns when nothing of it is left."""
        self._line.sendall(dump(["down"]))
        while self._inflow.receive(self._line):
            continue

    def ended(self, timeout_s: float) -> bool:
        """Wait for the system's end, at most `timeout_s`; whether it has come."""
        ready, _, _ = select.select([self._line], [], [], timeout_s)
        return bool(ready)
