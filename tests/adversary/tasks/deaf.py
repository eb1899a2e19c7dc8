"""deaf: a client that calls echo without end and reads none of the answers."""

from __future__ import annotations

from tests.adversary.tasks.hostile import Hostile
from ukernel.abi import wire
from ukernel.abi.services import Echo

(ECHO,) = Echo.ops


class Deaf(Hostile):
    def misbehave(self) -> None:
        body, token = wire.pack([bytes(int(self.args["size"]))]), self.connection.capability("echo")
        frame = wire.encode(wire.CALL, flags=wire.ASYNC, opcode=ECHO, seq=1, token=token, body=body)
        while True:
            self.connection.socket.send(frame)


if __name__ == "__main__":
    Deaf.run()
