"""finisher: the register that ends the machine, as on QEMU's `virt`. Pure."""

from __future__ import annotations

FAIL, PASS, RESET = 0x3333, 0x5555, 0x7777

PASSED, RESTART = "pass", "reset"


def ended(value: int) -> str:
    """What the guest wants by storing `value`: pass, fail N or reset; empty: nothing."""
    match value & 0xFFFF:
        case 0x3333:
            return f"fail {value >> 16 & 0xFFFF}"
        case 0x5555:
            return PASSED
        case 0x7777:
            return RESTART
    return ""
