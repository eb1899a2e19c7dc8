"""client: calls echo now and then, and says in its log what it saw. An application."""

from __future__ import annotations

import time

from ukernel.abi.services import Echo
from ukernel.lib.server import Server
from ukernel.lib.stub import connect


class Client(Server):
    def setup(self) -> None:
        self.echo = connect(Echo, "echo")
        self.period_ns = int(float(self.args.get("every_s", 1.0)) * 1e9)
        self.sent = 0
        self.alarm_ns = time.monotonic_ns()

    def alarmed(self) -> None:
        message = f"hello {self.sent}".encode()
        begun = time.monotonic_ns()
        answer = self.echo.echo(message)
        took_us = (time.monotonic_ns() - begun) / 1e3
        print(f"{answer.decode()!r} came back in {took_us:.0f} us", flush=True)
        self.sent += 1
        self.alarm_ns = begun + self.period_ns


if __name__ == "__main__":
    Client.run()
