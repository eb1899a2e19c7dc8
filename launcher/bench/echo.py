"""echo: an echo server with a fault, for the self-tests of the bench on the kernel's own path."""

from __future__ import annotations

from launcher.bench.answers import faulted
from ukernel.abi.services import Echo
from ukernel.lib.server import Server


class FaultyEcho(Server, Echo):
    def setup(self) -> None:
        self.answer = faulted(str(self.args["fault"]))

    def echo(self, data: bytes) -> bytes:
        return self.answer(data)


if __name__ == "__main__":
    FaultyEcho.run()
