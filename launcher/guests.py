"""guests: what a virtual machine may run: programs that come with the system, and files."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

FOLDER = ("vmm", "guests")  # in the package of the servers, which is not imported here
SUFFIX = ".elf"


def built_in() -> dict[str, Path]:
    """The guests that come with the system, by name."""
    spec = find_spec("servers")
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    files = [file for place in places for file in Path(place, *FOLDER).glob(f"*{SUFFIX}")]
    return {file.stem: file for file in sorted(files)}


def guest_file(image: str, directory: Path) -> Path:
    """The file that `image` means: a guest by its name, with its suffix or without, or a path,
    relative to `directory`. It need not exist."""
    known = built_in() if "/" not in image else {}
    return known.get(image.removesuffix(SUFFIX)) or directory / image
