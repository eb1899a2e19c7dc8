"""hwsim: the simulated machine: a bus, its devices, their DMA and interrupts."""

from hwsim.machine import main

__all__ = ["main"]
