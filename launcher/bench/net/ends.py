"""ends: where the servers of the bench are found, whatever the stack below them. Imports nothing.

BULK: a client sends how many bytes it wants (8 bytes, big-endian), gets them, and the end of the
connection. ECHO: what comes is sent back (RFC 862). HTTP: files.
"""

ECHO, HTTP, BULK = 7, 80, 5001
WANTED_BYTES = 8
PATH = "/big"  # the file that is fetched by HTTP
PIECE = 256 * 1024  # bytes that are sent at once
