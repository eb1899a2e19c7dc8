"""httpd: the files of a file system by HTTP/1.1. An application: it serves nobody inside.

http.py, ranges.py, target.py and pages.py are pure: bytes and facts in, answers out. sending.py,
files.py, connection.py and server.py make the calls.
"""

from servers.httpd.server import HttpServer

__all__ = ["HttpServer"]
