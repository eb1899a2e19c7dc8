"""fs: the file system server."""

from servers.fs.server import FileServer

__all__ = ["FileServer"]
