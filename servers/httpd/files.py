"""files: what there is under the root for a request, by asking the file system."""

from __future__ import annotations

from hashlib import blake2b
from http import HTTPStatus
from itertools import islice
from typing import NamedTuple

from servers.httpd.pages import MOST_ENTRIES, listing
from servers.httpd.replies import Document, Reply, Request, document, media_type, moved, page
from servers.httpd.replies import refusal as refuse
from servers.httpd.sending import PIECE, Pieces
from servers.httpd.shelf import Held, Shelf
from servers.httpd.target import Target
from ukernel.abi.errors import Answer, Overload, Unavailable
from ukernel.abi.services import (
    PAGE,
    BadName,
    Entry,
    File,
    FileSystem,
    IsADirectory,
    NoSuchFile,
    NotADirectory,
    StaleHandle,
)

TAG_BYTES = 12
ABSENT = (NoSuchFile, NotADirectory, BadName)  # a name that cannot be has no file either


class Found(NamedTuple):
    """A reply, and the file that its span is of; whoever gets it gives it back to the shelf."""

    reply: Reply
    held: Held | None = None


class Site:
    """The files below `root`, which is a directory of the file system."""

    def __init__(self, fs: FileSystem, shelf: Shelf, root: str, index: str, pieces: Pieces) -> None:
        self._fs = fs
        self._shelf = shelf
        self._root = root.rstrip("/")
        self._index = index  # is shown for its directory; empty: directories are listed
        self._pieces = pieces

    def find(self, owner: int, request: Request) -> Found:
        """What `owner` gets for a request. A small file is in its piece afterwards."""
        target = request.target
        try:
            if not target.directory and target.parts:
                try:
                    return self._file(owner, request, target.path)
                except IsADirectory:
                    return Found(moved(target))
            return self._directory(owner, request)
        except ABSENT:
            return Found(refuse(HTTPStatus.NOT_FOUND, "there is no such file"))
        except (Overload, Unavailable):
            return Found(refuse(HTTPStatus.SERVICE_UNAVAILABLE, "ask again later"))
        except Answer as error:
            return Found(refuse(HTTPStatus.INTERNAL_SERVER_ERROR, type(error).__name__))

    def _directory(self, owner: int, request: Request) -> Found:
        target = request.target
        if self._index:
            try:
                return self._file(owner, request, f"{target.path}/{self._index}")
            except (NoSuchFile, IsADirectory):
                pass
        return Found(page(self._listing(target)))

    def _listing(self, target: Target) -> bytes:
        path = self._root + target.path or "/"
        some: list[Entry] = []
        while len(some) <= MOST_ENTRIES:
            more = self._fs.entries(path, len(some))
            some += more
            if len(more) < PAGE:
                break
        return listing(target, islice(some, MOST_ENTRIES), len(some) > MOST_ENTRIES)

    def _file(self, owner: int, request: Request, path: str) -> Found:
        """An answer about the file at `path` below the root."""
        try:
            held, found = self._opened(owner, path)
        except StaleHandle:  # it was removed, or replaced, since somebody opened it
            held, found = self._opened(owner, path)
        reply = document(request, found)
        if request.method == "GET" and reply.span is not None and reply.length:
            return Found(reply, held)
        self._shelf.give_back(held)
        return Found(reply)

    def _opened(self, owner: int, path: str) -> tuple[Held, Document]:
        held = self._shelf.take(self._root + path)
        try:
            return held, self._described(owner, held.file, path)
        except BaseException:
            self._shelf.forget(held.path)
            self._shelf.give_back(held)
            raise

    def _described(self, owner: int, file: File, path: str) -> Document:
        """The first piece is read at once: if it is all, it tells the size and what the tag is."""
        self._pieces.let_go(owner)
        piece = self._pieces.read(owner, file, 0)
        if piece.end < PIECE:
            tag = blake2b(piece.data, digest_size=TAG_BYTES).hexdigest()
            return Document(piece.end, f'"{tag}"', media_type(path))
        return Document(file.stat().size, "", media_type(path))
