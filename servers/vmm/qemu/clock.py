"""clock: how long a guest has run. It stands while the guest does. Pure: time comes in."""

from __future__ import annotations


class Clock:
    """Of a guest that has run for `ns` already, and stands."""

    def __init__(self, ns: int = 0) -> None:
        self._ns = ns
        self._since_ns = 0  # 0: it stands

    def start(self, now_ns: int) -> None:
        self._since_ns = self._since_ns or now_ns

    def stop(self, now_ns: int) -> None:
        self._ns, self._since_ns = self.at(now_ns), 0

    def at(self, now_ns: int) -> int:
        """What it shows."""
        return self._ns + (now_ns - self._since_ns if self._since_ns else 0)
