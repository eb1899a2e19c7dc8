"""recorder: a task's flight recorder: the request in its hands, where its death cannot lose it.

One page of memory for each slot, shared by the launcher and the life of the day. The server notes
each request before it handles it and strikes it out afterwards. After a death the launcher reads
which request was in hand; of a second death by the same one it notes it here as poison, and no
later life handles it. The kernel has no part in this.

    0       8      16      24     28    30                     4096      4104
    number  badge  length  -      op    body, its first bytes  poisoned  digests of 16 bytes, ...
    u64     u64    u64     u32    u16                          u64

Behind them, in the same way, the suspects: one life has died of each; then the `tally`.
"""

from __future__ import annotations

import struct
from _blake2 import blake2b  # hashlib would load OpenSSL, see `interface`
from typing import NamedTuple

NOTE = struct.Struct("<QQQIH")  # number (written last), badge, length of the body, -, opcode
BODY = NOTE.size
_pack_rest = struct.Struct("<QQIH").pack_into  # behind the number
MOST_BODY = 4096 - BODY  # bytes of a body that are kept
POISONED = 4096
DIGESTS = POISONED + 8
DIGEST = 16
MOST_POISON = 64
SUSPECTS = DIGESTS + MOST_POISON * DIGEST  # a second table, of requests that one life died of
ACQUITTED = bytes(DIGEST)
TALLY = -(-(SUSPECTS + 8 + MOST_POISON * DIGEST) // 64) * 64  # where the `tally` begins
SIZE = 8192


class Note(NamedTuple):
    """A request as it was taken. `number` is the kernel's for the call."""

    number: int
    badge: int
    opcode: int
    length: int
    body: bytes  # at most MOST_BODY of it

    @property
    def whole(self) -> bool:
        return len(self.body) == self.length

    @property
    def digest(self) -> bytes:
        """What the same request said again has in common with this one."""
        head = NOTE.pack(0, self.badge, self.length, 0, self.opcode)
        return blake2b(head + self.body, digest_size=DIGEST).digest()


class Recorder:
    """The page, from either side."""

    def __init__(self, page: memoryview) -> None:
        self._page = page
        self._word = page[:8].cast("Q")
        self._poisoned = page[POISONED:DIGESTS].cast("Q")
        self._suspected = page[SUSPECTS : SUSPECTS + 8].cast("Q")

    # --- the server's side ----------------------------------------------------------------------

    def take(self, number: int, badge: int, opcode: int, body: bytes) -> bool:
        """This request is in hand, and none was. Whether any is known to be poison."""
        length, page = len(body), self._page
        if length > MOST_BODY:
            body = body[:MOST_BODY]
        page[BODY : BODY + len(body)] = body
        _pack_rest(page, 8, badge, length, 0, opcode)
        self._word[0] = number  # half a note is none
        poisoned: bool = self._poisoned[0] > 0
        return poisoned

    def done(self) -> None:
        """Nothing is in hand; whoever lives to say so did not die of what was."""
        if self._suspected[0]:
            self._acquit()
        self._word[0] = 0

    def drop(self) -> None:
        """Nothing is in hand, and nothing is known of what was."""
        self._word[0] = 0

    def _acquit(self) -> None:
        note, suspects = self.note(), self.suspects()
        if note is not None and note.digest in suspects:
            at = SUSPECTS + 8 + suspects.index(note.digest) * DIGEST
            self._page[at : at + DIGEST] = ACQUITTED

    def in_hand_is_poison(self) -> bool:
        """Whether two lives died of the request that is in hand."""
        note = self.note()
        return note is not None and note.digest in self.poison()

    # --- the launcher's side --------------------------------------------------------------------

    def note(self) -> Note | None:
        """The request in hand, if there is one."""
        number, badge, length, _, opcode = NOTE.unpack_from(self._page)
        body = bytes(self._page[BODY : BODY + min(length, MOST_BODY)])
        return Note(number, badge, opcode, length, body) if number else None

    def in_hand(self) -> tuple[int, ...]:
        """What hardly another request has in common with the one in hand; () for none."""
        note = NOTE.unpack_from(self._page)
        return note if note[0] else ()

    def poison(self) -> list[bytes]:
        """Digests of the requests that nobody is to handle."""
        return self._table(POISONED, self._poisoned[0])

    def set_poison(self, digests: list[bytes]) -> None:
        """These and no others; the latest when there are too many."""
        self._set_table(POISONED, self._poisoned, digests)

    def suspects(self) -> list[bytes]:
        """Digests of the requests that a life died of; ACQUITTED in the place of one that a later
        life has handled and lived."""
        return self._table(SUSPECTS, self._suspected[0])

    def set_suspects(self, digests: list[bytes]) -> None:
        """As `set_poison`."""
        self._set_table(SUSPECTS, self._suspected, digests)

    def _table(self, at: int, length: int) -> list[bytes]:
        count, first = min(length, MOST_POISON), at + 8
        ends = range(first, first + count * DIGEST, DIGEST)
        return [bytes(self._page[at : at + DIGEST]) for at in ends]

    def _set_table(self, at: int, length: memoryview, digests: list[bytes]) -> None:
        kept, first = digests[-MOST_POISON:], at + 8
        length[0] = 0
        self._page[first : first + len(kept) * DIGEST] = b"".join(kept)
        length[0] = len(kept)
