"""python -m launcher.bench.peers PEER ROLE ADDRESS CORE WHAT: one process of a peer.

WHAT is the job of a client, the fault of a server, or nothing. A process waits for a line on
stdin, sets itself up, says a line, and dies with its parent. A client's line is its Run.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
from importlib import import_module

from launcher.bench.answers import answering
from launcher.bench.job import Job, carry_out
from launcher.bench.paths import PATHS
from launcher.bench.peers import Peer

PR_SET_PDEATHSIG = 1


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    name, role, address, core, what = sys.argv[1:]
    peer: Peer = import_module(f"launcher.bench.peers.{PATHS[name].module}").PEERS[name]
    if not sys.stdin.readline():
        return  # the parent died before it could be noticed
    os.sched_setaffinity(0, {int(core)})  # before there is any other thread
    gc.freeze()
    if role == "broker" and peer.broker is not None:
        peer.broker(address)
    if role == "server" and peer.server is not None:
        peer.server(address, answering(peer.packed, what))
    run = carry_out(Job.parsed(what), peer.client(address))
    print(run.dump(), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
