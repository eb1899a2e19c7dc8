"""datagrams: an echo by UDP, from outside the system: see `outside`.

As a task this run does nothing.

datagram  key CLIENT.<what was sent>, value what came back: digests, the same when it is right. One
          that is not answered in time is in doubt
"""

from __future__ import annotations

import random
import socket
import time

from servers.workload.client import Client, Options
from servers.workload.history import OK, History, NotDone
from servers.workload.light import short
from ukernel.abi.errors import DeadlinePassed
from ukernel.abi.vm import VirtualMachine

ECHO_PORT = 7  # RFC 862
NUMBER_BYTES = 8  # at the begin of each: an answer that comes too late is no answer to the next
LONGEST = 1 << 16


class DatagramsRun(Client):
    interface = VirtualMachine
    defaults = Client.defaults | {
        "every_ms": 20,
        "address": "",  # of the guest
        "port": ECHO_PORT,
        "size": 1024,  # bytes at most, behind the number
        "device": "",  # the card whose other end the client is at
        "times": 0,  # how many; 0: as many as there is time for
        "timeout_ms": 1000,
    }

    def step(self) -> bool:
        raise NotImplementedError("who sends datagrams is no task")


class Datagrams:
    """One after the other."""

    def __init__(self, client: str, options: Options, history: History) -> None:
        self.history = history
        self.count = self.done = 0
        self._client = client
        self._size = int(options["size"])
        self._timeout_s = int(options["timeout_ms"]) / 1000
        self._dice = random.Random(f"{options['seed']} {client}")
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect((str(options["address"]), int(options["port"])))

    def step(self) -> bool:
        """Send one; whether it was answered."""
        number = self.count.to_bytes(NUMBER_BYTES, "little")
        data = number + self._dice.randbytes(self._dice.randint(1, self._size))
        key = f"{self._client}.{short(data)}"
        done = (
            self.history.attempt("datagram", key, lambda: self._sent(data), value=short(data)) == OK
        )
        self.count += 1
        self.done += done
        return done

    def _sent(self, data: bytes) -> str:
        """What came back. Raises NotDone, DeadlinePassed."""
        deadline = time.monotonic() + self._timeout_s
        try:
            self._socket.send(data)
            while (left_s := deadline - time.monotonic()) > 0:
                self._socket.settimeout(left_s)
                came = self._socket.recv(LONGEST)
                if came[:NUMBER_BYTES] == data[:NUMBER_BYTES]:
                    return short(came)
        except TimeoutError:
            pass
        except OSError as error:
            raise NotDone(str(error)) from None
        raise DeadlinePassed(f"no answer in {self._timeout_s:g} s")
