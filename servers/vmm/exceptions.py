"""exceptions: what a handler is told of a synchronous exception. Pure."""

from __future__ import annotations

from servers.vmm import decode
from servers.vmm.registers import MOST, Registers
from servers.vmm.traps import Cause, Hart

AS_STORE = {Cause.LOAD_ACCESS: Cause.STORE_ACCESS, Cause.LOAD_MISALIGNED: Cause.STORE_MISALIGNED}
OF_MEMORY = {*AS_STORE, *AS_STORE.values(), Cause.LOAD_PAGE, Cause.STORE_PAGE}
OF_NOWHERE = {Cause.FETCH_ACCESS, Cause.LOAD_ACCESS, Cause.STORE_ACCESS}
OF_FETCH = {Cause.FETCH_ACCESS, Cause.FETCH_PAGE, Cause.FETCH_MISALIGNED}


def told(hart: Hart, cause: int, code: int, registers: Registers) -> tuple[int, int]:
    """The cause and the value that the handler of the exception at `hart.pc` is told; `code` is
    the instruction there."""
    if cause == Cause.ECALL:
        return cause + hart.priv, 0
    if cause == Cause.ILLEGAL:
        return cause, code
    if cause in OF_MEMORY:
        access = decode.access(code)
        if access is None:
            return cause, 0
        address = registers.x(access.base) + access.offset & MOST
        return AS_STORE.get(Cause(cause), cause) if access.store else cause, address
    return cause, hart.pc
