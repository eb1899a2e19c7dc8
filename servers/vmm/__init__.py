"""vmm: a virtual machine in a process of its own, whose guest outlives it."""

from servers.vmm.server import Vmm

__all__ = ["Vmm"]
