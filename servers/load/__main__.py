"""python -m servers.load: the load on a file server; started by the launcher."""

from servers.load import LoadServer

LoadServer.run()
