"""python -m servers.vmm: the monitor of one virtual machine; started by the launcher."""

from servers.vmm import Vmm

Vmm.run()
