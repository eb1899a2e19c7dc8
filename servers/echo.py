"""echo: gives back what it gets. The shortest server there is."""

from __future__ import annotations

from ukernel.abi.services import Echo
from ukernel.lib.server import Server


class EchoServer(Server, Echo):
    def echo(self, data: bytes) -> bytes:
        return data


if __name__ == "__main__":
    EchoServer.run()
