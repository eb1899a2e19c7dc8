"""light: runs that keep nothing: echo, clock, entropy, console. They show who is served, and when.

echo     key CLIENT.<what was sent>, value what came back: digests, the same when it is right
clock    value what the clock showed, which never goes back; a `sleep` begins with when to wake
entropy  value the bytes
console  value the line that is shown
"""

from __future__ import annotations

import hashlib

from servers.workload.client import Client, Setting
from servers.workload.history import DOUBTFUL_CHANGE, OK
from ukernel.abi.services import Console, Echo, Entropy, Timer

SLEEP_NS = 1_000_000
SLEEPS = 16  # one in so many operations of `clock` is a sleep


class EchoRun(Client):
    interface = Echo
    defaults = Client.defaults | {"size": 1024}  # bytes at most

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.server: Echo = setting.server

    def step(self) -> bool:
        data = self.dice.randbytes(self.dice.randint(1, self.number("size")))
        sent = short(data)
        key = f"{self.name}.{sent}"
        call = self.server.echo
        return self.history.attempt("echo", key, lambda: short(call(data)), value=sent) == OK


def short(data: bytes) -> str:
    """What stands for these bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


class ClockRun(Client):
    interface = Timer

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.server: Timer = setting.server
        self.count = 0
        self.shown_ns = 0  # the last that was seen of the clock

    def step(self) -> bool:
        self.count += 1
        if self.count % SLEEPS:
            return self.history.attempt("now", self.name, self._now) == OK
        when = self.shown_ns + SLEEP_NS
        sleep = self.server.sleep_until
        value = str(when)
        return self.history.attempt("sleep", self.name, lambda: str(sleep(when)), value=value) == OK

    def _now(self) -> str:
        self.shown_ns = self.server.now()
        return str(self.shown_ns)


class EntropyRun(Client):
    interface = Entropy
    defaults = Client.defaults | {"size": 16}  # bytes

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.server: Entropy = setting.server

    def step(self) -> bool:
        read, size = self.server.read, self.number("size")
        return self.history.attempt("read", self.name, lambda: read(size).hex()) == OK


class ConsoleRun(Client):
    interface = Console
    defaults = Client.defaults | {"size": 32}  # characters of a line, at least

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.server: Console = setting.server
        self.count = 0

    def step(self) -> bool:
        line = f"{self.name} {self.count}".ljust(self.number("size"), ".")
        self.count += 1

        def show() -> str:
            self.server.write(f"{line}\n".encode())
            return ""

        attempt = self.history.attempt
        return attempt("write", self.name, show, value=line, doubtful=DOUBTFUL_CHANGE) == OK
