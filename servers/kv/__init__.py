"""kv: the key-value server."""

from servers.kv.server import KvServer

__all__ = ["KvServer"]
