"""guest: looks at a virtual machine, as its user does: what its guest shows, and how it is.

look    what it has shown since the last look; value how many bytes. Waits until there is some
status  value its state, and what its guest did wrong

Beside its history the run tells each line when it has come, and what a status has said:

    {"line": "heartbeat 10 1000123 42", "at": 1}
    {"state": "running", "faults": 0, "resets": 0, "at": 2}
"""

from __future__ import annotations

import time

from servers.workload.client import Client, Setting
from servers.workload.history import OK, NotDone
from ukernel.abi.vm import VirtualMachine

STATUS_NS = 1_000_000_000  # from one status to the next


class GuestRun(Client):
    interface = VirtualMachine
    defaults = Client.defaults | {"every_ms": 0}  # who looks waits for something to see

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.vm: VirtualMachine = setting.server
        self.machine = str(self.options.get("to", ""))
        self._at = 0  # how far it has looked
        self._part = b""  # of a line, whose end has not come yet
        self._status_ns = 0  # when the next is due

    def step(self) -> bool:
        if time.monotonic_ns() >= self._status_ns:
            self._status_ns = time.monotonic_ns() + STATUS_NS
            return self.history.attempt("status", self.machine, self._status) == OK
        return self.history.attempt("look", self.machine, self._look) == OK

    def _status(self) -> str:
        found = self.vm.status()
        state, faults, resets = found.state, found.faults, found.resets
        self.history.say(state=state, faults=faults, resets=resets, at=time.monotonic_ns())
        return f"{state}, {faults} faults, {resets} resets"

    def _look(self) -> str:
        found = self.vm.output(self._at)
        now_ns = time.monotonic_ns()
        missed, self._at = found.at - self._at, found.at + len(found.data)
        *lines, self._part = (self._part + found.data).split(b"\n")
        for line in lines:
            self.history.say(line=line.decode(errors="replace"), at=now_ns)
        if missed:
            raise NotDone(f"{missed} bytes before were not to be seen any more")
        return str(len(found.data))
