"""switch: network cards for several, on one learning switch. See server.py."""

from servers.switch.server import Switch

__all__ = ["Switch"]
