"""naming: what an operation number stands for at a server, when no finished call is at hand. Pure.

A number alone is not always enough: a file server's 1 is `FileSystem.open` on its own endpoint and
`File.read` on a file. The badge tells them apart; without it every meaning is given.
"""

from __future__ import annotations

from collections.abc import Mapping

from ukernel.abi.channels import Channels
from ukernel.abi.interface import Interface, Lent, Operation, interface_of, is_interface
from ukernel.abi.services import Registers
from ukernel.abi.syscalls import KERNEL_BADGE, Machine

Served = Mapping[str, type[Interface]]  # by server


def operations(
    served: type[Interface] | None, number: int, badge: int | None = None
) -> dict[str, Operation]:
    """What `number` may be at a server, by name: `File.read`. Who serves nothing is the machine.

    `badge` is that of the called object, 0: the server itself, None: not known.
    """
    known: list[type[Interface]] = [*_interfaces(served, badge), Channels]
    found = [i for i in known if number in i.ops]
    return {f"{i.__name__}.{i.ops[number].name}": i.ops[number] for i in found}


def _interfaces(served: type[Interface] | None, badge: int | None) -> list[type[Interface]]:
    if served is None:
        return [Machine if badge == KERNEL_BADGE else Registers]
    handed_out = [o.result for o in served.ops.values() if is_interface(o.result)]
    own = [] if badge and handed_out else [interface_of(served)]  # a partition is a disk too
    return own if badge == 0 else [*own, *dict.fromkeys(handed_out)]


def operation_name(serves: Served, server: str, number: int, badge: int | None = None) -> str:
    """`File.read`, `FileSystem.open|File.read` when it is one of them, or `operation 7`."""
    return "|".join(operations(serves.get(server), number, badge)) or f"operation {number}"


def carries_more_than_data(operation: Operation) -> bool:
    """Whether a request for it brings capabilities: lent memory, or an object."""
    return any(param.kind is Lent or is_interface(param.kind) for param in operation.params)
