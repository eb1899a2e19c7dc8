"""witness: a bystander. It calls echo all the time and dies of the first wrong answer."""

from __future__ import annotations

import os
import time

from ukernel.abi.services import Echo
from ukernel.lib.server import Server
from ukernel.lib.stub import connect

PERIOD_NS = 2_000_000


class Witness(Server):
    def setup(self) -> None:
        self.echo = connect(Echo, "echo")
        self.alarm_ns = time.monotonic_ns()

    def alarmed(self) -> None:
        said = os.urandom(64)
        if self.echo.echo(said) != said:
            raise ValueError("echo answered something else")
        self.alarm_ns = time.monotonic_ns() + PERIOD_NS


if __name__ == "__main__":
    Witness.run()
