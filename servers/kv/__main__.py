"""python -m servers.kv: the key-value server; started by the launcher."""

from servers.kv import KvServer

KvServer.run()
