"""keyed: numbers that nobody can tell in advance who does not know the secret. Pure.

Every purpose has a function of its own, so that what one of them gives away (a sequence number, a
port) tells nothing of the others. BLAKE2s with a key is a pseudo-random function (RFC 7693 §2.9).
"""

from __future__ import annotations

from hashlib import blake2s

SECRET_BYTES = 32  # what a secret should have; at least half of it


class Keyed:
    """One function of a secret. `purpose` is at most eight bytes."""

    def __init__(self, secret: bytes, purpose: bytes) -> None:
        if not SECRET_BYTES // 2 <= len(secret) <= SECRET_BYTES:
            raise ValueError(f"a secret has 16 to {SECRET_BYTES} bytes, not {len(secret)}")
        self._started = blake2s(key=secret, person=purpose, digest_size=4)

    def __call__(self, data: bytes) -> int:
        """32 bits of `data`."""
        digest = self._started.copy()
        digest.update(data)
        return int.from_bytes(digest.digest(), "little")
