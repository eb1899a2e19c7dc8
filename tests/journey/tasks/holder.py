"""holder: keeps one file open and does with it what it is told, a word a line on standard input."""

from __future__ import annotations

import sys

from ukernel.abi.errors import Answer, CallError
from ukernel.abi.services import CREATE, FileSystem
from ukernel.lib import task
from ukernel.lib.memory import Region
from ukernel.lib.stub import connect, release


def main() -> None:
    fs = connect(FileSystem, "fs")
    bulk = Region(task.connection(), "bulk", 4096)
    path = sys.argv[1]
    held = fs.open(path, CREATE)
    size = 0
    print("open", flush=True)
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        try:
            if word == "append":
                bulk.view[: len(rest)] = rest.encode()
                size += held.write(size, bulk.show(0, len(rest)))
                print("done", flush=True)
            elif word == "read":
                count = held.read(0, bulk.lend(0, 4096))
                print(bytes(bulk.view[:count]).decode(), flush=True)
            elif word == "rename":
                fs.rename(path, rest)
                print("done", flush=True)
            elif word == "remove":
                fs.remove(rest)
                print("done", flush=True)
            elif word == "close":
                release(held)
                print("done", flush=True)
        except (Answer, CallError) as error:
            print(type(error).__name__, flush=True)


if __name__ == "__main__":
    main()
