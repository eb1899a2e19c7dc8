"""notification: a word of bits that others OR into, and that its owner takes whole.

It says that something happened, not what: look at the thing itself. Signals of the same bit
before a `take` are one. Another task signals through a capability that it was passed:

    class Board(Interface):
        @op(1)
        def subscribe(self, line: Kernel) -> None: "Call line.signal() when there is news."
"""

from __future__ import annotations

from ukernel.abi.syscalls import GRANT, WRITE, Kernel
from ukernel.lib.connection import Connection
from ukernel.lib.stub import kernel


class Notification:
    """A notification of this task. `fd` is readable while the word is not empty."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.token = kernel(connection).notification()
        (self.fd,) = connection.descriptors(kernel(connection, self.token).waitable())

    def take(self) -> int:
        """The bits signalled since the last `take`."""
        return kernel(self.connection, self.token).take()

    def signaller(self, bits: int) -> Kernel:
        """A capability that can `signal` these bits and do nothing else, to be passed in a call."""
        own = kernel(self.connection, self.token)
        return kernel(self.connection, own.mint(WRITE | GRANT, bits))
