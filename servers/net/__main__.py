"""python -m servers.net: the TCP/IP server; started by the launcher."""

from servers.net import NetServer

NetServer.run()
