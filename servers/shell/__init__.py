"""shell: file commands inside the system. An application: it serves nobody and ends."""

from servers.shell.session import main

__all__ = ["main"]
