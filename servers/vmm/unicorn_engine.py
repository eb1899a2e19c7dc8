"""unicorn_engine: one RISC-V 64 hart on the Unicorn emulator, in machine, supervisor and user mode.

Unicorn (2.1) translates and runs the code, walks page tables and returns from traps. It enters none
but those of interrupts in mip, where only the guest can set some. So traps are entered here, on the
registers in its saved context; and mip is set there, for the guest to read, and for interrupts that
it does not want yet. What was found by trying:

- An exception comes to the hook with the pc 4 bytes too far, whatever the instruction. An access of
  nothing ends the run with an error and the right pc, and so does ebreak. No address is told.
- `rdtime` is an illegal instruction. WFI ends the run without an error, with the pc behind it.
- Registers of machine mode read as garbage in other modes; in the context they always are.
- A stop takes effect wherever the code is at memory, and that instruction is done again, also if
  it had got there already. Of loads and stores of memory nobody notices. An access of the bus only
  stops the run, and then is made by hand. A program with atomic instructions, which must not be
  done twice, is not stopped from outside: it gets so many instructions at a time, which costs two
  thirds of the speed and more, since Unicorn then counts every one.
- A stop that comes before the run has really begun is lost, or ends the next one.

Unicorn is GPLv2: nothing else imports it.
"""

from __future__ import annotations

import ctypes
import struct
from mmap import mmap
from threading import Lock
from time import monotonic_ns, thread_time_ns
from typing import Any

import unicorn as _unicorn
from unicorn import riscv_const as reg
from unicorn import unicorn_const as const

from servers.vmm import atomics, exceptions, traps
from servers.vmm.alarm import Alarm
from servers.vmm.byhand import ByHand, Trapped
from servers.vmm.engine import BadState, Bus, Exit, Kind
from servers.vmm.registers import WORD, Registers
from servers.vmm.traps import Cause, Hart

unicorn: Any = _unicorn  # it exports names without types

RAM = 0x8000_0000  # everything below is the bus's
CODE_BYTES = 8 << 20  # of translated code
UNREACHED = 1  # an address to stop at that no program gets to
FOREVER_NS = 1 << 62
NOWHERE = -1  # no address
LEAST_COUNT, MOST_COUNT = 5_000, 2_000_000  # instructions at a time, where they are counted
FIRST_RATE, LEAST_RATE = 0.1, 0.005  # of instructions in a nanosecond

FAULTS = {  # errors that end a run, and are the guest's
    const.UC_ERR_READ_UNMAPPED: Cause.LOAD_ACCESS,
    const.UC_ERR_READ_PROT: Cause.LOAD_ACCESS,
    const.UC_ERR_WRITE_UNMAPPED: Cause.STORE_ACCESS,
    const.UC_ERR_WRITE_PROT: Cause.STORE_ACCESS,
    const.UC_ERR_FETCH_UNMAPPED: Cause.FETCH_ACCESS,
    const.UC_ERR_FETCH_PROT: Cause.FETCH_ACCESS,
    const.UC_ERR_INSN_INVALID: Cause.BREAKPOINT,
    const.UC_ERR_EXCEPTION: Cause.BREAKPOINT,
}

# Of each register of Hart, in its order, two values that it takes: after a reset it has the first.
PROBES = {
    "pc": (reg.UC_RISCV_REG_PC, 0x8000_0000, 0x8000_0100),
    "priv": (reg.UC_RISCV_REG_PRIV, 3, 1),
    "mstatus": (reg.UC_RISCV_REG_MSTATUS, 0, 2),
    "mie": (reg.UC_RISCV_REG_MIE, 0, 2),
    "mip": (reg.UC_RISCV_REG_MIP, 0, 2),
    "mideleg": (reg.UC_RISCV_REG_MIDELEG, 0, 2),
    "medeleg": (reg.UC_RISCV_REG_MEDELEG, 0, 1 << Cause.ECALL),
    "mtvec": (reg.UC_RISCV_REG_MTVEC, 0, 4),
    "stvec": (reg.UC_RISCV_REG_STVEC, 0, 4),
    "mepc": (reg.UC_RISCV_REG_MEPC, 0, 4),
    "sepc": (reg.UC_RISCV_REG_SEPC, 0, 4),
    "mcause": (reg.UC_RISCV_REG_MCAUSE, 0, 4),
    "scause": (reg.UC_RISCV_REG_SCAUSE, 0, 4),
    "mtval": (reg.UC_RISCV_REG_MTVAL, 0, 4),
    "stval": (reg.UC_RISCV_REG_STVAL, 0, 4),
    "satp": (reg.UC_RISCV_REG_SATP, 0, 4),
    "mcounteren": (reg.UC_RISCV_REG_MCOUNTEREN, 0, 4),
    "scounteren": (reg.UC_RISCV_REG_SCOUNTEREN, 0, 4),
    "x1": (reg.UC_RISCV_REG_X1, 0, 4),
}
STATE = struct.Struct("<4s12sQ")  # magic, version of Unicorn, lines; the context follows
MAGIC, VERSION = b"rv64", unicorn.__version__.encode()
WFI, WFI_BYTES = 0x10500073, 4

Fields = dict[str, int]  # offsets


class UnicornEngine:
    """`memory` is the guest's, from 0x8000_0000; it must stay where it is until `close`."""

    def __init__(self, memory: mmap | memoryview | bytearray, bus: Bus) -> None:
        self.bus = bus
        self.memory = memoryview(memory).cast("B")
        self._pinned: Any = (ctypes.c_char * len(self.memory)).from_buffer(self.memory)
        self._fields: Fields = {}
        self._uc: Any = None
        self.strays = 0
        self._guard = Lock()  # nobody stops an emulator that is gone
        self._hands = ByHand(self.memory, RAM, bus)
        self.reset(RAM, used=0)  # a program or a state is still to come
        self._alarm = Alarm(self._ring)

    # --- engine.Engine --------------------------------------------------------------------------

    def reset(self, pc: int, used: int | None = None) -> None:
        """A new emulator: it knows nothing of the memory as it was. What is not looked at takes no
        time, and no memory either."""
        self._dispose()
        self.counts = atomics.found(self.memory[:used])  # instructions, instead of being stopped
        self._rate = FIRST_RATE
        uc = unicorn.Uc(const.UC_ARCH_RISCV, const.UC_MODE_RISCV64)
        uc.ctl_set_tcg_buffer_size(CODE_BYTES)
        uc.mmio_map(0, RAM, self._load, None, self._store, None)
        uc.mem_map_ptr(RAM, len(self.memory), const.UC_PROT_ALL, ctypes.addressof(self._pinned))
        uc.hook_add(const.UC_HOOK_INTR, self._exception)
        self._fields = self._fields or _fields(uc)
        uc.reg_write(reg.UC_RISCV_REG_PC, pc)
        self._context = uc.context_save()
        where = ctypes.cast(self._context.context, ctypes.c_void_p).value or 0
        words = memoryview((ctypes.c_char * self._context.size).from_address(where)).cast("B")
        self.registers = Registers(words, self._fields)
        self._begin = self._fields["x1"] - WORD.size  # of the state, in a context
        self._lines = 0  # as mip has them
        self._raised: Trapped | None = None
        self._touched = NOWHERE  # the address on the bus that the run was stopped for
        self._stopped = self._kicked = False
        self._uc = uc  # not before it is whole: an alarm may come late

    def count_instructions(self) -> None:
        """From now on nothing stops it but the number of instructions that it gets."""
        self.counts = True
        self._uc.ctl_flush_tb()  # code that was translated does not count itself

    def run(self, budget_us: int) -> Exit:
        end = monotonic_ns() + budget_us * 1000
        self._kicked = False
        while True:
            soon = self._deliver()
            left = min(end - monotonic_ns(), soon)
            if left <= 0 or self._kicked:
                return Exit(Kind.SLICE)
            error = self._count(left) if self.counts else self._go(left)
            if self.bus.halted:
                return Exit(Kind.HALT, self.bus.halted)
            if error or self._raised:
                if why := self._trap(error):
                    return Exit(Kind.FAULT, why)
            elif not self._stopped and self._waits():
                return Exit(Kind.WFI)

    def kick(self) -> None:
        self._kicked = True
        self._ring()

    def save(self) -> bytes:
        self._uc.context_update(self._context)
        state = self.registers.words[self._begin :]
        return STATE.pack(MAGIC, VERSION, self._lines) + state

    def load(self, state: bytes) -> None:
        if len(state) - STATE.size != len(self.registers.words) - self._begin:
            raise BadState(f"{len(state)} bytes are not the state of this processor")
        magic, version, lines = STATE.unpack_from(state)
        if magic != MAGIC or version.rstrip(b"\0") != VERSION:
            raise BadState("of another processor, or of another version of Unicorn")
        self.reset(RAM)
        self.registers.words[self._begin :] = state[STATE.size :]
        if not self.registers.plausible():
            raise BadState("its registers are none that a processor has")
        self._uc.context_restore(self._context)
        self._lines = lines

    def close(self) -> None:
        if self._uc is not None:
            self._alarm.close()
            self._dispose()
            self._context = self._pinned = None
            self.memory.release()

    # --- one run --------------------------------------------------------------------------------

    def _go(self, budget_ns: int) -> int:
        """Run until something is to be looked at: the error that it ended with, 0 if none."""
        self._stopped, self._raised = False, None
        self._alarm.set(budget_ns)
        try:
            error = self._start(0)
            while not error and self._touched != NOWHERE:
                if self._touch() or self._stopped:
                    self._stopped = True
                    break
                error = self._start(0)
        finally:
            self._alarm.clear()
        if self._stopped and atomics.is_atomic(self._code(0)):
            self.count_instructions()  # it came into memory later; from now on it is spared
        return error

    def _count(self, budget_ns: int) -> int:
        """The same, by numbers of instructions."""
        self._stopped, self._raised = False, None
        end = monotonic_ns() + budget_ns
        while not (self._kicked or self._stopped):
            left = end - monotonic_ns()
            if left <= 0:
                break
            count = int(min(max(left * self._rate, LEAST_COUNT), MOST_COUNT))
            began = thread_time_ns()
            error = self._start(count)
            if error or self._raised:
                return error
            if self._touched != NOWHERE:
                self._stopped = self._touch()
                continue
            rate = count / (thread_time_ns() - began + 1)
            if (
                self._code(-WFI_BYTES) == WFI and rate > 2 * self._rate
            ):  # too soon to be all of them
                return 0
            self._rate = max(min(rate, 2 * self._rate), LEAST_RATE)
        self._stopped = True
        return 0

    def _start(self, count: int) -> int:
        """The emulator's loop, for `count` instructions; 0: any number. Its error."""
        self._touched = NOWHERE
        try:
            self._uc.emu_start(self.registers.get("pc"), UNREACHED, 0, count)
        except unicorn.UcError as error:
            return int(error.errno)
        finally:
            self._uc.context_update(self._context)
        return 0

    def _touch(self) -> bool:
        """Make the access of the bus; whether something has come of it."""
        self._raised = self._hands.touch(self.registers, self._touched)
        self._uc.context_restore(self._context)
        return bool(self.bus.lines != self._lines or self.bus.halted or self._raised)

    def _code(self, offset: int) -> int:
        """The instruction at, or before, the pc."""
        return self._hands.fetch(self.registers, self.registers.get("pc") + offset)

    def _ring(self) -> None:
        self._stopped = True
        with self._guard:
            if self._uc is not None:
                self._uc.emu_stop()

    def _dispose(self) -> None:
        """Now, and not when Python next looks for cycles, in which its callbacks keep it."""
        with self._guard:
            if self._uc is not None:
                self._uc._Uc__finalizer()
            self._uc = None

    def _load(self, uc: Any, address: int, _size: int, _: Any) -> int:
        if self._touched == NOWHERE:
            self._touched = address
            uc.emu_stop()
        return 0

    def _store(self, uc: Any, address: int, _size: int, _value: int, _: Any) -> None:
        self._load(uc, address, 0, None)

    def _exception(self, uc: Any, number: int, _: Any) -> None:
        self._raised = Trapped(number, uc.reg_read(reg.UC_RISCV_REG_PC) - 4)
        self._ring()

    # --- traps ----------------------------------------------------------------------------------

    def _deliver(self) -> int:
        """Bring mip up to now and take the interrupt that is to be taken; nanoseconds until there
        may be another."""
        soon = self.bus.poll()
        lines, changed = self.bus.lines, self.bus.lines ^ self._lines
        mip = self.registers.get("mip")
        if changed:
            mip = mip & ~changed | lines & changed
            self._lines = lines
            self.registers.set("mip", mip)
        if mip & self.registers.get("mie"):
            hart = self.registers.hart()
            number = traps.interrupt(hart)
            if number is None:
                self._arm(hart)
            else:
                traps.enter(hart, number, is_interrupt=True)
            self._put(hart)
        elif changed:
            self._uc.context_restore(self._context)
        return FOREVER_NS if soon is None else soon

    def _arm(self, hart: Hart) -> None:
        """An interrupt waits until the guest wants it, which may be for one instruction only. The
        emulator itself sees that, once a store into mip has told it to look."""
        self.registers.set("priv", traps.MACHINE)
        self._uc.context_restore(self._context)
        self._uc.reg_write(reg.UC_RISCV_REG_MIP, hart.mip)

    def _waits(self) -> bool:
        """Whether it ended with a WFI that has something to wait for."""
        if self._code(-WFI_BYTES) != WFI:
            return False
        self.bus.poll()
        pending = self.registers.get("mip") | self.bus.lines
        return not pending & self.registers.get("mie")

    def _trap(self, error: int) -> str:
        """Enter the trap of a synchronous exception; not empty: why that leads nowhere."""
        hart = self.registers.hart()
        if self._raised is not None:
            cause, hart.pc = self._raised
        elif error in FAULTS:
            cause = FAULTS[error]
        else:
            return f"the emulator stopped at {hart.pc:#x}: {unicorn.UcError(error)}"
        self.strays += cause in exceptions.OF_NOWHERE
        code = 0 if cause in exceptions.OF_FETCH else self._hands.fetch(self.registers, hart.pc)
        if cause == Cause.ILLEGAL and self._hands.read_time(self.registers, hart, code):
            self._uc.context_restore(self._context)
            return ""
        where = hart.pc
        traps.enter(hart, *exceptions.told(hart, cause, code, self.registers))
        self._put(hart)
        if hart.pc == where:  # and so it would be for ever
            return f"exception {cause} at {where:#x}, where its handler is"
        return ""

    def _put(self, hart: Hart) -> None:
        self.registers.put(hart)
        self._uc.context_restore(self._context)


def _fields(uc: Any) -> Fields:
    """Where in a context the registers are. Raises RuntimeError if that is not what it was."""
    found: Fields = {}
    for name, (number, first, second) in PROBES.items():
        contexts = []
        for value in (second, first):
            uc.reg_write(number, value)
            contexts.append(memoryview(bytes(uc.context_save())).cast("Q"))
        words = enumerate(zip(*contexts, strict=True))
        places = [at for at, pair in words if pair == (second, first)]
        if len(places) != 1:
            raise RuntimeError(f"this version of Unicorn keeps {name} in a way that is not known")
        found[name] = places[0] * WORD.size
    return found
