"""quarantine: requests that lives died of. The second death by one keeps it from all later lives.

The recorder's page says which request a life had in hand when it died. Whether that is to blame is
the launcher's judgement: who was killed from outside did not die of what it was doing.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from dataclasses import dataclass, field

from ukernel.abi.recorder import SIZE, Note, Recorder
from ukernel.abi.tally import Tally

LETHAL = 2  # lives
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@dataclass
class Case:
    """A request and what it did."""

    note: Note
    deaths: int = 0
    seen: float = field(default_factory=time.time)  # when it last ended a life


class Box:
    """The flight recorder of one slot, and what was found in it. `fd` goes to each life."""

    def __init__(self, name: str) -> None:
        self.fd = os.memfd_create(f"recorder-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, SIZE)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, SEALS)  # nobody can cut it under our mapping
        self._memory = mmap.mmap(self.fd, SIZE)
        self._recorder = Recorder(memoryview(self._memory))
        self.tally = Tally(memoryview(self._memory))
        self._cases: dict[bytes, Case] = {}

    def open(self, guilty: bool) -> Case | None:
        """After a death: the request that was in hand, when it is to blame for it."""
        note = self._recorder.note()
        self._recorder.drop()
        self.tally.buried()
        self._acquit()
        if note is None or not guilty:
            return None
        case = self._cases.setdefault(note.digest, Case(note))
        case.deaths += 1
        case.seen = time.time()
        self._publish()
        return case

    def in_hand(self) -> tuple[int, ...]:
        """Two looks that find the same have found the same request in hand; () is none."""
        return self._recorder.in_hand()

    @property
    def quarantined(self) -> list[Case]:
        """The requests that nobody gets any more, in the order of their last deaths."""
        lethal = (case for case in self._cases.values() if case.deaths >= LETHAL)
        return sorted(lethal, key=lambda case: case.seen)

    def pardon(self, case: Case) -> None:
        """Let it be sent again; one more death brings it back."""
        case.deaths = LETHAL - 1
        self._publish()

    def close(self) -> None:
        os.close(self.fd)

    def _acquit(self) -> None:
        """Forget the suspects that a later life has handled and lived."""
        kept = {*self._recorder.suspects(), *self._recorder.poison()}
        self._cases = {digest: case for digest, case in self._cases.items() if digest in kept}

    def _publish(self) -> None:
        quarantined = self.quarantined
        suspects = [case for case in self._cases.values() if case not in quarantined]
        self._recorder.set_poison([case.note.digest for case in quarantined])
        self._recorder.set_suspects([case.note.digest for case in suspects])
