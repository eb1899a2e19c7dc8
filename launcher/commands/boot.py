"""boot: `ukernel up`: bring a system up, tell what happens in it, take it down.

Exit status: 0 after Ctrl-C, SIGTERM, `ukernel down` or the end of --for; 1 when it did not come
up; 2 when the system file or an option is wrong; 3 when its kernel or its machine died.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.client import Refused
from launcher.commands.common import finish
from launcher.commands.reference import Config

if TYPE_CHECKING:
    from launcher.config import SystemFile

UNKNOWN = 3


def up(
    config: Config,
    detach: Annotated[bool, typer.Option("--detach", help="Return once all are READY.")] = False,
    for_s: Annotated[
        float | None, typer.Option("--for", metavar="SECONDS", min=0, help="Then stop.")
    ] = None,
    name: Annotated[
        str, typer.Option("--system", metavar="NAME", help="Instead of the name in the file.")
    ] = "",
    image: Annotated[
        list[str] | None,
        typer.Option(metavar="DEVICE=PATH", help="The image of a disk, instead of the file's."),
    ] = None,
    placement: Annotated[
        str, typer.Option(metavar="micro|hybrid|mono", help="Who shares a process.")
    ] = "",
    ready_fd: Annotated[int, typer.Option(hidden=True)] = -1,
) -> None:
    """Boot a system and tell what happens in it, until Ctrl-C."""
    if detach:
        finish(_in_background(config, for_s, name, image or [], placement))
        return
    from launcher.config import load, placed
    from launcher.foreground import run
    from launcher.placement import PLACEMENTS
    from ukernel.abi.manifest import NAME_PATTERN

    if name and not re.fullmatch(NAME_PATTERN, name):
        raise Refused(f"--system {name}: a name is a letter, then up to 31 of a-z, 0-9 and '-'", 2)
    if placement and placement not in PLACEMENTS:
        raise Refused(f"--placement {placement}: it is one of {', '.join(PLACEMENTS)}", 2)
    file = placed(load(config), placement)
    images = dict(_image(entry) for entry in image or [])
    for device in images:
        _check_disk(file, device)
    finish(run(file, name, images, for_s, ready_fd))


def _image(entry: str) -> tuple[str, Path]:
    device, equals, path = entry.partition("=")
    if not (device and equals and path):
        raise Refused(f"--image {entry}: write it as DEVICE=PATH", 2)
    return device, Path(path).absolute()


def _check_disk(file: SystemFile, device: str) -> None:
    """Refuse an image for what is not a disk of this system."""
    try:
        file.image_path(device)
    except LookupError as error:
        raise Refused(str(error), 2) from None


def _in_background(
    config: Path, for_s: float | None, name: str, images: list[str], placement: str
) -> int:
    """Run the same command in a session of its own; its status if it ends before it is READY.

    It has our standard output and error until it is READY, so its boot table and its errors are
    seen here; afterwards it writes to its log.
    """
    words = ["up", str(config), "--system", name, *(w for i in images for w in ("--image", i))]
    words += ["--for", str(for_s)] if for_s is not None else []
    words += ["--placement", placement] if placement else []
    ready, tell = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-m", "launcher.cli", *words, "--ready-fd", str(tell)],
        pass_fds=[tell],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(tell)
    try:
        if os.read(ready, 1):
            return 0
    except KeyboardInterrupt:
        child.send_signal(signal.SIGTERM)
        child.wait()
        raise
    status = child.wait()
    return status if status >= 0 else UNKNOWN
