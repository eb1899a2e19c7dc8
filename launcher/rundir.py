"""rundir: where a running system lives: `BASE/NAME`, mode 0700, held by a lock while it runs.

BASE is `$XDG_RUNTIME_DIR/ukernel`, or `/tmp/ukernel-UID` without one. A directory whose lock is
free belongs to a system that was killed; it is swept away by whoever meets it. Directories come
and go only while BASE itself is locked, so nobody sweeps away what another has just begun.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

CONTROL = "control"  # the socket of a running system, in its directory
LOCK = "lock"
ADDRESS_LIMIT = 107  # bytes of a Unix socket's path, sockaddr_un(7)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
LONGEST_SOCKET = len("/.sock") + 32  # a console's, named like its device


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
        if len(str(self.path)) > ADDRESS_LIMIT - LONGEST_SOCKET:
            raise RunDirError(
                f"{self.path} is too long for a socket: use a shorter --system name or "
                "XDG_RUNTIME_DIR"
            )
        with _exclusive():
            self._claim()
        (self.path / "logs").mkdir(mode=0o700)

    def _claim(self) -> None:
        if _is_locked(self.path / LOCK):
            raise RunDirError(
                f"system {self.system} is running: stop it with `ukernel down --system "
                f"{self.system}`, or start this one with another --system NAME"
            )
        if self.path.exists():
            shutil.rmtree(self.path)
        self.path.mkdir(mode=0o700)
        self._lock = os.open(self.path / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def log(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"

    def share_log(self, name: str, other: str) -> None:
        """What `name` writes is found under `other` too: they share a process."""
        with contextlib.suppress(OSError):  # it is there already, or the host has no room
            self.log(other).symlink_to(self.log(name).name)

    @contextlib.contextmanager
    def appending(self, name: str) -> Iterator[int]:
        """A descriptor that appends to a log; to nothing, on a host that has no room for one."""
        flags = os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC
        try:
            fd = os.open(self.log(name), flags, 0o600)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)

    def remove(self) -> None:
        """Take it all away, and the base too when this was the last system. Once is enough."""
        if self._lock < 0:
            return
        with _exclusive() as top:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1
            _remove_if_empty(top)


def running() -> list[str]:
    """Names of the systems that run; what dead ones left is removed."""
    found = []
    with _exclusive() as top:
        for path in sorted(top.iterdir()):
            if _is_locked(path / LOCK):
                found.append(path.name)
            else:
                shutil.rmtree(path, ignore_errors=True)
        _remove_if_empty(top)
    return found


def discard(path: Path, fd: int) -> None:
    """Remove the directory of a system that is over: the one open as `fd`, and no successor's."""
    with _exclusive() as top:
        if _is_still(path, fd):
            shutil.rmtree(path, ignore_errors=True)
        _remove_if_empty(top)


@contextlib.contextmanager
def _exclusive() -> Iterator[Path]:
    """The base directory, while nobody else makes or removes anything in it."""
    top, fd = _locked_base()
    try:
        yield top
    finally:
        os.close(fd)


def _locked_base() -> tuple[Path, int]:
    while True:
        top = base()
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile, with the last system
            fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if _is_still(top, fd):
                return top, fd
            os.close(fd)


def _is_still(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _remove_if_empty(top: Path) -> None:
    with contextlib.suppress(OSError):  # another system is there
        top.rmdir()


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
