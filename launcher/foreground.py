"""foreground: one system from boot to end, as `ukernel up` runs it.

Signals never interrupt what is being done: they are seen where `System.pump` waits, and once. So
a second Ctrl-C cannot stop an orderly end half way.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from launcher import vitals
from launcher.commands.common import show_table
from launcher.config import SystemFile
from launcher.control import Control
from launcher.kernel import SystemDown
from launcher.system import BootError, System
from launcher.tasks import Stages
from ukernel.abi import syscalls

DONE, NOT_UP, UNKNOWN = 0, 1, 3  # exit status
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PUMP_S = 1.0
MOST_BOOTS, WITHIN_S = 5, 60.0  # of a system that reboots: more is no use
LAUNCHER = "launcher"  # its log, when nobody looks at its output


class StopRequested(Exception):
    """A signal asked for the end."""


class StopSignals:
    """Inside, SIGINT, SIGTERM and SIGHUP do nothing but wake a selector that `armed` watches."""

    def __enter__(self) -> StopSignals:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self._old = [signal.signal(signo, lambda *_: None) for signo in STOP_SIGNALS]
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *raised: object) -> None:
        signal.set_wakeup_fd(-1)
        for signo, handler in zip(STOP_SIGNALS, self._old, strict=True):
            signal.signal(signo, handler)
        self._read.close()
        self._write.close()

    @contextlib.contextmanager
    def armed(self, selector: selectors.BaseSelector) -> Iterator[None]:
        """Inside, a signal raises StopRequested out of the selector's callbacks."""
        selector.register(self._read, selectors.EVENT_READ, self._stop)
        try:
            yield
        finally:
            selector.unregister(self._read)

    def _stop(self) -> None:
        signo = self._read.recv(1)[0]
        if signo in STOP_SIGNALS:
            raise StopRequested(signal.Signals(signo).name)


class Reporter:
    """Prints what happens in a running system, a line each."""

    def __init__(self) -> None:
        self.system: System | None = None  # nothing is told before the boot table

    def tell(self, kind: str, who: str, text: str) -> None:
        if self.system is None:
            return
        stages = self._recovery(self.system, who)
        if kind == syscalls.EVENT_SERVING:
            if stages is None:
                return
            text = f"the outage was {stages.outage_ms:.1f} ms"
        elif kind == syscalls.EVENT_READY:
            text = "a new life" if stages is not None else ""
        now = time.time()
        clock = f"{time.strftime('%H:%M:%S', time.localtime(now))}.{int(now * 1000) % 1000:03}"
        self.say(f"{clock} {who} {kind}{': ' if text else ''}{text}")

    def _recovery(self, system: System, who: str) -> Stages | None:
        """The recovery that made this life, if a death did."""
        name, _, life = who.partition("#")
        every = reversed(system.recoveries)
        return next((s for s in every if s.server == name and f"{s.life + 1}" == life), None)

    def say(self, line: str) -> None:
        """Print a line; when nobody reads them any more, the system runs on in silence."""
        try:
            print(line, flush=True)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def run(
    file: SystemFile, name: str, images: dict[str, Path], for_s: float | None, ready_fd: int
) -> int:
    """Boot, serve until somebody asks for the end, leave nothing. The exit status.

    A system whose file says `on_kernel_death: reboot` is booted again when its kernel or its
    machine has died, until that happens too often.
    """
    end_s = time.monotonic() + for_s if for_s is not None else float("inf")
    boots: deque[float] = deque(maxlen=MOST_BOOTS)
    with StopSignals() as signals:
        while True:
            boots.append(time.monotonic())
            system = System(file, name=name, images=images)
            try:
                return _live(system, signals, end_s, ready_fd)
            except SystemDown as error:
                again = file.manifest.on_kernel_death == "reboot" and error.may_reboot
                if not again or _too_often(boots):
                    return UNKNOWN
                print(f"{system.name}: booting again", flush=True)
                ready_fd = -1 if system.boot_ms else ready_fd  # who waits for it has been told


def _live(system: System, signals: StopSignals, end_s: float, ready_fd: int) -> int:
    """One boot, from begin to end. Raises SystemDown when its kernel or its machine has died."""
    reporter = Reporter()
    system.tell = reporter.tell
    with closing(Control(system)) as control, system, signals.armed(system.selector):
        try:
            system.boot()
            with control.serving():
                _show_boot(reporter, system)
                _announce(system, ready_fd)
                _serve(control, end_s)
        except StopRequested as request:
            reporter.say(f"{system.name}: {request}: going down")
            return DONE if system.boot_ms else NOT_UP
        except BootError as error:
            return _complain(str(error), NOT_UP)
        except SystemDown as error:
            _complain(f"{system.name}: {error}{_last_words(system)}", UNKNOWN)
            raise
        except ConnectionError as error:
            return _complain(f"{system.name}: {error}{_last_words(system)}", UNKNOWN)
    return DONE


def _too_often(boots: deque[float]) -> bool:
    return len(boots) == MOST_BOOTS and time.monotonic() - boots[0] < WITHIN_S


def _serve(control: Control, end_s: float) -> None:
    while not control.stop_requested and (left_s := end_s - time.monotonic()) > 0:
        control.system.pump(min(PUMP_S, left_s))


def _show_boot(reporter: Reporter, system: System) -> None:
    """The boot table: when each server was begun, and how long it took."""
    slots = [row for row in system.slots().values() if row.ready_ns]
    start_ns = min((row.begun_ns for row in slots), default=0)
    columns = ["SERVER", "PID", "BEGUN AT ms", "PROCESS ms", "SETUP ms", "READY AT ms"]
    rows = [
        [
            row.name,
            row.pid,
            (row.begun_ns - start_ns) / 1e6,
            (row.hello_ns - row.begun_ns) / 1e6,
            (row.ready_ns - row.hello_ns) / 1e6,
            (row.ready_ns - start_ns) / 1e6,
        ]
        for row in slots
    ]
    with contextlib.suppress(BrokenPipeError):
        show_table(columns, rows)
    count = f"{len(slots)} tasks READY in {system.boot_ms:.0f} ms"
    reporter.say(f"{system.name} is up: {count} (launcher {os.getpid()})")
    reporter.system = system


def _announce(system: System, ready_fd: int) -> None:
    """Let go of the terminal of who started us, and tell that all are READY."""
    if ready_fd < 0:
        return
    log = os.open(system.run.log(LAUNCHER), os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    for stream in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(log, stream)
    os.close(log)
    os.write(ready_fd, b"\1")
    os.close(ready_fd)


def _last_words(system: System) -> str:
    return "".join(f"\n  {line}" for line in vitals.tail(system.run.log("kernel")))


def _complain(text: str, status: int) -> int:
    with contextlib.suppress(OSError):
        print(f"ukernel: {text}", file=sys.stderr, flush=True)
    return status
