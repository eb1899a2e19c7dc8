"""load: an application whose only purpose is to be measured, and killed, while it uses files."""

from servers.load.server import LoadServer

__all__ = ["LoadServer"]
