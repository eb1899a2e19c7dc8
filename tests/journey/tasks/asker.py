"""asker: has each word that it reads echoed, and says in hex what came back, or what came instead.

asker SECONDS    how long it waits for an answer
"""

import sys

from ukernel.abi.errors import CallError
from ukernel.abi.services import Echo
from ukernel.lib.stub import connect

echo = connect(Echo, "echo", timeout_s=float(sys.argv[1]))
for line in sys.stdin:
    try:
        print(echo.echo(bytes.fromhex(line)).hex(), flush=True)
    except CallError as error:
        print(type(error).__name__, flush=True)
