"""accel: what executes a guest of QEMU: KVM where it works, else QEMU's own translator, TCG.

That /dev/kvm opens says little: within some virtual machines a guest gets on a thousand times more
slowly there. So a program of a few bytes has to count, and to end the machine that it runs in.
"""

from __future__ import annotations

import os
import subprocess

KVM, TCG, AUTO = "kvm", "tcg", "auto"
DEVICE = "/dev/kvm"
PATIENCE_S = 1.0
ROM_BYTES = 64 << 10  # which end at the top of memory; the processor begins 16 bytes before that
RESET_AT = ROM_BYTES - 16
PORT = 0xF4
SAID = 0x10
STATUS = SAID << 1 | 1  # what QEMU ends with: isa-debug-exit
COUNT = 10_000_000  # a tenth of a second for TCG
CODE = (
    bytes((0x66, 0xB9)) + COUNT.to_bytes(4, "little")  # mov ecx, COUNT
    + bytes((0x66, 0x49, 0x75, 0xFC))  # 1: dec ecx; jnz 1b
    + bytes((0xB0, SAID, 0xE6, PORT, 0xF4))  # mov al, SAID; out PORT, al; hlt
)  # fmt: skip


def chosen(wanted: str, program: str) -> str:
    """The one to use when `auto`, or one of them, is `wanted` of the QEMU `program`."""
    if wanted != AUTO:
        return wanted
    return KVM if os.access(DEVICE, os.R_OK | os.W_OK) and works(KVM, program) else TCG


def works(accel: str, program: str) -> bool:
    """Whether a guest gets on there. Takes a second if not."""
    rom = os.memfd_create("rom")
    try:
        os.truncate(rom, ROM_BYTES)
        os.pwrite(rom, CODE, RESET_AT)
        done = subprocess.run(
            [program, "-accel", accel, "-M", "pc", "-m", "1M", "-nodefaults", "-no-user-config",
             "-display", "none", "-bios", f"/proc/self/fd/{rom}",
             "-device", f"isa-debug-exit,iobase={PORT},iosize=1"],
            pass_fds=[rom],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE_S,
            check=False,
        )  # fmt: skip
    except (subprocess.TimeoutExpired, OSError):
        return False
    finally:
        os.close(rom)
    return done.returncode == STATUS
