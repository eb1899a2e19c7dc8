"""cables: what of the host a machine's network cards are plugged into, opened for each life of it.

The machine gives up its privileges before it does anything, so the launcher opens TAP interfaces
and hands over their descriptors. It keeps none: they end with the machine, and so does the holder
of each namespace, whose line the machine has.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from launcher import tap
from launcher.config import SystemFile
from ukernel.abi.manifest import VirtioNet

HOLDER = "netns"  # the file RUN_DIR/DEVICE.netns has the pid of the holder of its namespace
IN_NAMESPACE = "tap0"
Given = list[tuple[str, int]]  # a card's name, and a descriptor
MESSAGE = 4096  # bytes of what a holder says


class CableError(OSError):
    """A card cannot be plugged in; the text names it and says what is missing and what to do."""


class Cables:
    """Those of one system that lead into the host."""

    def __init__(self, file: SystemFile, run_dir: Path) -> None:
        self._file = file
        self._run_dir = run_dir
        self._holders: dict[str, subprocess.Popen[bytes]] = {}

    @contextlib.contextmanager
    def opened(self) -> Iterator[Given]:
        """Descriptors for one life of the machine: the card's name and its TAP interface, or no
        name and something to be kept open. They are closed here at the end. Raises CableError."""
        self.close()
        with ExitStack() as stack:
            given: Given = []
            for device, card in self._file.manifest.hardware.items():
                if isinstance(card, VirtioNet) and card.backend in ("tap", "userns"):
                    given += self._open(device, card, stack)
            yield given

    def close(self) -> None:
        """The machine is gone: so are the holders."""
        for device, holder in self._holders.items():
            holder.kill()
            holder.wait()
            (self._run_dir / f"{device}.{HOLDER}").unlink(missing_ok=True)
        self._holders.clear()

    def _open(self, device: str, card: VirtioNet, stack: ExitStack) -> Given:
        try:
            if card.backend == "userns":
                return self._in_namespace(device, card, stack)
            interface = card.interface or ""
            fd = tap.opened(interface)
            stack.callback(os.close, fd)
            if card.host_address is not None:
                tap.configure(interface, card.host_address, card.mtu)
        except tap.TapError as error:
            where = self._file.where("hardware", device)
            raise CableError(f"{where}: hardware.{device}: {error}") from None
        return [(device, fd)]

    def _in_namespace(self, device: str, card: VirtioNet, stack: ExitStack) -> Given:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.callback(ours.close)
        with theirs:
            holder = self._holders[device] = subprocess.Popen(
                [sys.executable, "-I", "-S", tap.__file__, str(theirs.fileno()), str(os.getpid()),
                 card.interface or IN_NAMESPACE, card.host_address or "", str(card.mtu)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={},
            )  # fmt: skip
        said, fds, _, _ = socket.recv_fds(ours, MESSAGE, 1)
        if not fds:
            raise tap.TapError(said.decode() or "the holder of its namespace has ended")
        stack.callback(os.close, fds[0])
        os.set_inheritable(fds[0], False)
        (self._run_dir / f"{device}.{HOLDER}").write_text(f"{holder.pid}\n")
        return [(device, fds[0]), ("", ours.fileno())]


def holder(run_dir: Path, device: str) -> int:
    """The process that holds the namespace of a card with `backend: userns`. Raises LookupError
    when there is none."""
    try:
        pid = int((run_dir / f"{device}.{HOLDER}").read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        raise LookupError(f"{device} has no network namespace: set backend: userns") from None
    return pid


def namespaces(run_dir: Path) -> dict[str, int]:
    """The holders of all namespaces of a running system, by card."""
    found = {}
    for path in sorted(run_dir.glob(f"*.{HOLDER}")):
        with contextlib.suppress(LookupError):
            found[path.stem] = holder(run_dir, path.stem)
    return found


def inside(pid: int, argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` in the namespace of this holder, with nsenter(1)."""
    return ["nsenter", f"--target={pid}", "--user", "--preserve-credentials", "--net", "--", *argv]
