"""world: systems booted in this process, for tests that follow them from boot to end."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher.config import load
from launcher.system import System
from launcher.tasks import Task

CONFIGS = Path(__file__).parent.parent.parent / "configs"


@contextmanager
def booted(image: Path, config: Path = CONFIGS / "storage.yaml") -> Iterator[System]:
    """A storage system on `image`, READY."""
    with System(load(config), images={"disk0": image}) as system:
        system.boot()
        yield system


def wait_for(system: System, come: Callable[[], bool], patience_s: float = 1.0) -> None:
    """Let the system go on until `come()`; what never comes ends in the suite's own time limit."""
    while not come():
        system.pump(patience_s)


def sources(folder: Path, names: list[str], seed: int) -> dict[str, Path]:
    """Files of seeded bytes in `folder`, by the path that they are to have inside."""
    rng = random.Random(seed)
    folder.mkdir(exist_ok=True)
    found = {}
    for name in names:
        found[f"/{name}"] = folder / name
        found[f"/{name}"].write_bytes(rng.randbytes(rng.choice((300, 5_000, 40_000, 200_000))))
    return found


class Pipes:
    """A demand task of a system with pipes for its standard streams: `say` a line, `hear` one."""

    def __init__(self, system: System, name: str, argv: list[str]) -> None:
        self.system = system
        theirs_in, self._in = os.pipe()
        self._out, theirs_out = os.pipe()
        self.task: Task = system.run_task(name, argv, (theirs_in, theirs_out, 2))
        os.close(theirs_in)
        os.close(theirs_out)
        os.set_blocking(self._out, False)
        self._heard = b""

    def hear(self) -> str:
        """The next line that it prints, while the system goes on."""
        while b"\n" not in self._heard:
            try:
                chunk = os.read(self._out, 65536)
            except BlockingIOError:
                self.system.pump(0.01)
                continue
            assert chunk, "it has ended"
            self._heard += chunk
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode()

    def ask(self, line: str) -> str:
        os.write(self._in, line.encode() + b"\n")
        return self.hear()

    def close(self) -> None:
        """End of its input: it leaves."""
        os.close(self._in)
        wait_for(self.system, lambda: self.task.process is None)
        os.close(self._out)
