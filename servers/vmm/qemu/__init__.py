"""qemu: virtual machines that QEMU runs; disk, cable, console and power switch of each are ours."""

from servers.vmm.qemu.server import Qemu

__all__ = ["Qemu"]
