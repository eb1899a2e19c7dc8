"""wget: fetches a file by HTTP into the file system. An application: it serves nobody and ends."""

from servers.wget.session import main

__all__ = ["main"]
