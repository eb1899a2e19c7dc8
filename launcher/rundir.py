"""rundir: where a running system lives: `BASE/NAME`, mode 0700, held by a lock while it runs.

BASE is `$XDG_RUNTIME_DIR/ukernel`, or `/tmp/ukernel-UID` without one. A directory whose lock is
free belongs to a system that was killed; it is swept away by whoever meets it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from pathlib import Path

ADDRESS_LIMIT = 107  # bytes of a Unix socket's path, sockaddr_un(7)


class RunDirError(Exception):
    """The run directory cannot be had; the text says who has it and what to do."""


def base() -> Path:
    """The directory of all systems of this user; made safe for this user alone."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(runtime) / "ukernel" if runtime else Path(f"/tmp/ukernel-{os.getuid()}")
    path.mkdir(mode=0o700, parents=bool(runtime), exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise RunDirError(f"{path} is not a directory of yours: remove it or set XDG_RUNTIME_DIR")
    path.chmod(0o700)
    return path


class RunDir:
    """The run directory of one system, locked for as long as this object is open."""

    def __init__(self, system: str) -> None:
        self.system = system
        self.path = base() / system
        if len(str(self.path / "control")) > ADDRESS_LIMIT:
            raise RunDirError(
                f"{self.path} is too long for a socket: use a shorter --system name or "
                "XDG_RUNTIME_DIR"
            )
        self.path.mkdir(mode=0o700, exist_ok=True)
        self._lock = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise RunDirError(
                f"system {system} is running: stop it with `ukernel down --system {system}`, or "
                "start this one with another --system NAME"
            ) from None
        self._empty()
        (self.path / "logs").mkdir(mode=0o700)

    def _empty(self) -> None:
        for entry in self.path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != "lock":
                entry.unlink()

    def log(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"

    def remove(self) -> None:
        """Take it all away, and the base too when this was the last system."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        try:
            self.path.parent.rmdir()
        except OSError:  # another system is there
            return


def running() -> list[str]:
    """Names of the systems that run; what dead ones left is removed."""
    found = []
    top = base()
    for path in sorted(top.iterdir()):
        if _is_locked(path / "lock"):
            found.append(path.name)
        else:
            shutil.rmtree(path, ignore_errors=True)
    if not found:
        top.rmdir()
    return found


def _is_locked(lock: Path) -> bool:
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
