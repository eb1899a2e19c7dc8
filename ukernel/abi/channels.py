"""channels: what every server's library can be asked, besides what the server serves."""

from __future__ import annotations

from typing import NamedTuple

from ukernel.abi.interface import FIRST_RESERVED, Interface, Lent, op, u8, u16, u32, u64


class Opened(NamedTuple):
    """A channel that the kernel has made. `tag` announces its parts at the client."""

    channel: u64
    tag: u64
    spin_ns: u32


class Channels(Interface):
    """Called on any endpoint capability, by the kernel's way; see `lib.channel`."""

    @op(FIRST_RESERVED + 1, idempotent=True)
    def open(self, spin_ns: u32, cores: list[u16]) -> Opened:
        """A channel that stands for this capability. `cores`: where the client may run. Either end
        will spin for so long before it sleeps, if both have more than one core."""

    @op(FIRST_RESERVED + 2, idempotent=True)
    def register(self, channel: u64, memory: Lent) -> u8:
        """The index by which requests of this channel may lend the region from now on."""
