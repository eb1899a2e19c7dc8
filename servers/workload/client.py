"""client: what the runs have in common. A run makes one operation after the other, for ever."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar, NamedTuple

from servers.workload.history import History, described
from servers.workload.memory import Memory
from ukernel.abi.errors import Answer, CallError
from ukernel.abi.interface import Interface
from ukernel.lib.stub import release

Options = dict[str, int | str]
VERIFY: Options = {"verify": "sha256"}  # what stands for the content of a file: nothing else may


class Setting(NamedTuple):
    """What a run is given."""

    name: str  # the client: its keys begin with it
    options: Options
    history: History
    server: Any  # a stub of the run's interface
    memory: Memory


class Client:
    """Base of a run. `options` of the command line are those of `defaults`, of the same types."""

    interface: ClassVar[type[Interface]]
    defaults: ClassVar[Options] = {"every_ms": 1, "seed": 0}

    def __init__(self, setting: Setting) -> None:
        self.name = setting.name
        self.options = self.defaults | setting.options
        self.history = setting.history
        self.memory = setting.memory
        self.dice = random.Random(f"{self.options['seed']} {self.name}")

    def number(self, option: str) -> int:
        return int(self.options[option])

    def step(self) -> bool:
        """Make one operation; whether it was answered."""
        raise NotImplementedError

    def found(self) -> dict[str, str]:
        """Everything of this client that is there now: key -> value."""
        return {}

    def prepare(self) -> dict[str, str]:
        """Make what the run needs; what to know of it."""
        return {}


def value_or_why(look: Callable[[], str]) -> str:
    """What `look` finds, or the reason why nobody can see it: that is no value of anything."""
    try:
        return look()
    except (Answer, CallError) as error:
        return described(error)


def close(handle: Interface) -> None:
    """Give a capability up; one that is gone is given up already."""
    with suppress(CallError):
        release(handle)
