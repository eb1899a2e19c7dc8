"""hostile: a server whose misdeed begins with its first ping: then the launcher knows it READY."""

from __future__ import annotations

from typing import Any

from ukernel.abi import wire
from ukernel.lib.server import Server


class Hostile(Server):
    begun = False

    def misbehave(self) -> None:
        """Once in each life."""
        raise NotImplementedError

    def notice(self, kind: int, body: Any) -> None:
        super().notice(kind, body)
        if kind == wire.NOTICE_PING and not self.begun:
            self.begun = True
            self.misbehave()
