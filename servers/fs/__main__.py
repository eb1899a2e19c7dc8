"""python -m servers.fs: the file system server; started by the launcher."""

from servers.fs.server import FileServer

FileServer.run()
