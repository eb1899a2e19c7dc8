"""python -m servers.httpd: the web server; started by the launcher."""

from servers.httpd import HttpServer

HttpServer.run()
