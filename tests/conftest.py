"""What every test may use: a runtime directory of its own that must be empty again at its end."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, settings

CONFIGS = Path(__file__).parent.parent / "configs"
TIMEOUT_S = 20.0  # of anything that must happen; nothing waits so long unless it is broken
DEATH_S = 1.0  # until the processes of a killed system are gone

Ukernel = Callable[..., subprocess.CompletedProcess[str]]


def processes_of(directory: Path) -> list[psutil.Process]:
    """Every process that has to do with the systems of this runtime directory, except us."""
    return [p for p in psutil.process_iter() if p.pid != os.getpid() and _mentions(p, directory)]


def _mentions(process: psutil.Process, directory: Path) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        known = [*process.cmdline(), process.cwd(), process.environ().get("XDG_RUNTIME_DIR", "")]
    except psutil.Error:
        return False
    return any(str(directory) in text for text in known)


def gone(processes: list[psutil.Process], timeout_s: float = DEATH_S) -> bool:
    """Wait for the end of all of them; whether it came in time. A zombie has ended."""
    deadline = time.monotonic() + timeout_s
    return all(_ended(process.pid, deadline) for process in processes)


def _ended(pid: int, deadline: float) -> bool:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0])
    finally:
        os.close(fd)


def until(look: Callable[[], Any]) -> Any:
    """Look again and again until there is something."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (found := look()):
        assert time.monotonic() < deadline
    return found


# Others have the processors too: how long an example takes says nothing about it.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


def pytest_configure(config: pytest.Config) -> None:
    """Where Python is told to keep no bytecode, the processes of the suite, workers of pytest among
    them, keep it among themselves: each of some thousand would compile the same files."""
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        kept, patch = tempfile.TemporaryDirectory(prefix="uk-bytecode-"), pytest.MonkeyPatch()
        patch.delenv("PYTHONDONTWRITEBYTECODE")
        patch.setenv("PYTHONPYCACHEPREFIX", kept.name)
        config.add_cleanup(patch.undo)
        config.add_cleanup(kept.cleanup)


@contextmanager
def own_runtime_dir() -> Iterator[Path]:
    """A short XDG_RUNTIME_DIR. When it is over, no process and no file of it may be left."""
    directory = Path(tempfile.mkdtemp(prefix="uk-", dir="/tmp"))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_RUNTIME_DIR", str(directory))
            yield directory
    finally:
        left = processes_of(directory)
        told = [f"{p.pid} {' '.join(p.cmdline())}" for p in left if p.is_running()]
        for process in left:
            process.kill()
        files = [str(path) for path in directory.rglob("*")]
        shutil.rmtree(directory)
    assert not told, "processes were left"
    assert not files, "files were left"


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    """An XDG_RUNTIME_DIR of the test's own, which must be empty again at its end."""
    with own_runtime_dir() as directory:
        yield directory


@pytest.fixture
def ukernel(runtime_dir: Path, tmp_path: Path) -> Ukernel:
    """Runs `ukernel ARGS` in `tmp_path`: `ukernel("ps", "--json")`, status=0 is expected."""
    return ukernel_in(tmp_path)


def ukernel_in(folder: Path) -> Ukernel:
    def run(*args: str, status: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "launcher.cli", *args],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def storage(ukernel: Ukernel, tmp_path: Path) -> Iterator[str]:
    """configs/storage.yaml, up on a fresh disk; its name."""
    image = f"disk0={tmp_path / 'disk.img'}"
    ukernel("up", str(CONFIGS / "storage.yaml"), "--detach", "--image", image)
    yield "storage"
    ukernel("down", "--all")


@pytest.fixture
def storage_kernel(ukernel: Ukernel, tmp_path: Path) -> Iterator[str]:
    """configs/storage-kernel.yaml, whose calls the kernel sees, up on a fresh disk; its name."""
    image = f"disk0={tmp_path / 'disk.img'}"
    ukernel("up", str(CONFIGS / "storage-kernel.yaml"), "--detach", "--image", image)
    yield "storage-kernel"
    ukernel("down", "--all")


@pytest.fixture
def minimal(ukernel: Ukernel) -> Iterator[str]:
    """configs/minimal.yaml, up; its name."""
    ukernel("up", str(CONFIGS / "minimal.yaml"), "--detach")
    yield "minimal"
    ukernel("down", "--all")


@pytest.fixture(scope="module")
def shared_minimal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """configs/minimal.yaml, up, for all tests of a module that leave it as it was: its runtime
    directory."""
    with own_runtime_dir() as directory:
        ukernel = ukernel_in(tmp_path_factory.mktemp("shared"))
        ukernel("up", str(CONFIGS / "minimal.yaml"), "--detach")
        yield directory
        ukernel("down", "--all")
