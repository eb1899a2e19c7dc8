"""python -m launcher.bench.lone_keeper HOW ...: what keeps a lone echo server alive.

    subprocess ADDRESS   the plain loop: start it, wait for its end, start it again
    supervisord CONFIG   supervisord (PyPI: supervisor) in the foreground

SIGTERM ends it, and its server with it.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import NoReturn

from ukernel.lib.confine import live_under

SUPERVISORD = "supervisor.supervisord"


def command(address: str) -> list[str]:
    """The server, as either keeper starts it."""
    return [sys.executable, "-m", "launcher.bench.lone_echo", address]


def loop(address: str) -> NoReturn:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    while True:
        server = subprocess.Popen(command(address), stdin=subprocess.DEVNULL)
        try:
            server.wait()
        finally:
            server.kill()
            server.wait()


def supervisord(config: str) -> None:
    sys.argv = [SUPERVISORD, "--nodaemon", "--configuration", config]
    runpy.run_module(SUPERVISORD, run_name="__main__", alter_sys=True)


KEEPERS: dict[str, Callable[[str], None]] = {"subprocess": loop, "supervisord": supervisord}


def main() -> None:
    how, what = sys.argv[1:]
    live_under(os.getppid(), how, 0)
    KEEPERS[how](what)


if __name__ == "__main__":
    main()
