"""paths: an absolute path, parts divided by `/`, with exactly one spelling per file.

One spelling matters: open files and handles are found by path. Hence no `.`, `..`, `//` or final
slash; the root is `/`.
"""

from __future__ import annotations

from ukernel.abi.services import BadName

ROOT = "/"
LONGEST_PART = 255  # bytes of UTF-8
LONGEST_PATH = 1024  # bytes of UTF-8, so that a handle's record has a bound


def check_path(path: str) -> None:
    """Raise BadName, saying what is wrong, unless `path` can name a file or directory here."""
    if path == ROOT:
        return
    if not path.startswith("/"):
        raise BadName(f"{path!r} is not absolute: begin it with /")
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise BadName(f"{path!r} is not Unicode text") from None
    if size > LONGEST_PATH:
        raise BadName(f"{path[:32]!r}... has {size} bytes, at most {LONGEST_PATH}")
    for part in path[1:].split("/"):
        _check_part(path, part)


def parents(path: str) -> list[str]:
    """The directories above `path`, the topmost first, without the root."""
    parts = path[1:].split("/")
    return ["/" + "/".join(parts[:count]) for count in range(1, len(parts))]


def is_under(path: str, directory: str) -> bool:
    """Whether `path` is `directory` or lies somewhere below it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _check_part(path: str, part: str) -> None:
    if part in ("", ".", ".."):
        raise BadName(f"{path!r} has a part {part!r}: write each file's one full path")
    if "\0" in part:
        raise BadName(f"{path!r} contains a zero byte")
    if len(part.encode()) > LONGEST_PART:
        raise BadName(f"{part[:32]!r}... is longer than {LONGEST_PART} bytes")
