"""python -m servers.vmm.qemu: the monitor of one virtual machine; started by the launcher."""

from servers.vmm.qemu import Qemu

Qemu.run()
