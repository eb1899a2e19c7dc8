"""pytcp: PyTCP in a virtual environment of its own, installed when the bench first needs it.

It is under the GPL, and nothing of ours depends on it: it is only ever run beside us.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from launcher.bench import host

PACKAGE, VERSION = "pmd-pytcp", "0.3.8"
PATIENCE_S = 120.0


class CannotInstall(Exception):
    """It is not there and cannot be had; the text says why."""


def home() -> Path:
    """In the checkout what `make clean` removes, else where caches are."""
    if (host.PROJECT / "pyproject.toml").exists():
        return host.PROJECT / "build" / "bench" / f"{PACKAGE}-{VERSION}"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "ukernel" / f"{PACKAGE}-{VERSION}"


def python(folder: Path, progress: Callable[[str], None]) -> Path:
    """The interpreter that has it. Raises CannotInstall."""
    interpreter, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        progress(f"installing {PACKAGE} {VERSION} into {folder}")
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, f"{PACKAGE}=={VERSION}"])
        done.touch()
    return interpreter


def _run(argv: list[str]) -> None:
    try:
        with tempfile.TemporaryDirectory() as scratch:  # pip leaves its own when it is interrupted
            subprocess.run(
                argv,
                capture_output=True,
                text=True,
                check=True,
                timeout=PATIENCE_S,
                env=os.environ | {"TMPDIR": scratch},
            )
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines()
        raise CannotInstall(said[-1] if said else f"{argv[0]} failed") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotInstall(str(error)) from None
