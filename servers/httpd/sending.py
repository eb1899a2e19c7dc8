"""sending: an answer on its way: some text, then bytes of a file, straight out of shared memory.

The file system puts a piece of a file into a window, and the network takes it from there. A window
is only a copy of what can be read again: when somebody else needs it, a slow reader loses it and
nothing more. So any number of slow readers together hold no more than the windows there are.
"""

from __future__ import annotations

from collections import OrderedDict

from servers.httpd.ranges import Span
from ukernel.abi.services import File
from ukernel.lib.memory import Region
from ukernel.lib.sockets import TcpStream, Window

ROOM = 1024  # bytes in front of a piece, for the head of an answer: both go in one call
PIECE = 128 * 1024  # bytes of a file in one window
LEAST = 16 * 1024  # bytes that a read asks for, if the file has them
WINDOWS = 16
REGION = WINDOWS * (ROOM + PIECE)


class FileChanged(Exception):
    """The file has become shorter than what was promised of it."""


class Piece:
    """Bytes `start` to `end` of somebody's file."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.start = self.end = 0

    @property
    def data(self) -> memoryview:
        return self.window.view[ROOM : ROOM + self.end - self.start]


class Pieces:
    """The windows, and whose pieces are in them."""

    def __init__(self, region: Region) -> None:
        size = ROOM + PIECE
        self._free = [Piece(Window(region, at * size, size)) for at in range(WINDOWS)]
        self._held: OrderedDict[int, Piece] = OrderedDict()  # by owner; who used it last is last

    def read(self, owner: int, file: File, start: int, most: int = PIECE) -> Piece:
        """Bytes from `start` of the owner's file: one at least, unless it ends there."""
        piece = self._held.get(owner)
        if piece is None or not piece.start <= start < piece.end:
            piece = self._window(owner)
            piece.start = piece.end = start
            piece.end += file.read(start, piece.window.lend(ROOM, most))
        self._held.move_to_end(owner)
        return piece

    def _window(self, owner: int) -> Piece:
        if owner not in self._held:
            self._held[owner] = (
                self._free.pop() if self._free else self._held.popitem(last=False)[1]
            )
        return self._held[owner]

    def let_go(self, owner: int) -> None:
        """This one has no file any more."""
        if piece := self._held.pop(owner, None):
            self._free.append(piece)


class Sending:
    """What is left to send of one answer."""

    def __init__(self, owner: int, text: bytes, file: File | None, span: Span) -> None:
        self._owner = owner
        self._text = memoryview(text)
        self._file = file
        self._at, self._end = span
        self._most = PIECE

    @property
    def done(self) -> bool:
        return not self._text and self._at >= self._end

    def push(self, stream: TcpStream, pieces: Pieces) -> bool:
        """Have some of it taken, a piece at most; whether there may be room for more. Raises
        FileChanged."""
        if self._file is None or self._at >= self._end or len(self._text) > ROOM:
            return self._push_text(stream)
        return self._push_piece(stream, self._file, pieces)

    def _push_text(self, stream: TcpStream) -> bool:
        window = stream.window
        count = min(len(self._text), window.length)
        window.view[:count] = self._text[:count]
        taken = stream.send(window.show(0, count))
        self._text = self._text[taken:]
        return taken == count

    def _push_piece(self, stream: TcpStream, file: File, pieces: Pieces) -> bool:
        """What is left of the text goes in front of the piece, over bytes that nobody needs."""
        piece = pieces.read(self._owner, file, self._at, min(self._most, self._end - self._at))
        count, lead = min(piece.end, self._end) - self._at, len(self._text)
        if count <= 0:
            raise FileChanged
        begin = ROOM + self._at - piece.start - lead
        piece.window.view[begin : begin + lead] = self._text
        taken = stream.send(piece.window.show(begin, lead + count))
        self._text = self._text[taken:]
        self._at += max(0, taken - lead)
        # Who takes little gets little: the rest would have to be read again if the window is lost
        self._most = max(LEAST, min(PIECE, 2 * taken))
        return taken == lead + count
