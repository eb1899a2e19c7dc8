"""python -m servers.fs: the file system server; started by the launcher."""

from servers.fs import FileServer

FileServer.run()
