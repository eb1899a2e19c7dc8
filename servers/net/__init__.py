"""net: TCP/IP in a process of its own, whose connections outlive it."""

from servers.net.server import NetServer

__all__ = ["NetServer"]
