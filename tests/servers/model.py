"""model: what a Volume must look like from outside, as a dict; and how to compare the two."""

from __future__ import annotations

from servers.fs.paths import is_under, parents
from servers.fs.volume import Volume
from ukernel.abi.services import (
    DIRECTORY,
    FILE,
    PAGE,
    AlreadyExists,
    BadName,
    Entry,
    IsADirectory,
    NoSuchFile,
    NotADirectory,
    NotEmpty,
    Stat,
)

Tree = dict[str, bytes | None]  # None: a directory. The root is not listed.


class Model:
    """The operations of Volume, on a dict."""

    def __init__(self, tree: Tree | None = None) -> None:
        self.tree: Tree = dict(tree or {})

    def create(self, path: str, truncate: bool) -> None:
        self._above(path)
        if path in self.tree:
            content = self._content(path)
            self.tree[path] = b"" if truncate else content
        else:
            self.tree[path] = b""

    def read(self, path: str, offset: int, length: int) -> bytes:
        return self._content(path)[offset : offset + length]

    def write(self, path: str, offset: int, data: bytes) -> int:
        content = self._content(path)
        if data:
            padded = content.ljust(offset, b"\0")
            self.tree[path] = padded[:offset] + data + padded[offset + len(data) :]
        return len(data)

    def truncate(self, path: str, size: int) -> None:
        self.tree[path] = self._content(path)[:size].ljust(size, b"\0")

    def stat(self, path: str) -> Stat:
        content = self._look(path)
        return Stat(DIRECTORY, 0) if content is None else Stat(FILE, len(content))

    def mkdir(self, path: str) -> None:
        for above in parents(path):
            if self.tree.setdefault(above, None) is not None:
                raise NotADirectory(above)
        if self.tree.setdefault(path, None) is not None:
            raise AlreadyExists(path)

    def entries(self, path: str, start: int) -> list[Entry]:
        if self._look(path) is not None:
            raise NotADirectory(path)
        return [Entry(p.rsplit("/", 1)[1], *self.stat(p)) for p in self._inside(path)][
            start : start + PAGE
        ]

    def rename(self, old: str, new: str) -> None:
        if old != new and is_under(new, old):
            raise BadName(new)
        moved = self._look(old)
        self._above(new)
        if new in self.tree and old != new:
            self._check_replaceable(new, moved)
        items = self.tree.items()
        inside = {new + p[len(old) :]: content for p, content in items if is_under(p, old)}
        rest = {p: content for p, content in items if not is_under(p, old)}
        self.tree = rest | inside

    def remove(self, path: str) -> None:
        if self._look(path) is None and self._inside(path):
            raise NotEmpty(path)
        del self.tree[path]

    def _check_replaceable(self, new: str, moved: bytes | None) -> None:
        replaced = self.tree[new]
        if replaced is None and moved is not None:
            raise IsADirectory(new)
        if replaced is not None and moved is None:
            raise NotADirectory(new)
        if self._inside(new):
            raise NotEmpty(new)

    def _above(self, path: str) -> None:
        for above in parents(path):
            if self.tree.get(above, b"") is not None:
                raise NotADirectory(path) if above in self.tree else NoSuchFile(path)

    def _look(self, path: str) -> bytes | None:
        self._above(path)
        if path != "/" and path not in self.tree:
            raise NoSuchFile(path)
        return self.tree.get(path)

    def _content(self, path: str) -> bytes:
        content = self._look(path)
        if content is None:
            raise IsADirectory(path)
        return content

    def _inside(self, path: str) -> list[str]:
        above = path.rstrip("/") + "/"
        return sorted(p for p in self.tree if p.startswith(above) and "/" not in p[len(above) :])


def tree_of(volume: Volume, path: str = "/") -> Tree:
    """Everything on the volume, read back; what `stat` and `entries` say must agree with it."""
    tree: Tree = {}
    start = 0
    while page := volume.entries(path, start):
        start += len(page)
        for entry in page:
            inner = f"{path.rstrip('/')}/{entry.name}"
            assert volume.stat(inner) == Stat(entry.kind, entry.size)
            if entry.kind == DIRECTORY:
                tree |= {inner: None} | tree_of(volume, inner)
            else:
                tree[inner] = volume.read(inner, 0, entry.size + 1)
                assert len(tree[inner] or b"") == entry.size
    return tree
