"""counts: what has passed a host, and why the rest has not. Pure."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class Counts:
    """Frames and bytes as they are on the wire, a long frame being one; then what was dropped of
    what came, by reason."""

    frames_in: int = 0
    bytes_in: int = 0
    frames_out: int = 0
    bytes_out: int = 0
    malformed: int = 0  # not what the protocols say, wrong checksums included
    tagged: int = 0  # for a VLAN
    foreign: int = 0  # another protocol than IPv4 and ARP
    not_ours: int = 0  # for another station or address
    martian: int = 0  # from where nobody can be
    conflicts: int = 0  # somebody else uses our address
    unwanted: int = 0  # for a UDP port or protocol that nobody has here

    @property
    def dropped_in(self) -> int:
        reasons = fields(self)[4:]
        return sum(getattr(self, reason.name) for reason in reasons)
